"""One run put together: keeper, target, load, watch, guards, runbook and conductor, and what happens when one dies."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from stormdrill import __version__
from stormdrill.api import targets
from stormdrill.api.copies import copied, remove_empty, texts
from stormdrill.core.judge_metrics import JOBS
from stormdrill.engine.conductor import Conductor, Parts, Watcher
from stormdrill.engine.gate import gate
from stormdrill.engine.guards import Guards, armed
from stormdrill.engine.hops import HopWatch, control_of
from stormdrill.engine.host import HostWatch
from stormdrill.engine.settle import Settling
from stormdrill.engine.sight import LiveSight
from stormdrill.engine.signals import stopping_on_signals
from stormdrill.engine.watch import Far, Watch
from stormdrill.errors import Dirty, JournalBroken, KeeperGone, Problem, Refused, StormdrillError
from stormdrill.faults.builtin import KnownFaults
from stormdrill.keeper.client import KeeperClient
from stormdrill.keeper.takeover import take_over
from stormdrill.load.sealed import TOKEN_VARIABLE
from stormdrill.model import event as ev
from stormdrill.model.expression import Comparison, Expression
from stormdrill.model.plan import Plan
from stormdrill.model.verdict import ObjectiveVerdict
from stormdrill.ports import Contacts, LiveLoad, Stands
from stormdrill.spec import secrets
from stormdrill.store import holds, journal, rundir
from stormdrill.store.identity import boot_id, own_identity

if TYPE_CHECKING:
    from stormdrill.engine.drill import DrilledRunbook
    from stormdrill.load.cluster import ClusterLoad
    from stormdrill.load.launcher import LocustLoad
    from stormdrill.spec.load import Source

GENERATOR = "generator"
COMPOSED_WITHIN_S = 10.0


class Observer(Protocol):
    """Told of every event as it is written, and of the live figures a few times a second."""

    def __call__(self, what: ev.Recorded | LiveLoad | None, gauges: Mapping[str, float] | None = None, /) -> None: ...


class Ended(Struct, frozen=True):
    run_dir: Path
    status: str
    head: str
    stopped_by: str
    """Who asked for the abort (see `abort-requested`); empty when it ran to its end."""
    problems: tuple[Problem, ...] = ()
    """Why it was refused while it was set up."""


class Inputs(Struct, frozen=True):
    """What a run is made of, and what is copied into its directory."""

    plan: Plan
    sources: Mapping[str, Source]
    runbook: Path | None
    locustfile: Path | None
    templates: Path | None
    settings: Mapping[str, str]
    runs_dir: Path


def conduct(inputs: Inputs, observer: Observer) -> Ended:
    """The run, from taking the system to giving it back. Raises Refused before anything is touched."""
    plan = inputs.plan
    found = secrets.values(plan, texts(inputs))
    run_dir = rundir.create(inputs.runs_dir, plan.experiment.name)
    try:
        target = targets.make(
            plan.target,
            plan.system,
            run_dir,
            injections=plan.injections,
            lasts_s=plan.longest_s + plan.system.ready_timeout_s,
            secrets=found,
            load=plan.experiment.load,
        )
        target.preflight()
        hold = holds.acquire(plan.system.name, plan.target, run_dir.name, run_dir)
    except Refused:
        remove_empty(run_dir)
        raise
    try:
        session = _Session(inputs, run_dir, target, hold, copied(inputs, run_dir), observer, found)
    except Refused:
        holds.release(hold)
        raise
    except KeeperGone:  # killed before it had said that it is there: whatever it wrote is ended, the system given back
        take_over(run_dir, by="runner")
        raise
    return session.run()


@contextlib.contextmanager
def _without(variable: str) -> Iterator[None]:
    """The keeper hands its environment on to all that it starts, the system under test too."""
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value


class _Session:
    load: LocustLoad | ClusterLoad | None = None

    def __init__(
        self,
        inputs: Inputs,
        run_dir: Path,
        target: targets.DrillTarget,
        hold: holds.Hold,
        digests: dict[str, str],
        observer: Observer,
        found: Mapping[str, str],
    ) -> None:
        self._composed = threading.Event()
        self.inputs = inputs
        self.secrets = found
        self.redactor = secrets.redactor_of(found)
        self.plan = inputs.plan
        self.run_dir = run_dir
        self.target = target
        self.digests = digests
        self.observer = observer
        with _without(TOKEN_VARIABLE):
            client = KeeperClient.start(
                run_dir,
                run=run_dir.name,
                system=self.plan.system.name,
                target=self.plan.target,
                hold=hold,
                on_push=self._pushed,
                grace_s=self.plan.system.stop_timeout_s,
            )
        self.keeper = targets.keeping(target, client, lambda: self.conductor.stopping, self.redactor.register)
        self.conductor = self._compose()
        self._composed.set()

    def run(self) -> Ended:
        """From here on nothing is refused any more: what goes wrong is reverted, and told by what is left."""
        with stopping_on_signals(self.conductor.note_abort):  # a takeover must not be cut short by a signal either
            try:
                for name, value in self.secrets.items():  # before the first line that could hold one
                    self.keeper.secret(name, value)
                self.keeper.record(self._started())
                self.conductor.run()
            except KeeperGone:
                return self._succeed()
            except (Refused, JournalBroken) as error:
                self._end_failed()
                raise StormdrillError(f"{error}; everything was reverted") from error
            except Exception:
                self._end_failed()
                raise
        return self._ended(self.conductor.head)

    def _ended(self, head: str) -> Ended:
        """How it ended, as its own record says."""
        events = journal.salvage(self.run_dir / journal.NAME).events
        ends = [item.event.status for item in events if isinstance(item.event, ev.RunEnded)]
        aborts = [item.event.by for item in events if isinstance(item.event, ev.AbortRequested)]
        status, stopped_by = ends[-1] if ends else "dirty", aborts[0] if aborts else ""
        text = self.redactor.text
        problems = tuple(one._replace(what=text(one.what), fix=text(one.fix)) for one in self.conductor.refused)
        return Ended(self.run_dir, status, head, stopped_by, problems)

    def _end_failed(self) -> None:
        """A defect of stormdrill: whatever it was, everything is reverted and ended before it is told."""
        self.target.leave()
        try:
            self.keeper.teardown()
            self.keeper.close("failed", "a defect of stormdrill; see its report")
        except KeeperGone:
            self._succeed()

    def _succeed(self) -> Ended:
        """The keeper is gone: this process takes the journal over, reverts, and ends what lives."""
        try:
            taken = take_over(self.run_dir, by="runner", redactor=self.redactor, hands=targets.hands(self.target))
        except Refused as refused:  # the system stays held until `recover` has mended it
            raise Dirty(f"{refused}; run: stormdrill recover {self.run_dir.name}") from refused
        if taken.left and not (self.run_dir / journal.NAME).is_file():
            raise Dirty(f"{'; '.join(taken.left)}; run: stormdrill recover {self.run_dir.name}")
        for recorded in journal.salvage(self.run_dir / journal.NAME).events[-40:]:
            if isinstance(recorded.event, ev.JournalTakenOver | ev.RunEnded):
                self.observer(recorded)
        return self._ended(journal.head(self.run_dir / journal.NAME))

    def _started(self) -> ev.RunStarted:
        own = own_identity()
        experiment = self.plan.experiment
        return ev.RunStarted(
            run=self.run_dir.name,
            version=__version__,
            boot_id=boot_id(),
            title=experiment.title,
            experiment=experiment.name,
            system=self.plan.system.name,
            target=self.plan.target,
            seed=self.plan.seed,
            fast=experiment.fast,
            settings=dict(self.inputs.settings),
            inputs=self.digests,
            runner_pid=own.pid,
            runner_start_ticks=own.start_ticks,
            cores=len(os.sched_getaffinity(0)),
            kernel=platform.release(),
        )

    def _compose(self) -> Conductor:
        from stormdrill.probes.prometheus import scrape
        from stormdrill.probes.sources import Sources

        plan = self.plan
        loaded = plan.experiment.load is not None
        observed = plan.experiment.observed
        watch = Watch(
            plan.system,
            self.target.inventory,
            scrape,
            self._record,
            readers=Sources(plan.system, self.secrets),
            observed=observed,
            least_s=self.target.look_limit_s if isinstance(self.target, Far) else 0.0,
            on_defect=self._failed,
        )
        sight = LiveSight(
            self._record_files,
            watch.latest,
            lambda: {key: item.labels for key, item in self.conductor.state.firing.items()},
            watch.counted if observed else None,
        )
        host = HostWatch(
            lambda: {} if self._elsewhere else {**self.target.companions(), **self.conductor.processes},
            self._record,
            lambda reason: self.conductor.abort("machine", reason),
            run_dir=self.run_dir,
            min_memory_mb=plan.policy.min_memory_mb,
            min_disk_mb=plan.policy.min_disk_mb,
            on_defect=self._failed,
        )
        return Conductor(
            plan,
            Parts(
                keeper=self.keeper,
                target=self.target,
                faults=KnownFaults(),
                make_load=self._make_load if loaded else None,
                runbook=self._make_runbook(sight),
                follower=journal.Follower(self.run_dir / journal.NAME),
                judge_baseline=gate(self._judge_so_far, load=loaded, look=watch.read_now),
                settle=self._make_settling(),
                observer=self.observer,
                watchers=(watch, host, self._make_hops(), self._make_guards(sight), *self._make_of_target()),
            ),
        )

    @property
    def _elsewhere(self) -> bool:
        """Nothing of the system is on this machine, and what it lacks starves nobody there."""
        return isinstance(self.target, Contacts)

    def _make_of_target(self) -> Iterator[Watcher]:
        """Of what the target can be asked besides."""
        if isinstance(self.target, Contacts):
            from stormdrill.engine.contact import ContactWatch

            ways = self.target.contacts, self.target.contacts_now
            yield ContactWatch(*ways, self._record, lambda *why: self.conductor.abort(*why), on_defect=self._failed)
        if isinstance(self.target, Stands):
            from stormdrill.engine.standing import StandingWatch, in_force

            yield StandingWatch(
                lambda: in_force(self.plan, self.conductor.state),  # read while the run goes on
                self.target,
                self._record,
                on_defect=self._failed,
            )

    def _make_hops(self) -> HopWatch:
        from stormdrill.probes.hops import read_hops

        return HopWatch(
            self.plan,
            read_hops,
            lambda: control_of(self.conductor.events),
            lambda: self.conductor.state.phase,
            self._record,
            on_defect=self._failed,
        )

    def _make_load(self) -> LocustLoad | ClusterLoad:
        from stormdrill.api.sending import sending
        from stormdrill.load.ceiling import usable_per_s
        from stormdrill.load.crew import make_load
        from stormdrill.load.sealed import LEAST_TOKEN

        assert self.inputs.locustfile is not None
        token = os.environ.get(TOKEN_VARIABLE, "")
        if len(token) >= LEAST_TOKEN:  # else it is refused
            self.redactor.register(token)
            self.keeper.secret(TOKEN_VARIABLE, token)
        sent = sending(self.plan, self.target, self.target.entries, self.run_dir)
        self.load = make_load(
            self.plan,
            directory=self.run_dir,
            locustfile=self.inputs.locustfile,
            entries=sent.entries,
            token=token,
            tell=self._record,
            stop_run=lambda reason: self.conductor.abort_for("load", reason),
            announce=lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201  (to a person, and to no record)
            ceiling_per_s=usable_per_s(),
            inside=sent.inside,
            through=sent.through,
        )
        return self.load

    def _make_settling(self) -> Callable[[], Sequence[tuple[ev.Event, float]]]:
        jobs = self.plan.system.jobs
        if jobs is None:
            return tuple
        from stormdrill.probes.ledger import read_ledger

        return Settling(
            self.run_dir,
            self._record_files,
            self.target.inventory,
            jobs.service,
            jobs.path,
            read_ledger,
            lambda: self.conductor.state.abort is not None,
            self.redactor,
        )

    def _make_runbook(self, sight: LiveSight) -> DrilledRunbook | None:
        use = self.plan.experiment.runbook
        if use is None or self.inputs.runbook is None:
            return None
        from stormdrill.engine.drill import DrilledRunbook
        from stormdrill.probes.call import Calls
        from stormdrill.spec.runbook import read_runbook

        return DrilledRunbook(
            read_runbook(self.inputs.runbook),
            use,
            keeper=self.keeper,
            caller=Calls(),
            sight=sight,
            admin=self.target.admin,
            horizon_s=self.plan.longest_s + self.plan.system.ready_timeout_s,
            redactor=self.redactor,
        )

    def _make_guards(self, sight: LiveSight) -> Guards:
        use = self.plan.experiment.runbook
        return Guards(
            self.plan.experiment.guards,
            sight,
            armed=lambda: armed(self.plan, self.conductor.state, time.monotonic() * 1000),
            record=self._record,
            trip=lambda reason: self.conductor.abort_for("guard", reason),
            trigger=use.start if use else None,
            shown=_shown(self.plan),
            show=self._show,
            on_defect=self._failed,
        )

    # --- what happens while it runs --------------------------------------------------------------------------

    def _pushed(self, kind: str, data: Mapping[str, object]) -> None:
        """What the keeper says unasked; in a thread of its own, and perhaps before there is a conductor to tell."""
        if not self._composed.wait(COMPOSED_WITHIN_S):
            return
        match kind:
            case "process-exited" if str(data["instance"]).startswith(GENERATOR) and self.load is not None:
                how = f"killed by {data['signal']}" if data["signal"] else f"exit code {data['code']}"
                self.load.lost(str(data["instance"]), f"its process ended ({how})")
            case "abort":
                self.conductor.abort("signal", str(data["reason"]))
            case "journal-failed":
                self.conductor.abort("machine", str(data["text"]))
            case "keeper-gone" | "defect":
                self.conductor.lose_keeper("the keeper is gone")

    def _failed(self, error: BaseException) -> None:
        self.conductor.fail(error)

    def _record(self, event: ev.Event, mono_ms: float | None = None) -> None:
        self.conductor.record(event, mono_ms)

    def _record_files(self) -> list[str]:
        return sorted(str(path) for path in (self.run_dir / "load").glob("*.records"))

    def _judge_so_far(self, events: Sequence[ev.Recorded]) -> Sequence[ObjectiveVerdict]:
        from stormdrill.core.judge import judge_baseline
        from stormdrill.store import evidence

        found = evidence.so_far(self.run_dir, self.plan, tuple(events))
        return judge_baseline(found.plan, found.events, found.records)

    def _show(self, gauges: Mapping[str, float]) -> None:
        self.observer(self.load.live() if self.load is not None else None, gauges)


def _shown(plan: Plan) -> dict[str, Expression]:
    """The figures worth watching: what the objectives speak of, each once, keyed as they write it."""
    found: dict[str, Expression] = {}
    for objective in plan.experiment.objectives:
        one = objective.expression
        if isinstance(one, Comparison) and one.metric not in JOBS:
            labels = ",".join(f"{name}={value}" for name, value in one.labels.items())
            found.setdefault(f"{one.metric}{{{labels}}}" if labels else one.metric, one)
    return found
