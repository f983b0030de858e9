"""What a policy refuses, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from stormdrill.core.policy import violations
from stormdrill.model.experiment import Experiment, FaultUse, LoadUse, Phases
from stormdrill.model.mechanism import Beside, Capacity, How, Nodes, Scale
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.policy import Policy
from stormdrill.model.profile import Piece, Profile
from stormdrill.model.system import ServiceInstance, System

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
"""A Wednesday."""


def injection(instance: str, start_s: float = 0.0, for_s: float = 30.0) -> Injection:
    return Injection(
        id=f"region-loss/{instance}",
        fault="region-loss",
        use=0,
        instance=instance,
        mechanism="freeze",
        undo="thaw",
        start_s=start_s,
        for_s=for_s,
    )


def plan_of(*injections: Injection, rate: float = 60.0, shape: tuple[Piece, ...] = ()) -> Plan:
    experiment = Experiment(
        name="x",
        title="x",
        hypothesis="x",
        owner="x",
        system="s",
        phases=Phases(warmup_s=5, baseline_s=20, fault_s=30, recovery_s=20),
        faults=(FaultUse("region-loss", {}),),
        objectives=(),
        load=LoadUse("peak", rate),
    )
    instances = tuple(ServiceInstance(name=f"i-{n}", service="i", command=("x",)) for n in range(10))
    return Plan(
        experiment=experiment,
        system=System(name="s", entry="i", instances=instances),
        target="process",
        seed=7,
        injections=injections,
        duration_s=75.0,
        worst_case="",
        irreversible=(),
        permissions=(),
        profile=Profile(name="peak", user="u", arrivals="poisson", shape=shape, streams=()),
    )


def said(policy: Policy, plan: Plan, now: datetime = NOON) -> list[str]:
    return [problem.what for problem in violations(policy, plan, now)]


def test_the_default_policy_allows_a_modest_plan() -> None:
    assert said(Policy(), plan_of(injection("i-0"), injection("i-1"))) == []


def test_only_listed_faults_and_targets_are_allowed() -> None:
    policy = Policy(faults=("late-dependency",), targets=("docker",))
    assert said(policy, plan_of()) == [
        "the target process is not allowed here, only docker",
        "the fault region-loss is not allowed here, only late-dependency",
    ]


def test_what_goes_beyond_a_policy_names_its_key_and_who_can_change_it() -> None:
    policy = Policy(faults=("late-dependency",), targets=("docker",), max_share=0.05, freeze=("2026-11-18/2026-11-18",))
    broken = violations(policy, plan_of(injection("i-0")), NOON)
    assert [(violation.key, violation.fix) for violation in broken] == [
        ("targets", "whoever owns the platform can add it under targets"),
        ("faults", "whoever owns the platform can add it under faults"),
        ("max_share", "select fewer; whoever owns the platform can raise max_share"),
        ("freeze", "run it on another day"),
    ]


def test_the_share_counts_distinct_instances_hit_at_the_same_time() -> None:
    policy = Policy(max_share=0.2, max_instances=2)
    one_after_another = [injection(f"i-{n}", start_s=n * 10.0, for_s=10.0) for n in range(3)]
    assert said(policy, plan_of(*one_after_another)) == []
    twice_the_same = [injection("i-0"), injection("i-0"), injection("i-1")]
    assert said(policy, plan_of(*twice_the_same)) == []
    assert said(policy, plan_of(*[injection(f"i-{n}", start_s=n * 10.0, for_s=30.0) for n in range(3)])) == [
        "3 instances are hit at once, 2 is the most",
        "3 of 10 instances (30%) are hit at once, 20% is the most",
    ]


def test_the_rate_is_that_of_the_profile_s_peak() -> None:
    policy = Policy(max_rate_per_s=100.0)
    assert said(policy, plan_of(rate=60.0)) == []
    assert said(policy, plan_of(rate=60.0, shape=(Piece(0, 1), Piece(5, 3)))) == [
        "the load reaches 180/s, 100/s is the most"
    ]


def test_the_fault_may_not_last_longer_than_allowed() -> None:
    assert said(Policy(max_fault_s=29.0), plan_of()) == ["the fault lasts 30 s, 29 s is the most"]


def starting(instance: str, start_s: float = 0.0, for_s: float = 30.0) -> Injection:
    return replace(injection(instance, start_s, for_s), starts_up=True, inject_timeout_s=120.0)


@pytest.mark.parametrize(
    ("asked", "more_s"),
    [
        ((injection("i-0"), injection("i-1", 10.0, 20.0)), 0.0),
        ((starting("i-0"),), 120.0),
        ((starting("i-0"), starting("i-1")), 120.0),
        ((starting("i-0", 0.0, 10.0), starting("i-1", 10.0, 10.0), starting("i-2", 20.0, 10.0)), 360.0),
        ((starting("i-0", 0.0, 10.0), injection("i-1", 10.0, 20.0)), 120.0),
        ((injection("i-0", 0.0, 10.0), starting("i-1", 10.0, 20.0)), 120.0),
    ],
)
def test_what_has_to_be_started_first_may_take_its_time_once_for_each_that_waits_for_it(
    asked: tuple[Injection, ...], more_s: float
) -> None:
    plan = plan_of(*asked)
    assert plan.longest_fault_s == plan.fault_s + more_s
    assert plan.longest_s == plan.duration_s + more_s


def test_a_policy_counts_the_time_in_which_what_does_it_is_started() -> None:
    plan = plan_of(starting("i-0"))
    assert said(Policy(max_fault_s=150.0), plan) == []
    (long,) = said(Policy(max_fault_s=149.0), plan)
    assert long.startswith("the fault lasts 30 s and up to 2 min in which what does it is started")
    window = "mon-fri 09:00-17:00 UTC"
    late = NOON.replace(hour=16, minute=58)
    assert said(Policy(windows=(window,)), plan_of(injection("i-0")), late) == []
    (outside,) = said(Policy(windows=(window,)), plan, late)
    assert "up to 2 min in which what does it is started" in outside


@pytest.mark.parametrize(
    ("window", "now", "allowed"),
    [
        ("mon-fri 09:00-17:00 UTC", NOON, True),
        ("wed 12:00-13:00 UTC", NOON, True),
        ("mon-tue 09:00-17:00 UTC", NOON, False),
        ("sat-mon 09:00-17:00 UTC", NOON, False),
        ("sat-wed 09:00-17:00 UTC", NOON, True),
        ("mon-fri 12:01-17:00 UTC", NOON, False),
        ("mon-fri 09:00-12:01 UTC", NOON, False),  # it would end after the window
        ("mon-fri 09:00-12:02 UTC", NOON, True),
        ("wed 13:00-13:30 Europe/Berlin", NOON, True),
        ("wed 12:00-12:30 Europe/Berlin", NOON, False),
        ("wed 00:00-24:00 UTC", NOON.replace(hour=23, minute=58), True),
        ("wed 00:00-24:00 UTC", NOON.replace(hour=23, minute=59), False),  # it would reach into Thursday
        ("mon-fri 09:00-17:00 UTC", NOON.astimezone(timezone(timedelta(hours=9))), True),
    ],
)
def test_the_whole_run_must_lie_in_a_window(window: str, now: datetime, allowed: bool) -> None:
    assert (said(Policy(windows=(window,)), plan_of(), now) == []) is allowed


@pytest.mark.parametrize(
    ("freeze", "allowed"),
    [
        ("2026-11-18/2026-11-18", False),
        ("2026-11-01/2026-11-17", True),
        ("2026-11-19/2026-11-30", True),
        ("2026-11-01/2026-12-31", False),
    ],
)
def test_nothing_runs_in_a_freeze(freeze: str, allowed: bool) -> None:
    assert (said(Policy(freeze=(freeze,)), plan_of()) == []) is allowed


def test_a_run_may_not_reach_into_a_freeze() -> None:
    late = NOON.replace(hour=23, minute=59)
    assert said(Policy(freeze=("2026-11-19/2026-11-30",)), plan_of(), late) == ["2026-11-19/2026-11-30 is frozen"]


def test_a_plan_without_load_has_no_rate() -> None:
    plan = plan_of()
    plan = replace(plan, experiment=replace(plan.experiment, load=None))
    assert said(Policy(max_rate_per_s=1.0), plan) == []


def test_a_time_without_an_offset_is_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="offset"):
        violations(Policy(), plan_of(), datetime(2026, 11, 18))  # noqa: DTZ001


def on_cluster(name: str, how: How, start_s: float = 0.0) -> Injection:
    word = "nodes" if isinstance(how, Nodes) else "scale"
    return replace(injection(name, start_s), mechanism=word, how=how)


def test_nodes_and_pods_of_a_cluster_are_capped_with_all_that_goes_with_them() -> None:
    """Pods of bystanders that opted in count, though they are no instances."""
    plan = plan_of(
        on_cluster("n1", Nodes(("n1",), "taint", ("i-0",), pods=9)),
        on_cluster("n2", Nodes(("n2",), "taint", (), pods=2)),
        on_cluster("web", Scale("deployments/web", "shop", 3, ("i-1",))),
    )
    assert said(Policy(max_nodes=2, max_pods=14), plan) == []
    assert said(Policy(max_nodes=1, max_pods=13), plan) == [
        "2 nodes lose pods, cores or devices at once, 1 is the most",
        "14 pods are taken away at once, 13 is the most",
    ]


@pytest.mark.parametrize(
    "how", [Capacity(("n2",), "nvidia.com/gpu"), Beside("burn", (), cores=1, nodes=("n2",))], ids=["devices", "cores"]
)
def test_nodes_that_only_lose_devices_or_cores_count_too(how: How) -> None:
    """Each once, whatever happens to it."""
    lost = Nodes(("n1",), "taint", (), pods=1)
    plan = plan_of(on_cluster("n1", lost), on_cluster("n2", how), on_cluster("n2", how))
    assert said(Policy(max_nodes=2), plan) == []
    assert said(Policy(max_nodes=1), plan) == ["2 nodes lose pods, cores or devices at once, 1 is the most"]


def test_nodes_that_are_lost_one_after_the_other_are_never_out_together() -> None:
    first = replace(on_cluster("n1", Nodes(("n1",), "taint", (), pods=1)), for_s=10.0)
    then = replace(on_cluster("n2", Nodes(("n2",), "taint", (), pods=1), 10.0), for_s=10.0)
    assert said(Policy(max_nodes=1, max_pods=1), plan_of(first, then)) == []


def test_going_past_disruption_budgets_needs_the_policy_s_word() -> None:
    plan = plan_of(on_cluster("n1", Nodes(("n1",), "taint", ("i-0",), pods=1, budgets=("shop/web",))))
    (found,) = violations(Policy(), plan, NOON)
    assert (found.key, found.what) == ("disruption_budgets", "more pods go than disruption budgets allow: shop/web")
    assert "write empties: evict in the system file" in found.fix
    assert said(Policy(disruption_budgets="ignore"), plan) == []
