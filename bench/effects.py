"""From the injecting call to the effect, on processes: halts, toxics, devices; and how steady the leak is.

Each is measured where a witness sees it: the process's state, a client's own requests, the pages that the kernel
counts. The system is four small HTTP servers; the proxy's hop is called by a client of this module.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.figure import Figure, at_most

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS / "real"), str(TESTS)]

if TYPE_CHECKING:
    from test_conductor import Rig

    from stormdrill.model.plan import Injection

ROUNDS, QUICK_ROUNDS = 20, 4
LIMIT_S = 10.0
SLOPE_MB_PER_S, CEILING_MB = 16.0, 96.0


def measure(quick: bool) -> Iterator[Figure]:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with _system() as it:
        for word, parameters in (("freeze", {"mode": "freeze"}), ("crash", {"mode": "crash"})):
            times = [_halted_ms(it, n, {"instance": "web-eu", **parameters}) for n in range(rounds)]
            yield at_most(f"effect_{word}_ms", median(times), "ms", 30.0)
        for kept, limit_ms in ((False, 20.0), (True, 200.0)):
            times = [_stalled_ms(it, n, kept) for n in range(rounds)]
            name = "established" if kept else "new"
            yield at_most(f"effect_proxy_{name}_ms", median(times), "ms", limit_ms)
    yield from _leak(quick)


@contextmanager
def _system() -> Iterator[Rig]:
    """The small system of the tests, started and answering."""
    from test_conductor import Rig
    from test_process_mechanisms import SYSTEM, drill, use

    with tempfile.TemporaryDirectory() as folder:
        it = Rig(Path(folder) / "run", SYSTEM, drill(use("node-loss", instance="web-eu")))
        try:
            it.target.start(it.keeper)
            _until(lambda: all(it.target.ready().values()))
            yield it
        finally:
            it.keeper.teardown()
            it.keeper.close("completed", "")


def _until(condition: Callable[[], object]) -> float:
    """When it held, in seconds of the monotonic clock."""
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError("it did not come about")
        time.sleep(0.0002)
    return time.monotonic()


def _injected(it: Rig, number: int, word: str, parameters: dict[str, object]) -> Injection:
    """Planned and armed: nothing is harmed yet."""
    from msgspec.structs import replace

    from stormdrill.faults.builtin import BUILTIN
    from stormdrill.model.event import InjectStarted
    from stormdrill.model.experiment import FaultUse

    use = FaultUse(word, parameters)  # type: ignore[arg-type]
    (planned,) = BUILTIN[word].plan(use, 0, it.target.world(), 30.0)
    one = replace(planned, id=f"{planned.id}-{planned.mechanism}-{number}")
    it.keeper.arm(
        one.id,
        fault=one.fault,
        instance=one.instance,
        mechanism=one.mechanism,
        undo=it.target.undo_of(one),
        expires_in_s=60.0,
    )
    it.keeper.record(InjectStarted(one.id))
    return one


def _halted_ms(it: Rig, number: int, parameters: dict[str, object]) -> float:
    one = _injected(it, number, "node-loss", parameters)
    mechanism = it.target.mechanisms[one.mechanism]
    began_s = time.monotonic()
    mechanism.apply(one)
    seen_s = _until(lambda: mechanism.observe(one).bit)
    it.keeper.revert(one.id, "planned")

    def gone() -> bool:
        it.conductor.refresh()  # tells the target of what was started again
        return mechanism.observe(one).gone

    _until(gone)
    return (seen_s - began_s) * 1000


class _Client:
    """Asks without a pause, over one connection or a new one each time, and remembers when it was last answered."""

    def __init__(self, address: str, kept: bool) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._kept = kept
        self.answered_s = 0.0
        self.answers = 0
        self.stop = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        there = http.client.HTTPConnection(self._host, self._port, timeout=LIMIT_S)
        while not self.stop:
            there.request("GET", "/")
            there.getresponse().read()
            self.answered_s = time.monotonic()
            self.answers += 1
            if not self._kept:
                there.close()
        there.close()


def _stalled_ms(it: Rig, number: int, kept: bool) -> float:
    """From the call to its return or to the last answer that a busy client still got, whichever is later."""
    hop = "web-eu>store-eu"
    routes = http.client.HTTPConnection(*it.target.mechanisms["stall"]._control().split(":"))  # type: ignore[attr-defined]
    routes.request("GET", "/routes")

    listen = next(item["listen"] for item in json.loads(routes.getresponse().read()) if item["name"] == hop)
    routes.close()
    client = _Client(f"127.0.0.1:{listen}", kept)
    client.thread.start()
    _until(lambda: client.answers > 20)
    one = _injected(it, number, "late-dependency", {"name": "store", "stall": True})
    began_s = time.monotonic()
    it.target.mechanisms["stall"].apply(one)
    returned_s = time.monotonic()
    time.sleep(0.3)
    last_s = client.answered_s
    held = time.monotonic() - last_s > 0.05
    it.keeper.revert(one.id, "planned")
    client.stop = True
    client.thread.join(LIMIT_S)
    if not held:
        raise AssertionError("the stall held nothing back")
    return (max(returned_s, last_s) - began_s) * 1000


def _leak(quick: bool) -> Iterator[Figure]:
    from stormdrill.targets.process.pressing import resident_mb

    lasts_s = 4.0 if quick else 8.0
    words = ("--mb-per-s", f"{SLOPE_MB_PER_S}", "--ceiling-mb", f"{CEILING_MB}", "--deadline-s", f"{lasts_s}")
    leak = subprocess.Popen((sys.executable, "-m", "stormdrill.beside", "leak", *words))
    seen: list[tuple[float, float]] = []
    while leak.poll() is None:
        seen.append((time.monotonic(), resident_mb(leak.pid)))
        time.sleep(0.02)
    rising = [(at_s, mb) for at_s, mb in seen if 20.0 < mb < CEILING_MB - 20.0]
    (from_s, from_mb), (to_s, to_mb) = rising[0], rising[-1]
    off = abs((to_mb - from_mb) / (to_s - from_s) / SLOPE_MB_PER_S - 1.0) * 100
    yield at_most("leak_slope_off_percent", off, "%", 10.0)
    yield at_most("leak_most_mb", max(mb for _, mb in seen), "MB", CEILING_MB)
