"""The conductor on real processes with a real keeper: what it breaks it mends, however the run ends."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import pytest
from load_trial import HTTP_USER, answering
from msgspec.structs import replace
from small_system import experiment, server, system

from stormdrill.core.plan import make_plan
from stormdrill.engine.conductor import Conductor, Parts
from stormdrill.engine.signals import stopping_on_signals
from stormdrill.faults.builtin import BUILTIN
from stormdrill.keeper.client import KeeperClient
from stormdrill.load.launcher import LocustLoad
from stormdrill.model import event as ev
from stormdrill.model.experiment import Experiment, LoadUse
from stormdrill.model.plan import Injection
from stormdrill.model.policy import Policy
from stormdrill.model.profile import Profile, Retry, Stream
from stormdrill.model.system import System
from stormdrill.model.undo import Command
from stormdrill.ports import Effect
from stormdrill.store import journal
from stormdrill.store.records import read_records
from stormdrill.targets.process.target import ProcessTarget

pytestmark = pytest.mark.real


class Rig:
    def __init__(
        self,
        run_dir: Path,
        system: System,
        experiment: Experiment,
        healthy: bool = True,
        load: Callable[[Path], LocustLoad] | None = None,
    ) -> None:
        run_dir.mkdir(parents=True)
        self.run_dir = run_dir
        self.target = ProcessTarget(system, run_dir)
        self.plan = make_plan(
            experiment,
            system,
            Policy(),
            None,
            target="process",
            offers=self.target,
            world=self.target.world(),
            faults=BUILTIN,
            seed=1,
        )
        self.seen: dict[str, Callable[[], None]] = {}
        self.keeper = KeeperClient.start(run_dir, run="r", system="small", target="process")
        judged = ev.BaselineJudged(healthy, "as the test says")
        self.conductor = Conductor(
            self.plan,
            Parts(
                keeper=self.keeper,
                target=self.target,
                faults=BUILTIN,
                make_load=(lambda: load(run_dir)) if load else None,
                runbook=None,
                follower=journal.Follower(run_dir / journal.NAME),
                judge_baseline=lambda _: judged,
                settle=tuple,
                observer=self._observe,
            ),
        )

    def _observe(self, recorded: ev.Recorded) -> None:
        todo = self.seen.pop(recorded.event.type, None)
        if todo is not None:
            todo()

    def run(self) -> str:
        return self.conductor.run()

    def events(self, kind: type) -> list[ev.Recorded]:
        return [item for item in journal.read(self.run_dir / journal.NAME) if isinstance(item.event, kind)]

    def alive(self) -> list[int]:
        spawned = [item.event.pid for item in self.events(ev.ProcessSpawned)]  # type: ignore[attr-defined]
        return [pid for pid in spawned if lives(pid)]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(
        system_: System | None = None,
        experiment_: Experiment | None = None,
        healthy: bool = True,
        load: Callable[[Path], LocustLoad] | None = None,
    ) -> Rig:
        place = tmp_path / f"run-{len(made)}"
        made.append(Rig(place, system_ or system(), experiment_ or experiment(), healthy, load))
        return made[-1]

    yield make
    for one in made:
        if not one.conductor.state.ended:
            one.keeper.teardown()
            one.keeper.close("failed", "the test ended it")


@pytest.mark.parametrize("mode", ["freeze", "crash"])
def test_a_region_is_lost_seen_to_be_lost_and_seen_to_be_back(rig: Callable[..., Rig], mode: str) -> None:
    it = rig(experiment_=experiment(mode))
    assert it.run() == "completed"
    bits = [item.event for item in it.events(ev.EffectObserved)]
    assert [(bit.injection, bit.bit, bit.witness) for bit in bits] == [("region-loss/web-eu", True, "process state")]
    gone = [item.event for item in it.events(ev.RevertVerified)]
    assert [(one.injection, one.gone) for one in gone] == [("region-loss/web-eu", True)]
    assert [(one.event.ok, one.event.detail) for one in it.events(ev.Restored)] == [(True, "2 processes answer")]
    assert it.alive() == []


def test_the_undo_is_on_the_disk_before_the_harm(rig: Callable[..., Rig]) -> None:
    it = rig()
    it.run()
    order = [item.event.type for item in journal.read(it.run_dir / journal.NAME)]
    wanted = ["armed", "phase-entered", "inject-started", "injected", "effect-observed"]
    places = [order.index("armed"), *(order.index(word, order.index("armed")) for word in wanted[1:])]
    assert places == sorted(places)


def test_the_fault_phase_begins_with_the_first_inject_call_and_recovery_with_the_last_verified_revert(
    rig: Callable[..., Rig],
) -> None:
    it = rig()
    it.run()
    edges = {item.event.phase: item.mono_ms for item in it.events(ev.PhaseEntered)}
    assert list(edges) == ["warmup", "baseline", "fault", "recovery", "end"]
    assert it.events(ev.InjectStarted)[0].mono_ms - edges["fault"] < 100
    assert edges["recovery"] == pytest.approx(it.events(ev.RevertVerified)[-1].mono_ms, abs=0.01)


def test_an_unhealthy_baseline_injects_nothing(rig: Callable[..., Rig]) -> None:
    it = rig(healthy=False)
    assert it.run() == "aborted"
    assert it.events(ev.Armed) == []
    assert it.events(ev.InjectStarted) == []
    assert it.alive() == []


@pytest.mark.parametrize("moment", ["process-spawned", "system-ready", "armed", "injected", "revert-started"])
def test_an_abort_at_any_moment_reverts_everything_and_ends_the_system(rig: Callable[..., Rig], moment: str) -> None:
    it = rig()
    it.seen[moment] = lambda: it.conductor.abort("person", "Ctrl-C")
    assert it.run() == "aborted"
    assert it.alive() == []
    harmed = {item.event.injection for item in it.events(ev.InjectStarted)}
    verified = {item.event.injection for item in it.events(ev.RevertVerified) if item.event.gone}
    assert harmed <= verified


@pytest.mark.parametrize("aborted", [False, True])
def test_what_was_turned_away_is_tried_again_after_a_planned_end_and_not_after_an_abort(
    rig: Callable[..., Rig], aborted: bool
) -> None:
    streams = (Stream("s", 1.0, {}, 30.0 if aborted else 1.0),)
    profile = Profile("p", "http_user", "constant", (), streams, retry=Retry(100, 0.1))
    with answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as (url, _):
        it = rig(
            experiment_=replace(experiment(), load=LoadUse("p", 20.0)),
            load=lambda run_dir: LocustLoad(
                directory=run_dir,
                run="r",
                profile=profile,
                rate_per_s=20.0,
                seed=1,
                locustfile=HTTP_USER,
                entries=(url,),
            ),
        )
        if aborted:
            it.seen["injected"] = lambda: it.conductor.abort("person", "Ctrl-C")
        assert it.run() == ("aborted" if aborted else "completed")
    header, rows = read_records(it.run_dir / "load" / "worker-0.records")
    sent_ms = header["epoch_mono_ns"] / 1e6 + (rows["intended_us"] + rows["sent_us"].astype(float)) / 1e3
    assert rows["attempt"].max() > 0
    (ended,) = it.events(ev.LoadEnded)
    if aborted:
        assert ended.mono_ms - it.events(ev.AbortRequested)[0].mono_ms < 10_000
    else:
        assert sent_ms.max() > it.events(ev.PhaseEntered)[-1].mono_ms
    assert (ended.event.unfinished, ended.event.dropped, ended.event.lost_workers) == (0, 0, 0)


@pytest.mark.timeout(20)
def test_signals_that_interrupt_the_loop_with_its_own_lock_in_hand_stop_the_run(rig: Callable[..., Rig]) -> None:
    """What a handler does runs in the middle of the main thread: a lock that it takes there may never be given back."""
    it = rig()
    raised: list[signal.Signals] = []

    def in_clear(frame: FrameType, event: str, _: object) -> None:
        if event == "line" and len(raised) < 3 and frame.f_locals["self"]._cond._lock.locked():
            raised.append(signal.SIGTERM if raised else signal.SIGINT)
            signal.raise_signal(raised[-1])

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        return in_clear if frame.f_code is threading.Event.clear.__code__ else None

    before = sys.gettrace()
    with stopping_on_signals(it.conductor.note_abort):
        sys.settrace(trace)
        try:
            assert it.run() == "aborted"
        finally:
            sys.settrace(before)
    assert len(raised) == 3
    assert [item.event.reason for item in it.events(ev.AbortRequested)] == ["Ctrl-C"]
    assert it.alive() == []


def test_a_system_that_never_answers_is_named_and_ended(rig: Callable[..., Rig]) -> None:
    mute = server("web-mute", "eu", command=("sleep", "60"))
    it = rig(system(mute, server("web-us", "us"), ready_timeout_s=0.7))
    assert it.run() == "aborted"
    reason = it.events(ev.RunEnded)[0].event.reason
    assert "web-mute never answered" in reason
    assert it.alive() == []


def test_a_command_that_dies_at_once_is_told_with_its_exit_code(rig: Callable[..., Rig]) -> None:
    it = rig(system(server("web-eu", "eu", command=("false",)), server("web-us", "us")))
    assert it.run() == "aborted"
    assert "web-eu ended at once (exit code 1)" in it.events(ev.RunEnded)[0].event.reason
    assert it.alive() == []


class _Altered:
    """region-loss, with another inject call."""

    word, summary = "region-loss", ""
    parameters = BUILTIN["region-loss"].parameters
    needs = BUILTIN["region-loss"].needs
    plan = staticmethod(BUILTIN["region-loss"].plan)

    def __init__(self, inject: Callable[[Injection, object], None]) -> None:
        self.inject = inject

    def observe(self, injection: Injection, via: object) -> Effect:
        return BUILTIN["region-loss"].observe(injection, via)


def test_a_call_that_returns_and_touched_nothing_is_no_bite(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = rig()
    monkeypatch.setattr(it.conductor._injecting, "faults", {"region-loss": _Altered(lambda injection, via: None)})
    assert it.run() == "completed"
    assert [item.event.outcome for item in it.events(ev.Injected)] == ["done"]
    assert it.events(ev.EffectObserved) == []


def test_a_call_that_raises_is_reverted_at_once(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    def half(injection: Injection, via: object) -> None:
        BUILTIN["region-loss"].inject(injection, via)
        raise OSError("the engine's socket broke")

    it = rig()
    monkeypatch.setattr(it.conductor._injecting, "faults", {"region-loss": _Altered(half)})
    it.run()
    assert [(item.event.outcome, item.event.detail) for item in it.events(ev.Injected)] == [
        ("failed", "OSError: the engine's socket broke")
    ]
    assert it.events(ev.RevertVerified)[-1].event.gone


def test_a_call_that_outlives_its_limit_is_doubtful_reverted_and_looked_at_again(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(injection: Injection, via: object) -> None:
        BUILTIN["region-loss"].inject(injection, via)
        release.wait(20)

    it = rig()
    monkeypatch.setattr(it.conductor._injecting, "faults", {"region-loss": _Altered(hang)})
    short = replace(it.plan.injections[0], inject_timeout_s=0.2)
    it.conductor.plan = replace(it.plan, injections=(short,))
    started = time.monotonic()
    status = it.run()
    release.set()
    assert status == "completed"
    assert time.monotonic() - started < 15
    assert "doubtful" in [item.event.outcome for item in it.events(ev.Injected)]
    assert it.events(ev.RevertVerified)[-1].event.gone
    assert it.alive() == []


def test_a_call_under_way_when_the_run_is_stopped_is_waited_for_and_reverted_when_it_comes_through(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_gone = threading.Event()

    def slow(injection: Injection, via: object) -> None:
        seen_gone.wait(4)
        time.sleep(0.5)  # longer than it takes to end the run
        BUILTIN["region-loss"].inject(injection, via)

    it = rig()
    monkeypatch.setattr(it.conductor._injecting, "faults", {"region-loss": _Altered(slow)})
    it.seen["inject-started"] = lambda: it.conductor.abort("person", "Ctrl-C")
    it.seen["revert-verified"] = seen_gone.set
    assert it.run() == "aborted"
    (answered,) = it.events(ev.Injected)
    assert answered.event.outcome == "done"
    looks = it.events(ev.RevertVerified)
    assert [(look.event.gone, look.mono_ms > answered.mono_ms) for look in looks] == [(True, False), (True, True)]


def test_a_call_that_hangs_when_the_run_is_stopped_is_waited_for_no_longer_than_its_limit(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    it = rig()
    hangs = _Altered(lambda injection, via: (release.wait(20), None)[1])
    monkeypatch.setattr(it.conductor._injecting, "faults", {"region-loss": hangs})
    it.conductor.plan = replace(it.plan, injections=(replace(it.plan.injections[0], inject_timeout_s=0.3),))
    it.seen["inject-started"] = lambda: it.conductor.abort("person", "Ctrl-C")
    assert it.run() == "aborted"
    assert [item.event.outcome for item in it.events(ev.Injected)] == ["doubtful"]
    last = it.events(ev.EffectObserved)[-1].event
    assert (last.bit, last.detail.startswith("looked at again before the end")) == (False, True)
    release.set()


def test_what_a_failed_call_does_late_is_seen_before_the_end_and_reverted(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(injection: Injection, via: object) -> None:
        raise TimeoutError("no answer")

    it = rig()
    monkeypatch.setattr(it.conductor._injecting, "faults", {"region-loss": _Altered(fails)})
    it.seen["revert-verified"] = lambda: BUILTIN["region-loss"].inject(it.plan.injections[0], it.target)
    assert it.run() == "completed"
    assert [item.event.gone for item in it.events(ev.RevertVerified)] == [True, False, True]
    assert it.alive() == []


def test_an_undo_that_answers_done_and_does_not_help_leaves_the_run_dirty_and_says_what_is_left(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = rig()
    unhelped = _Altered(lambda injection, via: None)
    unhelped.observe = lambda injection, via: Effect(True, False, "GET /version", "leaky")  # type: ignore[method-assign]
    monkeypatch.setattr(it.conductor._injecting, "faults", {"region-loss": unhelped})
    monkeypatch.setattr(it.target, "undo_of", lambda injection: (Command(("true",)),))
    it.conductor.plan = replace(it.plan, injections=(replace(it.plan.injections[0], verify_timeout_s=0.1),))
    assert it.run() == "dirty"
    assert [item.event.outcome for item in it.events(ev.Reverted)][:2] == ["done", "done"]
    reason = it.events(ev.RunEnded)[0].event.reason
    assert reason.startswith("left behind: region-loss/web-eu could not be shown to be reverted: true: exit 0")


def test_no_event_waits_in_memory(rig: Callable[..., Rig]) -> None:
    """What was decided on is what is written: the conductor's state is the fold of the file."""
    from stormdrill.core.fold import fold

    it = rig()
    it.run()
    written: Sequence[ev.Recorded] = journal.read(it.run_dir / journal.NAME)
    assert fold(it.plan, written) == it.conductor.state
