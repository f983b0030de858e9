"""What each fault chooses, by which mechanism, and what it refuses: pure, from a world that nobody started."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import pytest
from msgspec import NODEFAULT
from msgspec.structs import fields, replace

from fault_world import SYSTEM, hops_of, world_of
from fault_world import planned as composed
from stormdrill.core.reach import out
from stormdrill.errors import Refused
from stormdrill.faults.builtin import BUILTIN
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Beside, Device, Pressure, Sever, Tell, Toxic
from stormdrill.model.plan import Injection
from stormdrill.ports import World
from stormdrill.targets.portable.telling import same, value_at

BARE = World(SYSTEM, world_of().instances)
"""The same system without a proxy."""


def planned(word: str, world: World | None = None, for_s: float = 30.0, **parameters: object) -> tuple[Injection, ...]:
    """As the reader hands parameters over: all of them, with their defaults."""
    fault = BUILTIN[word]
    defaults = {item.encode_name: item.default for item in fields(fault.parameters) if item.default is not NODEFAULT}
    use = FaultUse(word, {**defaults, **parameters})  # type: ignore[dict-item]
    return fault.plan(use, 0, world or world_of(), for_s)


def refused(word: str, world: World | None = None, **parameters: object) -> str:
    with pytest.raises(Refused) as raised:
        planned(word, world, **parameters)
    return str(raised.value)


def hit(found: tuple[Injection, ...]) -> list[tuple[str, str]]:
    return [(item.instance, item.mechanism) for item in found]


def hops(injection: Injection) -> set[str]:
    assert isinstance(injection.how, Toxic)
    return set(injection.how.hops)


def test_an_isolated_region_is_cut_on_every_hop_across_its_border_and_on_none_within() -> None:
    found = planned("region-loss", region="eu", mode="isolate")
    cut = [name for item in found for name in hops(item)]
    inside = {item.name for item in SYSTEM.instances if item.labels.get("region") == "eu"}
    across = {hop.name for hop in hops_of(SYSTEM) if len({hop.caller, hop.callee} & inside) == 1}
    assert sorted(cut) == sorted(across), "each hop in exactly one injection"
    assert {item.mechanism for item in found} == {"cut"}


def test_without_a_proxy_isolation_is_asked_for_below_it() -> None:
    found = planned("region-loss", BARE, region="eu", mode="isolate")
    assert {item.mechanism for item in found} == {"sever"}
    assert all(isinstance(item.how, Sever) and "gateway-us" in item.how.peers for item in found)


def test_isolation_is_never_half_done_where_load_enters_past_the_proxy() -> None:
    """Below the proxy it is cut from its peers and its users, and at the proxy on the hops that lead there."""
    entry = world_of(replace(SYSTEM, entry="gateway"))
    found = planned("region-loss", entry, region="eu", mode="isolate")
    assert ("gateway-eu", "sever") in hit(found)
    assert ("cpu-eu", "sever") not in hit(found)
    (below,) = [item.how for item in found if item.mechanism == "sever"]
    assert isinstance(below, Sever)
    assert below.users
    assert "edge-1" in below.peers
    cut = [name for item in found if item.mechanism == "cut" for name in hops(item)]
    inside = {item.name for item in SYSTEM.instances if item.labels.get("region") == "eu"}
    assert sorted(cut) == sorted(hop.name for hop in hops_of(SYSTEM) if len({hop.caller, hop.callee} & inside) == 1)
    assert len({item.id for item in found}) == len(found)
    assert {"gateway-eu", "cpu-eu", "gpu-eu"} <= out(found, entry)


def test_where_load_enters_an_instance_alone_is_cut_from_everybody() -> None:
    lone = world_of(replace(SYSTEM, instances=tuple(one for one in SYSTEM.instances if one.name[:3] in ("edg", "gat"))))
    lone = replace(lone, system=replace(lone.system, entry="gateway"))
    assert [item.how for item in planned("region-loss", lone, region="eu", mode="isolate")] == [Sever()]


def test_a_partition_cuts_both_directions_between_two_parts_and_nothing_else() -> None:
    (both,) = planned("partition", **{"from": "eu", "to": "us"})
    between = {hop.name for hop in hops_of(SYSTEM) if {hop.caller[-2:], hop.callee[-2:]} == {"eu", "us"}}
    assert hops(both) == between
    assert isinstance(both.how, Toxic)
    assert both.how.direction == "both"
    one_way = planned("partition", **{"from": "eu", "to": "us", "one_way": True})
    sent = {name: item.how.direction for item in one_way if isinstance(item.how, Toxic) for name in item.how.hops}
    assert sent["gateway-eu>gateway-us"] == "up", "what eu sends is lost"
    assert sent["gateway-us>gateway-eu"] == "down", "and so are its answers to us"


def test_devices_are_withdrawn_one_after_the_other_and_all_end_together() -> None:
    found = planned("gpu-pool-outage", mode="hang", over="20s")
    assert sorted(item.start_s for item in found) == [0, 5, 10, 15]
    assert {item.start_s + item.for_s for item in found} == {30.0}
    assert all(isinstance(item.how, Device) and item.how.state == "hang" for item in found)
    assert len({item.id for item in found}) == len({item.switches for item in found}) == 4
    assert len(planned("gpu-pool-outage", mode="devices", share="25%")) == 1


def test_a_pool_loses_its_workers_frozen_or_crashed() -> None:
    assert hit(planned("gpu-pool-outage", region="eu")) == [("gpu-eu", "freeze")]
    assert hit(planned("gpu-pool-outage", how="crash")) == [("gpu-eu", "crash"), ("gpu-us", "crash")]


def test_a_release_is_told_to_the_region_that_is_hit_and_taken_back_by_name() -> None:
    (told,) = planned("memory-leak", mode="release", release="cpu", region="eu")
    assert (told.instance, told.mechanism) == ("gateway-eu", "tell")
    assert isinstance(told.how, Tell)
    assert told.how.reaches == ("cpu-eu",), "who runs it is who is hit, not who is asked"
    assert told.undo == 'POST /releases/cpu {"version": "stable"}'
    assert (told.how.body, told.how.undo_body, told.how.look) == (
        '{"version": "leaky"}',
        '{"version": "stable"}',
        ".version == leaky",
    )


def test_pressure_is_what_was_written() -> None:
    (found,) = planned("memory-leak", mode="pressure", slope="2MB/s", ceiling="1GB", instance="cpu-eu")
    assert found.how == Pressure(mb_per_s=2.0, ceiling_mb=1024.0)


def test_a_late_dependency_is_late_for_all_its_callers_or_for_some() -> None:
    (late,) = planned("late-dependency", name="feed", delay="3s", jitter="1s", distribution="pareto")
    assert hops(late) == {f"{name}>feed" for name in ("gateway-eu", "gateway-us", "cpu-eu", "cpu-us")}
    assert isinstance(late.how, Toxic)
    assert (late.how.delay_ms, late.how.jitter_ms, late.how.distribution) == (3000.0, 1000.0, "pareto")
    (late,) = planned("late-dependency", name="feed", stall=True, callers="cpu")
    assert hops(late) == {"cpu-eu>feed", "cpu-us>feed"}
    (old,) = planned("late-dependency", name="feed", data_lag="30s")
    assert isinstance(old.how, Tell)
    assert (old.mechanism, old.how.body, old.how.look) == ("tell", '{"seconds": 30.0}', ".seconds == 30")


def test_a_squeezed_line_is_one_for_all_who_share_it() -> None:
    (line,) = planned("bandwidth-squeeze", rate="50KB/s", **{"from": "eu", "to": "us"})
    assert isinstance(line.how, Toxic)
    assert line.how.bytes_per_s == 51200.0
    assert len(line.how.hops) == 6


def test_slowed_workers_are_slow_towards_whom_they_work_for() -> None:
    (slow,) = planned("queue-backlog", pool="cpu", region="eu", slow="300ms")
    assert hops(slow) == {"cpu-eu>gateway-eu", "cpu-eu>gateway-us", "cpu-eu>feed"}
    assert hit(planned("queue-backlog", where="pool=cpu, region=us")) == [("cpu-us", "freeze")]


def test_a_lost_node_takes_everything_that_runs_on_it() -> None:
    assert hit(planned("node-loss", node="eu-back")) == [("cpu-eu", "crash"), ("gpu-eu", "crash")]
    assert hit(planned("node-loss", instance="feed", mode="freeze")) == [("feed", "freeze")]


def test_a_flood_enters_where_load_enters() -> None:
    (flood,) = planned("noisy-neighbour", rate="80/s", tier=2, kind="batch")
    assert isinstance(flood.how, Beside)
    assert flood.how.program == "flood"
    assert {"$entry", "80", "2", "--kind=batch"} <= set(flood.how.arguments)
    assert flood.how.reaches == ("edge-1",)
    assert flood.how.request == "POST /jobs (kind batch, tier 2)"
    assert flood.leaves == "jobs of the flood that were accepted stay in the system"


@pytest.mark.parametrize(
    ("request_", "leaves"), [("GET /reports", ""), ("PUT /orders", "what the flood's requests changed in the system")]
)
def test_a_flood_of_one_s_own_says_what_it_asks_and_what_stays(request_: str, leaves: str) -> None:
    (flood,) = planned("noisy-neighbour", rate="80/s", request=request_, body="{}")
    assert isinstance(flood.how, Beside)
    assert flood.how.request == request_
    assert bool(flood.leaves) == bool(leaves)
    assert flood.leaves.startswith(leaves)


@pytest.mark.parametrize(
    ("word", "parameters", "said"),
    [
        ("region-loss", {"region": "mars"}, "regions here: eu, us"),
        ("gpu-pool-outage", {"mode": "devices", "pool": "cpu"}, "add `devices:"),
        ("gpu-pool-outage", {"over": "30s"}, "make it shorter"),
        ("gpu-pool-outage", {"mode": "slow", "how": "crash"}, "leave it out"),
        ("gpu-pool-outage", {"where": "zone"}, "write for instance zone=a"),
        ("memory-leak", {"mode": "pressure"}, "write instance, service"),
        ("memory-leak", {"mode": "release", "release": "gpu"}, "declared here: cpu"),
        ("memory-leak", {"mode": "release", "release": "cpu", "slope": "4MB/s"}, "slope can't be chosen"),
        ("memory-leak", {"mode": "pressure", "service": "cpu", "release": "cpu"}, "leave one out"),
        ("late-dependency", {"name": "feed"}, "none of them"),
        ("late-dependency", {"name": "feed", "stall": True, "reset": True}, "stall and reset together"),
        ("late-dependency", {"name": "feed", "stall": True, "jitter": "1s"}, "go with delay"),
        ("late-dependency", {"name": "feed", "delay": "0s"}, "is nothing"),
        ("late-dependency", {"name": "food", "stall": True}, "declared here: gateway, feed"),
        ("late-dependency", {"name": "feed", "stall": True, "callers": "gpu"}, "its callers are cpu, gateway"),
        ("late-dependency", {"name": "gateway", "data_lag": "30s"}, "add `lag: /lag`"),
        ("late-dependency", {"name": "feed", "data_lag": "30s", "callers": "cpu"}, "leave callers out"),
        ("queue-backlog", {}, "names nobody"),
        ("queue-backlog", {"service": "edge", "slow": "0s"}, "is nothing"),
        ("queue-backlog", {"service": "feed", "slow": "1s"}, "leave slow out to pause it"),
        ("node-loss", {}, "none of them"),
        ("node-loss", {"node": "eu-back", "instance": "feed"}, "node and instance together"),
        ("node-loss", {"instance": "fed"}, "instances here: edge-1"),
        ("partition", {"from": "eu", "to": "eu"}, "two different values"),
        ("partition", {"from": "eu", "to": "mars"}, "regions here: eu, us"),
        ("partition", {"from": "cpu", "to": "gpu", "label": "pool"}, "no proxied hop leads between"),
        ("bandwidth-squeeze", {"rate": "1MB/s"}, "write one of the two"),
        ("bandwidth-squeeze", {"rate": "0B/s", "name": "feed"}, "stall"),
        ("noisy-neighbour", {}, "write for instance rate: 80/s"),
        ("noisy-neighbour", {"rate": "80/s", "request": "jobs"}, "POST /jobs"),
        ("noisy-neighbour", {"rate": "9000/s"}, "out of bounds"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(
    word: str, parameters: dict[str, object], said: str
) -> None:
    text = refused(word, **parameters)
    assert word in text
    assert said in text


@pytest.mark.parametrize("word", list(BUILTIN))
def test_every_fault_says_what_it_does_in_one_line(word: str) -> None:
    assert BUILTIN[word].word == word
    assert 20 < len(BUILTIN[word].summary) < 110


@pytest.mark.parametrize(
    ("word", "parameters", "help_"),
    [
        ("cpu-starvation", {"cpus": 0.1, "service": "cpu"}, "--target docker"),
        ("memory-leak", {"mode": "pressure", "service": "cpu", "victim": "app"}, "mode: release"),
        ("memory-leak", {"mode": "pressure", "service": "cpu", "ceiling": "1MB"}, "write 32MB"),
        ("memory-leak", {"mode": "pressure", "service": "cpu", "ceiling": "900000GB"}, "lower ceiling"),
    ],
)
def test_what_processes_cannot_do_is_refused_with_what_would_help(
    word: str, parameters: dict[str, object], help_: str
) -> None:
    with pytest.raises(Refused, match=help_):
        composed(FaultUse(word, parameters))  # type: ignore[arg-type]


def tells(start_s: float, for_s: float) -> FaultUse:
    return FaultUse("late-dependency", {"name": "feed", "data_lag": "30s"}, start_s, for_s)


def freezes(start_s: float, for_s: float) -> FaultUse:
    return FaultUse("node-loss", {"instance": "feed", "mode": "freeze"}, start_s, for_s)


def test_the_same_switch_twice_is_refused_and_one_after_the_other_is_not() -> None:
    with pytest.raises(Refused, match="life of feed"):
        composed(freezes(0, 10), freezes(9, 10))
    with pytest.raises(Refused, match="age of the data of feed"):
        composed(tells(0, 10), tells(5, 10))
    composed(freezes(0, 10), freezes(10, 10), tells(20, 5), tells(25, 5))


@pytest.mark.parametrize(("told", "halted"), [((2, 5), (0, 10)), ((0, 5), (2, 10)), ((2, 8), (0, 10))])
def test_what_is_halted_cannot_be_told_anything_or_told_to_take_it_back(
    told: tuple[float, float], halted: tuple[float, float]
) -> None:
    with pytest.raises(Refused, match="does not answer then"):
        composed(tells(*told), freezes(*halted))


@pytest.mark.parametrize(("inside", "refused"), [(True, True), (False, False)])
def test_what_must_be_started_in_an_instance_is_not_while_it_is_halted(inside: bool, refused: bool) -> None:
    """A paused container runs no new program; an allocator beside a process doesn't mind."""

    class Offers:
        permission = ""
        mechanisms: ClassVar = {
            word: SimpleNamespace(permission="", refusal=lambda _: "", starts_inside=inside and word == "pressure")
            for word in ("pressure", "freeze")
        }

    pressed = FaultUse("memory-leak", {"mode": "pressure", "instance": "feed"}, 5, 5)
    with pytest.raises(Refused, match="feed does not answer then") if refused else nullcontext():
        composed(freezes(0, 20), pressed, offers=Offers())
    composed(pressed, freezes(6, 2), offers=Offers())


def test_what_is_told_may_be_halted_in_between_and_thawed_with_it() -> None:
    composed(tells(0, 10), freezes(2, 5))
    composed(tells(0, 10), freezes(2, 8))


@pytest.mark.parametrize(
    ("word", "parameters"),
    [
        ("region-loss", {"region": "eu", "share": "0%"}),
        ("gpu-pool-outage", {"share": "0%"}),
        ("gpu-pool-outage", {"mode": "devices", "share": "0.0%"}),
        ("cpu-starvation", {"pool": "cpu", "cpus": 0.1, "share": "0%"}),
        ("late-dependency", {"name": "feed", "data_lag": "0s"}),
    ],
)
def test_nothing_asked_is_nothing_done(word: str, parameters: dict[str, object]) -> None:
    assert "would touch nothing" in refused(word, **parameters)


@pytest.mark.parametrize("lag", ["1234567s", "0.1234567s"])
def test_old_data_are_looked_for_by_the_very_number_that_was_asked(lag: str) -> None:
    (one,) = planned("late-dependency", name="feed", data_lag=lag)
    assert isinstance(one.how, Tell)
    told = value_at(one.how.look, json.loads(one.how.body))
    assert same(told, one.how.look.partition(" == ")[2])


@pytest.mark.parametrize("request_", ["POST /a b", "POST /a\r\nX: y", "P\nOST /a", "POST /\x00", "POST", "get /a"])
def test_a_flood_s_request_is_one_request_line_and_no_more(request_: str) -> None:
    assert "is none" in refused("noisy-neighbour", rate="10/s", request=request_)


def test_what_a_flood_sends_is_never_taken_for_an_option() -> None:
    (one,) = planned("noisy-neighbour", rate="10/s", body="--deadline-s", kind="--rate")
    assert isinstance(one.how, Beside)
    assert {"--body=--deadline-s", "--kind=--rate"} <= set(one.how.arguments)


@pytest.mark.parametrize(
    ("word", "parameters"),
    [
        ("late-dependency", {"name": "feed", "delay": "20m"}),
        ("late-dependency", {"name": "feed", "delay": "1s", "jitter": "20m"}),
        ("late-dependency", {"name": "feed", "trickle": "0.5B/s"}),
        ("bandwidth-squeeze", {"name": "feed", "rate": "9999999GB/s"}),
        ("queue-backlog", {"pool": "cpu", "slow": "20m"}),
    ],
)
def test_what_the_proxy_would_not_take_is_refused_when_planning(word: str, parameters: dict[str, object]) -> None:
    fault = BUILTIN[word]
    defaults = {item.encode_name: item.default for item in fields(fault.parameters) if item.default is not NODEFAULT}
    with pytest.raises(Refused, match="the fault proxy takes"):
        composed(FaultUse(word, {**defaults, **parameters}))  # type: ignore[dict-item]


def test_a_label_may_have_any_name() -> None:
    assert "no instance has self=a" in refused("queue-backlog", where="self=a")
