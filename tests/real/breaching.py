"""A guard that trips while something of the run hangs: real processes, keeper and conductor; the harm is scripted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from msgspec.structs import replace
from small_system import experiment, system

from stormdrill.core.plan import make_plan
from stormdrill.engine.conductor import Conductor, Parts, Runbook
from stormdrill.engine.drill import DrilledRunbook
from stormdrill.engine.guards import Guards
from stormdrill.faults.builtin import BUILTIN
from stormdrill.keeper.client import KeeperClient
from stormdrill.model import event as ev
from stormdrill.model.experiment import Phases, RunbookUse
from stormdrill.model.expression import AlertWithin, Comparison, Expression
from stormdrill.model.plan import Injection
from stormdrill.model.policy import Policy
from stormdrill.ports import Effect, Held
from stormdrill.probes.call import Calls
from stormdrill.redact import Redactor
from stormdrill.spec.runbook import parse_runbook
from stormdrill.store import journal
from stormdrill.targets.process.target import ProcessTarget

Hangs = Literal["nothing", "the inject call", "the look at the effect", "a runbook's action"]
HANGS: tuple[Hangs, ...] = ("nothing", "the inject call", "the look at the effect", "a runbook's action")
GUARD = Comparison("success < 50% for 10s", "success", "<", 50.0, "%")
PHASES = Phases(0.0, 0.2, 20.0, 0.2)
LIMIT_S = 30.0
RUNBOOK = """---
title: It waits for somebody who never answers
answers: [Down]
service: small
owner: tests
severity: SEV-3
escalation: nobody
parameters:
  admin: {from: system.admin, description: the admin API}
exit: success > 50% for 1s
proved_by: []
---
What is asked for never comes.

```action id=wait risk=low idempotent timeout=20s undo=unwait
POST {{ admin }}/wait
verify: GET {{ admin }}/wait .done == true
```

```undo id=unwait
POST {{ admin }}/unwait
```
"""


class Hanging:
    """region-loss, one of whose calls doesn't come back before `release`."""

    word, summary = "region-loss", ""
    parameters = BUILTIN["region-loss"].parameters
    needs = BUILTIN["region-loss"].needs
    plan = staticmethod(BUILTIN["region-loss"].plan)

    def __init__(self, hangs: Hangs, hanging: threading.Event, release: threading.Event) -> None:
        self._hangs = hangs
        self._hanging = hanging
        self._release = release

    def inject(self, injection: Injection, via: object) -> None:
        BUILTIN["region-loss"].inject(injection, via)
        self._wait("the inject call")

    def observe(self, injection: Injection, via: object) -> Effect:
        effect = BUILTIN["region-loss"].observe(injection, via)
        self._wait("the look at the effect")
        return effect

    def _wait(self, where: Hangs) -> None:
        if self._hangs == where:
            self._hanging.set()
            self._release.wait(LIMIT_S)


class Harm:
    """What the guard looks at: fine until something hangs."""

    def __init__(self, hanging: threading.Event) -> None:
        self._hanging = hanging

    def poll(self) -> None:
        pass

    def evaluate(self, expression: Expression) -> Held:
        return Held(self._hanging.is_set(), 31.0)


@contextmanager
def slow_server(asked: threading.Event, release: threading.Event) -> Iterator[str]:
    """Answers nothing before `release`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.set()
            release.wait(LIMIT_S)
            body = b'{"done": true}'
            with suppress(OSError):  # who asked may have given up
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            release.set()
            server.shutdown()
            thread.join(5)


def breached(run_dir: Path, hangs: Hangs) -> list[ev.Recorded]:
    """The journal of a run whose guard tripped while that hung. Everything is released once the revert has begun."""
    run_dir.mkdir(parents=True)
    hanging, release = threading.Event(), threading.Event()
    target = ProcessTarget(system(), run_dir)
    asked = experiment(phases=PHASES, guards=(GUARD,))
    if hangs == "a runbook's action":
        asked = replace(asked, runbook=RunbookUse("waits", AlertWithin("alert(Down)", "Down"), else_after_s=0.2))
    plan = make_plan(
        asked, system(), Policy(), None,
        target="process", offers=target, world=target.world(), faults=BUILTIN, seed=1,
    )  # fmt: skip
    keeper = KeeperClient.start(run_dir, run="r", system="small", target="process")
    with slow_server(hanging, release) as admin:
        conductor = Conductor(
            plan,
            Parts(
                keeper=keeper,
                target=target,
                faults={"region-loss": Hanging(hangs, hanging, release)},
                make_load=None,
                runbook=_runbook(asked.runbook, keeper, admin),
                follower=journal.Follower(run_dir / journal.NAME),
                judge_baseline=lambda _: ev.BaselineJudged(True, ""),
                settle=tuple,
                observer=_observer(hangs, hanging, release),
                watchers=(guards := _Later(),),
            ),
        )
        guards.watcher = Guards(
            plan.experiment.guards,
            Harm(hanging),
            armed=lambda: conductor.state.phase in ("fault", "recovery"),
            record=conductor.record,
            trip=lambda reason: conductor.abort("guard", reason),
            trigger=None,
            shown={},
            show=lambda gauges: None,
        )
        try:
            conductor.run()
        finally:
            release.set()
            if not conductor.state.ended:
                keeper.teardown()
                keeper.close("failed", "the test ended it")
    return list(journal.read(run_dir / journal.NAME))


def latency_ms(events: list[ev.Recorded]) -> float:
    """From the look that tripped the guard to the first revert that started."""
    tripped = next(item.mono_ms for item in events if isinstance(item.event, ev.GuardTripped))
    return next(item.mono_ms for item in events if isinstance(item.event, ev.RevertStarted)) - tripped


class _Later:
    """A watcher that needs the conductor that it is given to."""

    watcher: Guards

    def start(self) -> None:
        self.watcher.start()

    def stop(self) -> None:
        self.watcher.stop()


def _observer(hangs: Hangs, hanging: threading.Event, release: threading.Event) -> Callable[[ev.Recorded], None]:
    def observe(recorded: ev.Recorded) -> None:
        if isinstance(recorded.event, ev.EffectObserved) and hangs == "nothing":
            hanging.set()
        if isinstance(recorded.event, ev.RevertStarted):
            release.set()

    return observe


def _runbook(use: RunbookUse | None, keeper: KeeperClient, admin: str) -> Runbook | None:
    if use is None:
        return None
    return DrilledRunbook(
        parse_runbook("waits.md", RUNBOOK),
        use,
        keeper=keeper,
        caller=Calls(),
        sight=Harm(threading.Event()),
        admin=lambda: admin,
        horizon_s=LIMIT_S,
        redactor=Redactor(),
    )
