"""The machine under the run, on real processes: whose CPU it is, and what protects the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watch_world import Notes, until

from stormdrill.engine import host as host_module
from stormdrill.engine.host import HostWatch, Sample
from stormdrill.keeper import procfs
from stormdrill.model.event import HostSampled

BURN = "while True: pass"
PREFORK = textwrap.dedent(
    """
    import os, signal, time
    child = os.fork()
    if child == 0:
        while True:
            pass
    signal.signal(signal.SIGTERM, lambda *_: (os.kill(child, 9), os._exit(0)))
    while True:
        time.sleep(1)
    """
)
Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[subprocess.Popen[bytes]] = []

    def run(code: str) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True))
        return made[-1]

    yield run
    for process in made:
        below = procfs.descendants([process.pid])
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        procfs.kill_until_gone([procfs.Identity(i.pid, i.start_ticks, procfs.boot_id()) for i in below], 5)


def used_s(pid: int) -> float:
    found = procfs.stat(pid)
    return found.cpu_ticks / os.sysconf("SC_CLK_TCK") if found else 0.0


def test_what_the_systems_children_burn_is_not_a_strangers(start: Start) -> None:
    root = start(PREFORK)
    until(lambda: procfs.descendants([root.pid]))
    (child,) = procfs.descendants([root.pid])
    before, unaware = Sample({"web": root.pid}), Sample({})
    began_s = used_s(child.pid)
    until(lambda: used_s(child.pid) >= began_s + 0.5)
    now, unaware_now = Sample({"web": root.pid}), Sample({})
    unaware_now.owner = {who: name for who, name in unaware_now.owner.items() if who[0] not in (root.pid, child.pid)}
    unaware_now.at_s, unaware_now.busy_s, unaware.at_s, unaware.busy_s = (
        now.at_s,
        now.busy_s,
        before.at_s,
        before.busy_s,
    )
    interval_s = now.at_s - before.at_s
    spared = unaware_now.since(unaware).foreign_cpu - now.since(before).foreign_cpu
    assert spared * interval_s >= 0.3


def test_a_stranger_on_a_core_that_the_run_may_not_use_takes_nothing_from_it() -> None:
    before, now = Sample({}), Sample({})
    for sample, at_s, busy_s in ((before, 10.0, {0: 5.0, 1: 1.0}), (now, 11.0, {0: 6.0, 1: 1.25})):
        sample.at_s, sample.busy_s, sample.cores, sample.owner = at_s, busy_s, {1}, {}
    sampled = now.since(before)
    assert (sampled.cores, sampled.foreign_cpu) == (1, 0.25)
    before.cores = {0}
    sampled = now.since(before)
    assert (sampled.cores, sampled.foreign_cpu) == (2, 1.25)
    now.cores = {7}  # a container that is told of its own cores alone, by other numbers
    sampled = now.since(before)
    assert (sampled.cores, sampled.foreign_cpu) == (2, 1.25)


def test_the_cores_of_a_run_are_those_that_any_of_its_processes_may_use(start: Start) -> None:
    all_of_them = os.sched_getaffinity(0)
    first, last = min(all_of_them), max(all_of_them)
    try:
        os.sched_setaffinity(0, {first})
        bound = start("import time; time.sleep(100)")
        assert Sample({}).cores == {first}
        os.sched_setaffinity(bound.pid, {last})
        assert Sample({"web": bound.pid}).cores == {first, last}
    finally:
        os.sched_setaffinity(0, all_of_them)


def test_the_generator_is_its_descendants_too(start: Start) -> None:
    root = start(PREFORK)
    until(lambda: procfs.descendants([root.pid]))
    (child,) = procfs.descendants([root.pid])
    before = Sample({"generator-1": root.pid})
    began_s = used_s(child.pid)
    until(lambda: used_s(child.pid) >= began_s + 0.3)
    sampled = Sample({"generator-1": root.pid}).since(before)
    assert sampled.generator_cpu * sampled.interval_ms / 1000 >= 0.28


def test_a_process_that_was_started_meanwhile_counts_from_its_birth(start: Start) -> None:
    before = Sample({})
    burning = start(BURN)
    until(lambda: used_s(burning.pid) >= 0.2)
    sampled = Sample({"generator-1": burning.pid}).since(before)
    assert sampled.generator_cpu * sampled.interval_ms / 1000 >= 0.19  # both are rounded


def test_a_process_that_is_ours_from_now_on_brings_no_past(start: Start) -> None:
    burning = start(BURN)
    until(lambda: used_s(burning.pid) >= 0.5)
    burning.send_signal(signal.SIGSTOP)
    until(lambda: (procfs.stat(burning.pid) or procfs.Stat(0, "", 0, 0, 0)).state == "T")
    before = Sample({})
    sampled = Sample({"generator-1": burning.pid}).since(before)
    assert sampled.generator_cpu == 0
    assert sampled.generator_run_delay == 0


def test_a_process_started_again_under_its_name_never_counts_backwards(start: Start) -> None:
    old = start(BURN)
    until(lambda: used_s(old.pid) >= 0.3)
    before = Sample({"generator-1": old.pid})
    old.kill()
    old.wait(10)
    new = start("import time; time.sleep(100)")
    until(lambda: used_s(new.pid) >= 0.0)
    sampled = Sample({"generator-1": new.pid}).since(before)
    assert 0 <= sampled.generator_cpu * sampled.interval_ms / 1000 <= 0.3
    assert sampled.generator_run_delay >= 0


def test_threads_that_ended_or_share_a_number_give_no_garbage() -> None:
    who = (1, 1)
    before, now = Sample({}), Sample({})
    for sample, threads in ((before, {1: (10**9, 0), 2: (9 * 10**9, 9 * 10**9)}), (now, {1: (2 * 10**9, 10**9)})):
        sample.owner, sample.threads = {who: "web"}, {who: threads}
        sample.cpu_ticks[who] = 0
    assert now.since(before).platform_run_delay == 0.5
    now.threads[who] = {1: (2 * 10**9, 10**9), 2: (10**9, 0)}
    assert now.since(before).platform_run_delay == pytest.approx(0.333)


def test_a_process_belongs_to_the_nearest_of_the_run_above_it() -> None:
    def stat(pid: int, parent: int, session: int) -> procfs.Stat:
        return procfs.Stat(pid, "S", parent, session, pid)

    seen = {
        item.pid: item
        for item in (
            stat(1, 0, 1),
            stat(10, 1, 5),  # the keeper
            stat(20, 10, 20),  # an instance in a session of its own
            stat(21, 20, 20),
            stat(22, 21, 22),  # its grandchild, in another session
            stat(23, 10, 20),  # orphaned, adopted by the keeper
            stat(30, 10, 30),  # the generator
            stat(40, 1, 5),  # a stranger
        )
    }
    roots = {10: "keeper", 20: "web", 30: "generator-1"}
    owners = procfs.owners(roots, seen)
    assert owners == {10: "keeper", 20: "web", 21: "web", 22: "web", 23: "web", 30: "generator-1"}


def watch(notes: Notes, protect: Callable[[str], None], run_dir: Path, memory_mb: int, disk_mb: int) -> HostWatch:
    return HostWatch(dict, notes, protect, run_dir=run_dir, min_memory_mb=memory_mb, min_disk_mb=disk_mb)


@pytest.mark.parametrize(("memory_mb", "disk_mb", "said"), [(1 << 40, 0, "of memory left"), (0, 1 << 40, "disk")])
def test_what_is_scarce_protects_the_machine_once(
    memory_mb: int, disk_mb: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "EVERY_S", 0.01)
    notes, protected = Notes(), list[str]()
    host = watch(notes, protected.append, tmp_path, memory_mb, disk_mb)
    host.start()
    until(lambda: protected)
    host.stop()
    assert len(protected) == 1
    assert said in protected[0]
    assert isinstance(notes.events[0], HostSampled)


def test_a_machine_with_enough_goes_on_being_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "EVERY_S", 0.01)
    notes, protected = Notes(), list[str]()
    host = watch(notes, protected.append, tmp_path, 0, 0)
    host.start()
    until(lambda: len(notes.events) >= 3)
    host.stop()
    assert protected == []


def test_a_host_watch_that_crashes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "EVERY_S", 0.01)
    told: list[BaseException] = []
    host = HostWatch(
        dict,
        Notes(),
        lambda _: None,
        run_dir=tmp_path / "gone",
        min_memory_mb=0,
        min_disk_mb=0,
        on_defect=told.append,
    )
    host.start()
    until(lambda: told)
    host.stop()
    assert isinstance(told[0], FileNotFoundError)
