"""How events are told, wherever they become sentences."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import evidence, judged
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.core.telling import DONE, UNDONE, Endings, ended_text, system_text
from stormdrill.faults.acting import UNDO_WORDS
from stormdrill.model import event as ev
from stormdrill.model.mechanism import How, Tell
from stormdrill.model.system import MetricSource
from synthetic_run import make_system

LIMIT_MB = 256.0


def limited() -> Endings:
    system = make_system()
    instances = tuple(replace(item, memory_mb=LIMIT_MB) for item in system.instances)
    memory = MetricSource("memory", "cpu", "process_resident_memory_bytes")
    return Endings(replace(system, instances=instances, metrics=(*system.metrics, memory)))


def told(endings: Endings, *events: ev.Event, apart_ms: float = 10.0) -> list[str]:
    seen = [endings.see(ev.Recorded(n, "", n * apart_ms, event)) for n, event in enumerate(events)]
    return [ending.sentence for ending in seen if ending is not None]


def of_container(action: str, code: int | None = None, expected: bool = False) -> ev.ContainerEvent:
    return ev.ContainerEvent("gateway-eu", "c1", action, code, expected, "")


IN_CLUSTERS = ("nodes", "scale", "isolate", "capacity")
"""What faults don't ask for themselves: it is what they are bound to."""


@pytest.mark.parametrize("word", sorted({*UNDO_WORDS, *IN_CLUSTERS}))
def test_each_mechanism_has_a_word_for_its_bite_and_one_for_its_end(word: str) -> None:
    for said in (DONE[word], UNDONE[word]):
        assert 0 < len(said) <= 10, "a column of the terminal"


def test_what_runs_is_counted_in_the_targets_own_word() -> None:
    assert [system_text(9, target) for target in ("process", "docker")] == ["9 processes", "9 containers"]
    assert system_text(1, "process") == "1 process"


def test_the_fault_proxy_is_counted_apart_and_what_is_ended_with_containers_is_named() -> None:
    assert system_text(9, "process", proxied=True) == "9 processes and the fault proxy"
    assert ended_text(10, "process", proxied=True) == "9 processes and the fault proxy"
    assert ended_text(9, "process", proxied=False) == "9 processes"
    assert ended_text(11, "docker", proxied=True) == "11 containers, networks and volumes"


def test_an_out_of_memory_kill_of_a_container_is_named_with_its_limit() -> None:
    assert told(limited(), of_container("oom"), of_container("die", 137)) == [
        "out of memory in gateway-eu, limit 256 MB: the kernel killed a process there",
        "the kernel killed gateway-eu: out of memory, limit 256 MB",
    ]


def test_a_death_long_after_another_processs_out_of_memory_kill_is_not_blamed_on_it() -> None:
    found = told(limited(), of_container("oom"), of_container("die", 137), apart_ms=60_000)
    assert found[1] == "gateway-eu ended by itself (exit code 137)"


def test_what_somebody_did_to_a_container_by_hand_is_told_and_what_stormdrill_did_is_not() -> None:
    ours = [of_container(action, 137, True) for action in ("pause", "unpause", "die", "destroy")]
    assert told(limited(), *ours) == []
    assert told(limited(), of_container("destroy")) == ["somebody removed the container of gateway-eu by hand"]


@pytest.mark.parametrize(
    ("read_mb", "signal", "said"),
    [
        (250.0, "SIGKILL", "cpu-eu was killed, probably out of memory: 250 MB at the last reading, limit 256 MB"),
        (90.0, "SIGKILL", "cpu-eu ended by itself (signal SIGKILL)"),
        (250.0, "SIGSEGV", "cpu-eu ended by itself (signal SIGSEGV)"),
    ],
)
def test_a_killed_process_is_probably_out_of_memory_only_near_its_limit(read_mb: float, signal: str, said: str) -> None:
    reading = ev.Reading("memory", "cpu-eu", read_mb * 2**20)
    assert told(limited(), reading, ev.ProcessExited("cpu-eu", 7, None, signal, False)) == [said]


def test_a_container_that_kills_itself_at_the_limit_it_was_told_is_probably_out_of_memory() -> None:
    reading = ev.Reading("memory", "gateway-eu", 250.0 * 2**20)
    (said,) = told(limited(), reading, of_container("die", 137))
    assert said.startswith("gateway-eu was killed, probably out of memory: 250 MB")


def test_what_a_process_is_told_is_its_limit_too() -> None:
    system = make_system()
    told_it = tuple(replace(item, env={"STORMDRILL_MEMORY_LIMIT_MB": "192"}) for item in system.instances)
    memory = MetricSource("memory", "cpu", "process_resident_memory_bytes")
    endings = Endings(replace(system, instances=told_it, metrics=(memory,)))
    reading = ev.Reading("memory", "cpu-eu", 190.0 * 2**20)
    (said,) = told(endings, reading, ev.ProcessExited("cpu-eu", 7, None, "SIGKILL", False))
    assert said.endswith("190 MB at the last reading, limit 192 MB")


def test_a_reading_of_an_earlier_process_says_nothing_of_the_next() -> None:
    spawned = ev.ProcessSpawned("cpu-eu", "cpu", "system", 8, 1, [], {}, "", "", "", {})
    reading = ev.Reading("memory", "cpu-eu", 250.0 * 2**20)
    found = told(limited(), reading, spawned, ev.ProcessExited("cpu-eu", 8, None, "SIGKILL", False))
    assert found == ["cpu-eu ended by itself (signal SIGKILL)"]


def _killed_by_the_kernel(found: Evidence, mechanism: str, how: How | None = None) -> Evidence:
    at_ms = next(r.mono_ms for r in found.events if isinstance(r.event, ev.InjectStarted)) + 3_000
    last = max(r.seq for r in found.events)
    more = tuple(
        ev.Recorded(last + n, "", at_ms + n, event)
        for n, event in enumerate((of_container("oom"), of_container("die", 137)), 1)
    )
    injections = tuple(replace(item, mechanism=mechanism, how=how) for item in found.plan.injections)
    return replace(found, plan=replace(found.plan, injections=injections), events=(*found.events, *more))


def test_an_out_of_memory_kill_is_explained_by_what_takes_memory_and_by_nothing_else(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    explained = judged(_killed_by_the_kernel(found, "pressure"))
    assert explained.verdict == "PASS"
    assert "the kernel killed gateway-eu: out of memory" in explained.faults[0].detail
    rolled_out = Tell("gateway", "POST", "/r", "{}", "POST", "/r", "{}", "/r", ".version == leaky", ("gateway-eu",))
    assert judged(_killed_by_the_kernel(found, "tell", rolled_out)).verdict == "PASS"
    for told in (replace(rolled_out, reaches=("gateway-us",)), replace(rolled_out, reaches=())):
        assert judged(_killed_by_the_kernel(found, "tell", told)).verdict == "INCONCLUSIVE", "late data take no memory"
    unexplained = judged(_killed_by_the_kernel(found, "freeze"))
    assert unexplained.verdict == "INCONCLUSIVE"
    assert "the kernel killed gateway-eu: out of memory, and no fault of the plan explains it" in unexplained.reasons


def test_a_kill_beside_the_application_is_named_in_the_line_of_what_took_the_memory(tmp_path: Path) -> None:
    """The allocator's own end: the container lives on."""
    killed = _killed_by_the_kernel(evidence(tmp_path), "pressure")
    alive = replace(killed, events=killed.events[:-1])
    detail = judged(alive).faults[0].detail
    assert "out of memory in gateway-eu: the kernel killed a process there" in detail
    assert "a process there" not in judged(killed).faults[0].detail, "its death says more"
