"""Who counts as hit, and what is left when the worst comes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from test_core_policy import NOON

from stormdrill.core.digest import changes, digest, facts
from stormdrill.core.measure import numbers
from stormdrill.core.policy import violations
from stormdrill.core.reach import out, touched, worst_case
from stormdrill.model.experiment import Experiment, Phases
from stormdrill.model.mechanism import (
    Beside,
    Capacity,
    How,
    Isolate,
    Nodes,
    Pressure,
    Quota,
    Rollout,
    Scale,
    Segment,
    Sever,
    Tell,
    Toxic,
)
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.policy import Policy
from stormdrill.model.system import ServiceInstance, System
from stormdrill.ports import Hop, Instance, World

NAMES = ("edge-1", "edge-2", "gateway-eu", "gateway-us", "cpu-eu", "cpu-us", "feed")


def hop(caller: str, callee: str) -> Hop:
    return Hop(f"{caller}>{callee}", callee.partition("-")[0], caller, callee)


WORLD = World(
    System(
        name="s",
        entry="edge",
        instances=tuple(ServiceInstance(name=name, service=name.partition("-")[0], command=("x",)) for name in NAMES),
    ),
    tuple(Instance(name=name, service=name.partition("-")[0], labels={}) for name in NAMES),
    (
        *(hop(caller, f"gateway-{region}") for region in ("eu", "us") for caller in ("edge-1", "edge-2")),
        *(hop(f"cpu-{region}", f"gateway-{region}") for region in ("eu", "us")),
        *(hop(f"gateway-{region}", "feed") for region in ("eu", "us")),
        hop("gateway-eu", "gateway-us"),
        hop("gateway-us", "gateway-eu"),
    ),
)
ISOLATED = (
    "edge-1>gateway-eu",
    "edge-2>gateway-eu",
    "gateway-eu>feed",
    "gateway-eu>gateway-us",
    "gateway-us>gateway-eu",
)


def one(
    instance: str, mechanism: str = "freeze", how: How | None = None, start_s: float = 0, for_s: float = 30
) -> Injection:
    return Injection(
        id=f"f/{instance}", fault="f", use=0, instance=instance, mechanism=mechanism, undo="u", start_s=start_s,
        for_s=for_s, how=how,
    )  # fmt: skip


def cut(instance: str, *hops: str) -> Injection:
    return one(instance, "cut", Toxic(hops=hops, kind="cut"))


def test_a_fault_on_the_lines_of_one_instance_hits_that_one_alone() -> None:
    assert touched(cut("gateway-eu", *ISOLATED)) == {"gateway-eu"}
    assert touched(one("cpu-eu")) == {"cpu-eu"}


def test_a_fault_on_lines_with_many_ends_hits_every_callee() -> None:
    hops = ("edge-1>gateway-eu", "edge-1>gateway-us", "edge-2>gateway-us")
    assert touched(one("gateway-eu", "squeeze", Toxic(hops=hops, kind="squeeze"))) == {"gateway-eu", "gateway-us"}


def test_what_nothing_leads_to_any_more_is_out_though_it_runs() -> None:
    assert out([cut("gateway-eu", *ISOLATED)], WORLD) == {"gateway-eu", "cpu-eu"}
    assert out([one("cpu-us", "sever", Sever())], WORLD) == {"cpu-us"}


def test_a_partition_between_regions_that_both_serve_puts_nobody_out() -> None:
    parted = cut("gateway-eu", "gateway-eu>gateway-us", "gateway-us>gateway-eu")
    assert out([parted], WORLD) == set()
    assert worst_case([parted], WORLD) == "gateway 1 of 2 partly cut off; for 30 s"


def test_a_service_without_an_instance_left_is_said_loudly() -> None:
    said = worst_case([one("edge-1"), one("edge-2", start_s=10, for_s=20), one("feed"), one("cpu-eu")], WORLD)
    assert "NO INSTANCE of edge left (2 of 2 out, and nobody gets in)" in said
    assert "NO INSTANCE of feed left (1 of 1 out)" in said
    assert "cpu" in said


def test_what_never_happens_at_the_same_time_is_not_added_up() -> None:
    assert worst_case([one("cpu-eu", for_s=10), one("cpu-us", start_s=10, for_s=20)], WORLD) == (
        "1 of 7 instances out at once: cpu 1 of 2 left (50%); for 10 s, of 30 s in all"
    )


def test_a_stalled_dependency_is_out_and_a_late_one_is_slowed() -> None:
    hops = ("gateway-eu>feed", "gateway-us>feed")
    assert "NO INSTANCE of feed left" in worst_case([one("feed", "stall", Toxic(hops=hops, kind="stall"))], WORLD)
    late = one("feed", "delay", Toxic(hops=hops, kind="delay", delay_ms=300))
    assert worst_case([late], WORLD) == "feed 1 of 1 slowed; for 30 s"


def plan_of(*injections: Injection) -> Plan:
    experiment = Experiment(
        name="x", title="x", hypothesis="x", owner="x", system="s", phases=Phases(0, 1, 30, 1), faults=(), objectives=()
    )
    return Plan(
        experiment=experiment, system=WORLD.system, target="docker", seed=1, injections=injections, duration_s=32,
        worst_case="", irreversible=(), permissions=(),
    )  # fmt: skip


def test_memory_taken_at_the_same_time_is_added_up_against_its_cap() -> None:
    hungry = Pressure(mb_per_s=4, ceiling_mb=700)
    together = plan_of(one("cpu-eu", "pressure", hungry), one("cpu-us", "pressure", hungry))
    policy = Policy(targets=("docker",), max_memory_mb=1024)
    assert [problem.what for problem in violations(policy, together, NOON)] == [
        "1400 MB are taken by memory-leak at once, 1024 MB is the most"
    ]
    apart = plan_of(one("cpu-eu", "pressure", hungry, for_s=10), one("cpu-us", "pressure", hungry, start_s=10, for_s=9))
    assert not violations(policy, apart, NOON)


def test_a_digest_speaks_of_who_is_there_and_of_what_is_done_and_a_change_is_named() -> None:
    before = facts(plan_of(one("cpu-eu")))
    assert digest(facts(replace(plan_of(one("cpu-eu")), seed=2))) == digest(before)
    rebuilt = replace(WORLD.system, instances=(replace(WORLD.system.instances[0], image="sha256:2"),))
    now = facts(replace(plan_of(one("cpu-us")), system=rebuilt))
    assert digest(now) != digest(before)
    said = changes(before, now)
    assert (
        any(line.startswith('injection f/cpu-eu is gone: it was ["cpu-eu","freeze"') for line in said)
        or "more" in said[-1]
    )
    assert any(line.startswith("instance ") for line in said)


def test_a_release_hits_those_who_run_it_and_not_who_is_asked() -> None:
    told = Tell("gateway", "POST", "/r", "{}", "POST", "/r", "{}", "/r", ".version == leaky", ("cpu-eu", "cpu-us"))
    assert touched(one("gateway-eu", "tell", told)) == {"cpu-eu", "cpu-us"}
    assert touched(one("gateway-eu", "tell", replace(told, reaches=()))) == {"gateway-eu"}
    assert worst_case([one("gateway-eu", "tell", told)], WORLD) == "cpu 2 of 2 told to behave otherwise; for 30 s"


LEAKY = Tell(
    "gateway", "POST", "/r", "{}", "POST", "/r", "{}", "/r", ".version == leaky", ("cpu-eu",), "on another release"
)


def limited(memory_mb: float) -> World:
    system = WORLD.system
    return replace(
        WORLD, system=replace(system, instances=tuple(replace(one, memory_mb=memory_mb) for one in system.instances))
    )


def test_a_leak_at_its_worst_ends_in_a_kill_where_memory_is_limited() -> None:
    release = one("gateway-eu", "tell", LEAKY)
    assert worst_case([release], limited(192.0)) == (
        "cpu 1 of 2 on another release; cpu 1 of 2 may be killed at its memory limit (192 MB); for 30 s"
    )
    assert worst_case([release], WORLD) == "cpu 1 of 2 on another release; for 30 s"
    everywhere = one("gateway-eu", "tell", replace(LEAKY, reaches=("cpu-eu", "cpu-us")))
    for both in ([everywhere], [release, one("cpu-us")]):
        assert "may be killed at its memory limit (192 MB), which would leave NO INSTANCE of cpu" in worst_case(
            both, limited(192.0)
        )


def test_pressure_may_kill_the_application_that_is_meant_and_else_its_own_allocator() -> None:
    neighbour = Pressure(mb_per_s=4, ceiling_mb=200)
    app = replace(neighbour, victim="app")
    assert "killed" not in worst_case([one("cpu-eu", "pressure", neighbour)], limited(128.0))
    assert "cpu 1 of 2 may be killed at its memory limit (128 MB)" in worst_case(
        [one("cpu-eu", "pressure", app)], limited(128.0)
    )
    assert "cpu 1 of 2 may be killed at its memory limit;" in worst_case([one("cpu-eu", "pressure", app)], WORLD)


def test_the_worst_moment_is_the_one_that_may_kill_most() -> None:
    stopped, leaking = one("feed", for_s=10), one("gateway-eu", "tell", LEAKY, start_s=10, for_s=20)
    both = replace(leaking, how=replace(LEAKY, reaches=("cpu-eu", "cpu-us")))
    assert "NO INSTANCE of cpu" in worst_case([stopped, both], limited(192.0))


def test_what_is_told_says_what_it_makes_of_those_who_are_told() -> None:
    old = replace(LEAKY, reaches=(), means="with old data")
    assert worst_case([one("feed", "tell", old)], WORLD) == "feed 1 of 1 with old data; for 30 s"


def test_a_flood_enters_by_every_entry_and_is_beside_the_whole_system() -> None:
    flood = one("edge-1", "beside", Beside("flood", (), ("edge-1", "edge-2"), "POST /jobs (tier 3)", 80.0))
    assert touched(flood) == {"edge-1", "edge-2"}
    assert worst_case([flood], WORLD) == "the whole system beside a flood of 80/s; for 30 s"
    assert numbers(flood) == "80/s of POST /jobs (tier 3) into edge-1, edge-2"
    burn = one("edge-1", "beside", Beside("burn", ("--cores", "2"), cores=2))
    assert worst_case([burn], WORLD) == "the whole system beside programs that burn 2 cores; for 30 s"
    assert numbers(burn) == numbers(burn, "docker") == "burns 2 cores of this machine"
    assert numbers(burn, "kubernetes") == "burns 2 cores of the node of edge-1"


def test_each_hop_that_is_hit_is_named_with_the_way_that_is_hit() -> None:
    said = numbers(cut("gateway-eu", *ISOLATED))
    assert all(name in said for name in ISOLATED)
    late = Toxic(hops=("edge-1>gateway-eu",), kind="delay", delay_ms=300, direction="down")
    assert numbers(one("gateway-eu", "delay", late)) == "300 ms, answers only, on the 1 hop from edge-1"
    asked = numbers(one("gateway-eu", "cut", Toxic(hops=("edge-1>gateway-eu",), kind="cut", direction="up")))
    assert asked == "requests only, on the 1 hop from edge-1"


def test_who_is_severed_from_all_that_leads_to_it_is_out_as_if_it_were_cut() -> None:
    """Below any proxy, and only from those outside its region: nobody reaches it from where load enters."""
    outside = tuple(name for name in NAMES if not name.endswith("-eu"))
    severed = [one(name, "sever", Sever(outside)) for name in ("gateway-eu", "cpu-eu")]
    assert out(severed, WORLD) == {"gateway-eu", "cpu-eu"}
    assert "gateway 1 of 2 left" in worst_case(severed, WORLD)


@pytest.mark.parametrize("change", [{"env": {"BUG": "x"}}, {"memory_mb": 64.0}, {"cpus": 0.5}, {"devices": ("gpu0",)}])
def test_a_system_that_is_told_or_given_something_else_is_another_world(change: dict[str, object]) -> None:
    before = plan_of(one("cpu-eu"))
    first, *others = before.system.instances
    now = replace(before, system=replace(before.system, instances=(replace(first, **change), *others)))
    assert digest(facts(now)) != digest(facts(before))


GONE = Nodes(("n1",), "taint", ("gateway-eu", "cpu-eu"), pods=3)
AWAY = Scale("deployments/cpu", "shop", 2, ("cpu-eu", "cpu-us"))
ALONE = Isolate("shop", {"app": "cpu"}, ({"app": "cpu"},), ("cpu-eu",))
WHOM: tuple[tuple[str, How, set[str]], ...] = (
    ("nodes", GONE, {"gateway-eu", "cpu-eu"}),
    ("nodes", Nodes(("n2",), "taint"), set()),
    ("scale", AWAY, {"cpu-eu", "cpu-us"}),
    ("isolate", ALONE, {"cpu-eu"}),
    ("rollout", Rollout("deployments/cpu", "shop", "", reaches=("cpu-eu",)), {"cpu-eu"}),
    ("capacity", Capacity(("n1",), "nvidia.com/gpu", reaches=("cpu-eu",)), {"cpu-eu"}),
)


@pytest.mark.parametrize(("word", "how", "whom"), WHOM)
def test_what_is_done_in_a_cluster_hits_whom_it_reaches_and_no_node(word: str, how: How, whom: set[str]) -> None:
    assert touched(one("n1", word, how)) == whom


def test_who_goes_with_a_node_is_out_and_who_gets_another_release_is_not() -> None:
    assert out([one("n1", "nodes", GONE)], WORLD) == {"gateway-eu", "cpu-eu"}
    assert "NO INSTANCE of cpu left (2 of 2 out)" in worst_case([one("cpu", "scale", AWAY)], WORLD)
    assert out([one("cpu", "isolate", ALONE)], WORLD) == {"cpu-eu"}
    rolled = one("cpu", "rollout", Rollout("deployments/cpu", "shop", "", reaches=("cpu-eu",)))
    assert worst_case([rolled], WORLD) == "cpu 1 of 2 on another release; for 30 s"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (GONE, "n1: cordoned and tainted; 3 pods would go"),
        (Nodes(("n1",), "evict"), "n1: cordoned and emptied by evictions; no pod would go"),
        (AWAY, "2 pods of deployments/cpu taken away"),
        (ALONE, "pods with app=cpu from everybody; still heard by app=cpu"),
        (Rollout("deployments/cpu", "shop", "", env={"LEAK": "4"}), "deployments/cpu: LEAK=4"),
        (Rollout("deployments/cpu", "shop", "", unready=True), "deployments/cpu: a release that never gets ready"),
        (Capacity(("n1",), "x/gpu", "a/b"), "no x/gpu on n1, whose device plugin a/b is moved away"),
        (Quota("shop", {"pods": ""}), "namespace shop limited: pods to what is used now"),
        (Segment("shop", {"app": "web"}, "db:5432"), "from pods with app=web to db:5432, which policy forbids"),
        (
            Toxic(("web-1>db",), "delay", delay_ms=300, direction="down", service="shop/db"),
            "300 ms, answers only, on all that calls Service shop/db",
        ),
    ],
)
def test_what_is_done_in_a_cluster_is_told_in_its_own_words(how: How, said: str) -> None:
    assert numbers(one("n1", "word", how)) == said
