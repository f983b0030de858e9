"""A run whose load is lost, before a fault or in it: named at once, reverted, INVALID, and nobody goes on loading."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from drill import Drilled, Repository

from stormdrill.model import event as ev
from stormdrill.store.records import read_records

pytestmark = pytest.mark.real


def laid_out(place: Path, workers: int) -> Repository:
    repository = Repository(place / "mine").lay_out(fault="9s")
    file = repository.root / "experiments" / "small.yaml"
    file.write_text(file.read_text().replace("rate: 40/s}", f"rate: 40/s, workers: {workers}}}"))
    return repository


def loading(repository: Repository) -> Drilled:
    """A drill that sends its load: the baseline, whatever strangers do to this machine."""
    run = repository.drill()
    repository.until(lambda item: isinstance(item.event, ev.LoadStarted))
    records = repository.run_dir / "load" / "worker-1.records"
    until_s = time.monotonic() + 10
    while not (records.exists() and len(read_records(records)[1])) and time.monotonic() < until_s:
        time.sleep(0.02)
    return run


@pytest.mark.parametrize(
    ("workers", "instance", "number"),
    [
        (1, "generator-0", signal.SIGKILL),
        (1, "generator-0", signal.SIGSTOP),
        (2, "generator-1", signal.SIGKILL),
        (2, "generator-1", signal.SIGSTOP),
        (2, "generator-master", signal.SIGKILL),
    ],
)
def test_a_load_that_is_lost_ends_the_run_as_invalid_with_its_name(
    tmp_path: Path, workers: int, instance: str, number: signal.Signals
) -> None:
    repository = laid_out(tmp_path, workers)
    run = repository.bitten()
    spawned = {
        item.event.instance: item.event.pid for item in repository.seen() if item.event.type == "process-spawned"
    }
    assert sum(name.startswith("generator") for name in spawned) == (1 if workers == 1 else workers + 1)
    at_ms = time.monotonic() * 1000
    os.kill(spawned[instance], number)
    outcome = run.end()
    assert outcome.words == (3, "aborted", "INVALID"), outcome.progress
    found = repository.events()
    (lost,) = (item for item in found if isinstance(item.event, ev.LoadWorkerLost))
    assert lost.event.worker == instance
    assert lost.mono_ms - at_ms < 2000
    abort = next(item for item in found if isinstance(item.event, ev.AbortRequested))
    assert abort.event.by == "load"
    assert instance in abort.event.reason or workers == 1
    if number is signal.SIGKILL:
        assert "killed by SIGKILL" in lost.event.detail
    harmed = {item.event.injection for item in found if isinstance(item.event, ev.InjectStarted)}
    assert harmed == {item.event.injection for item in found if isinstance(item.event, ev.RevertVerified)}
    ended = next(item.event for item in found if isinstance(item.event, ev.LoadEnded))
    assert ended.lost_workers == (workers if instance == "generator-master" else 1)
    assert "was lost" in " ".join(outcome.progress.split())
    assert repository.alive() == []


def test_two_workers_pass_what_one_does_and_their_processes_are_told_apart_from_the_systems(tmp_path: Path) -> None:
    repository = laid_out(tmp_path, 2)
    outcome = repository.conclude()
    assert outcome.words == (0, "completed", "PASS"), outcome.progress
    found = [item.event for item in repository.events()]
    started = next(event for event in found if isinstance(event, ev.LoadStarted))
    assert (started.workers, started.names, started.loop) == (2, ["generator-0", "generator-1"], "open")
    files = [event.file for event in found if isinstance(event, ev.RecordClosed) and event.complete]
    assert {"load/worker-0.records", "load/worker-1.records"} <= set(files)
    samples = [event for event in found if isinstance(event, ev.HostSampled)]
    assert max(event.generator_cpu for event in samples) > 0
    assert repository.command("verify", repository.run_dir.name).returncode == 0
    assert repository.alive() == []


def test_a_killed_runner_leaves_no_load_behind(tmp_path: Path) -> None:
    repository = laid_out(tmp_path, 2)
    run = loading(repository)
    run.send(signal.SIGKILL)
    run.process.wait()
    repository.until(lambda item: isinstance(item.event, ev.RunEnded))
    spawned = {item.event.pid for item in repository.seen() if item.event.type == "process-spawned"}
    assert not spawned & set(repository.alive())  # the keeper may still be saying goodbye
