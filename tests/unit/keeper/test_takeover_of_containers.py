"""Whoever takes a run over may be killed at any moment, and an engine may have a bad day: whoever comes next ends with
nothing of ours, and with everything that is somebody else's as it was."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_engine import FakeEngine, fake_engine
from keeping import run_started
from stormdrill.keeper import procfs
from stormdrill.keeper.takeover import TakeOverResult, take_over
from stormdrill.keeper.undo import waves_of_reverting
from stormdrill.model.event import Armed, ContainerStarted, ResourcesClaimed, Reverted, RunEnded
from stormdrill.model.undo import Clear, Engine, Restore, Signal, Spawn, Undo, undo_to_json
from stormdrill.store import holds, rundir
from stormdrill.store.journal import NAME, JournalWriter, salvage

RUN = "20260101T000000Z-killed-0000"
Kill = tuple[int, bool]
"""At which request, and whether after the engine has acted on it."""
TROUBLES = st.lists(
    st.tuples(
        st.sampled_from(["unpause", "connect", "DELETE", "GET /containers", "networks"]),
        st.sampled_from(["500", "cut", "lost", "garbage"]),
    ),
    max_size=3,
)
HARM = st.lists(st.sampled_from(["pause", "cut", "both", "none", "removed by hand"]), min_size=1, max_size=3)
KILLS = st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=3)


def a_killed_run(run_dir: Path, engine: FakeEngine, harm: Sequence[str]) -> list[str]:
    """Its journal, and what stands on the engine; returns what is somebody else's."""
    journal = JournalWriter.create(run_dir / NAME)
    journal.write(run_started(RUN))
    names = [f"box-{number}" for number in range(len(harm))]
    journal.write(ResourcesClaimed(engine.url, names, ["net"], []))
    engine.networks = {"net": {"stormdrill": RUN}, "theirs": {}}
    theirs = engine.add("theirs", "net", "theirs")
    theirs.paused = True
    for name, word in zip(names, harm, strict=True):
        box = engine.add(name, "net", stormdrill=RUN)
        journal.write(ContainerStarted(name, "web", "system", box.id, name, 0, "i", "", {}, True))
        undo: list[Undo] = []
        if word in ("pause", "both", "removed by hand"):
            box.paused = True
            undo.append(Engine(engine.url, "POST", f"/containers/{box.id}/unpause", timeout_s=0.5))
        if word in ("cut", "both"):
            box.networks.clear()
            body = json.dumps({"Container": box.id})
            undo.append(Engine(engine.url, "POST", "/networks/net/connect", body, with_the_run=True, timeout_s=0.5))
        if word == "removed by hand":
            del engine.boxes[box.id]
        if undo:
            written = [undo_to_json(item) for item in undo]
            journal.write(Armed(f"harm/{name}", "region-loss", name, "freeze", written, 0.0, ""))
    journal.close()
    return [theirs.id]


def take_over_and_be_killed(run_dir: Path, engine: FakeEngine, kill: Kill) -> None:
    """In a process of its own, ended by SIGKILL around the given request to the engine, if it gets so far."""
    began, victim = threading.Event(), 0
    base, (at, after) = len(engine.asked), kill

    def on_request(number: int) -> None:
        began.wait(5.0)
        if number == (-(base + at) if after else base + at):
            os.kill(victim, signal.SIGKILL)

    engine.on_request = on_request
    victim = os.fork()
    if victim == 0:
        try:
            take_over(run_dir, "recover")
        finally:
            os._exit(0)
    began.set()
    until = time.monotonic() + 30.0
    while os.waitpid(victim, os.WNOHANG)[0] == 0:
        assert time.monotonic() < until, "the takeover does not end"
        time.sleep(0.002)
    engine.on_request = lambda _: None


@settings(max_examples=25, deadline=None)
@given(HARM, TROUBLES, KILLS)
def test_a_takeover_killed_at_any_point_and_repeated_ends_with_nothing_of_ours(
    harm: list[str], troubles: list[tuple[str, str]], kills: list[Kill]
) -> None:
    with tempfile.TemporaryDirectory() as folder, fake_engine(Path(folder)) as engine:
        run_dir = Path(folder) / RUN
        run_dir.mkdir()
        theirs = a_killed_run(run_dir, engine, harm)
        engine.troubles = list(troubles)
        for kill in kills:
            take_over_and_be_killed(run_dir, engine, kill)
        result: TakeOverResult = take_over(run_dir, "recover")
        assert (result.status, result.left) == ("aborted", ())
        assert list(engine.boxes) == theirs
        assert engine.boxes[theirs[0]].paused, "somebody else's is not touched"
        assert set(engine.networks) == {"theirs"}
        found = salvage(run_dir / NAME)
        assert found.torn == b""
        words = [recorded.event for recorded in found.events]
        assert isinstance(words[-1], RunEnded)
        armed = {word.injection for word in words if isinstance(word, Armed)}
        good = {word.injection for word in words if isinstance(word, Reverted) and word.outcome != "failed"}
        assert armed <= good


def test_where_the_record_is_gone_the_label_tells_what_to_remove_and_nobody_what_else_was_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        run_dir = rundir.create(tmp_path / "runs", "test")
        hold = holds.acquire("boxes", "docker", run_dir.name, run_dir)
        holds.set_keeper(hold, procfs.Identity(1, 1, "of an earlier boot"))
        engine.networks = {"net": {"stormdrill": run_dir.name}, "theirs": {}}
        engine.add("web", "net", stormdrill=run_dir.name).paused = True
        theirs = engine.add("theirs", "theirs")
        result = take_over(run_dir, "recover")
        assert (result.status, result.removed) == ("dirty", ("web", "net"))
        assert "the record is gone" in result.left[0]
        assert (list(engine.boxes.values()), set(engine.networks)) == ([theirs], {"theirs"})
        assert [one.left for one in holds.open_runs()] == [result.left]
        assert take_over(run_dir, "recover", accept_left=True).status == "aborted"
        assert holds.open_runs() == []


UNDOS = st.lists(
    st.sampled_from(
        [Signal("a", 1, 1, "b", "SIGCONT"), Clear("h:1", "t"), Engine("e", "POST", "/p"), Restore("/f", ""), Spawn("a")]
    ),
    min_size=1,
    max_size=3,
)


@given(st.lists(st.tuples(st.sampled_from(["freeze", "cut", "runbook"]), st.sampled_from("abc"), UNDOS), max_size=12))
def test_signals_come_first_the_runbook_last_and_one_instance_is_reverted_backwards(
    armed: list[tuple[str, str, list[Undo]]],
) -> None:
    waves = waves_of_reverting([(number, *one) for number, one in enumerate(armed)])
    assert sorted(number for wave in waves for lane in wave for number in lane) == list(range(len(armed)))

    def rank(number: int) -> int:
        fault, _, undo = armed[number]
        return 2 if fault == "runbook" else 0 if all(isinstance(item, Signal) for item in undo) else 1

    ranks = [{rank(number) for lane in wave for number in lane} for wave in waves]
    assert all(len(rank_of) == 1 for rank_of in ranks)
    assert [min(rank_of) for rank_of in ranks] == sorted(min(rank_of) for rank_of in ranks)
    for wave in waves:
        for lane in wave:
            assert lane == sorted(lane, reverse=True)
        if rank(wave[0][0]) == 1:
            assert all(len({armed[number][1] for number in lane}) == 1 for lane in wave)
            assert len({armed[lane[0]][1] for lane in wave}) == len(wave), "one lane an instance"
        else:
            assert len(wave) == 1
