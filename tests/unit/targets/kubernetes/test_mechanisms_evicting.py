"""Evictions go on until the revert, as fast as budgets and the API server let them, and who stayed is told."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from fake_cluster import FakeCluster
from kube_ground import NODE_LABEL
from kube_rig import Kube, Rig, injection
from stormdrill.cluster.api import MERGE_PATCH
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Nodes
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.mechanisms.evicting import NOT_ASKED, TAKEN_BACK, Evicting, Pod, Told
from stormdrill.targets.kubernetes.mechanisms.nodes import KEEPS, LosingNodes

SHORT_S = 0.5
"""An injection's own limit: over long before a replacement stands."""
SLOW_S = 1.0
"""What a replacement takes."""
LOST = injection("nodes", Nodes(("test-1",), "evict"), inject_timeout_s=SHORT_S)
LONG_S = 3600.0
NODE = "/api/v1/nodes/test-1"
BACK: Object = {"spec": {"unschedulable": None, "taints": None}}


@pytest.fixture
def namespace(kube: Kube, fake: FakeCluster) -> str:
    """Two pods on test-1, of which one may be missing, and a second node for their replacements, which take long."""
    kube.nodes()
    kube.place = {NODE_LABEL: "allowed"}
    name = kube.namespace()
    kube.deployment(name, replicas=2)
    kube.nodes(2)
    fake.behaviour.kubelet.starts_s = SLOW_S
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    meta = {"name": "web", "namespace": name}
    path = kube.make({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": meta, "spec": spec})
    kube.until(lambda: at(kube.read(path), "status", "disruptionsAllowed") == 1, "nobody looked at the budget")
    return name


def evicted(fake: FakeCluster) -> list[str]:
    """Who was let go."""
    return [one.path.split("/")[-2] for one in fake.requests if one.path.endswith("/eviction") and one.status == 201]


def asking(rig: Rig) -> Evicting:
    losing = rig.mechanisms["nodes"]
    assert isinstance(losing, LosingNodes)
    return losing._evicting[LOST.id]


def has_ended(evicting: Evicting) -> bool:
    assert evicting.thread is not None
    evicting.thread.join(10.0)
    return not evicting.thread.is_alive()


def test_who_a_budget_keeps_goes_when_the_one_before_has_been_replaced_however_long_that_takes(
    namespace: str, kube: Kube, fake: FakeCluster, rig: Rig
) -> None:
    rig.harm(LOST)
    assert len(evicted(fake)) == 1, "the call has ended, and the budget lets one go at a time"
    rig.seen(LOST, lambda effect: effect.detail.startswith("2 of 2 pods that were on test-1 are gone or going"))
    kube.until(lambda: len(set(evicted(fake))) == 2, "the second one was never let go")
    assert has_ended(asking(rig))
    rig.revert(LOST)
    assert rig.seen(LOST, lambda effect: effect.gone).came_to == "none of 2 pods stayed on test-1 until the end"


def test_with_the_revert_nobody_more_is_asked_and_who_stayed_is_told_with_the_reason(
    namespace: str, kube: Kube, fake: FakeCluster, rig: Rig
) -> None:
    fake.behaviour.kubelet.starts_s = LONG_S  # no replacement stands before the revert
    rig.harm(LOST)
    rig.revert(LOST)
    assert has_ended(asking(rig))
    gone = rig.seen(LOST, lambda effect: effect.gone)
    (stayed,) = asking(rig).stay
    why = "its disruption budget allows no eviction now"
    assert gone.came_to == f"1 of 2 pods stayed on test-1 until the end: {stayed} ({why})"
    assert len(evicted(fake)) == 1


def patched(kube: Kube, body: Object) -> None:
    """As by a person, who knows of no marker of ours."""
    answer = kube.api.call("PATCH", NODE, body, content_type=MERGE_PATCH, query={"fieldManager": "kubectl"})
    assert answer.good, answer.said


def test_once_a_person_has_put_the_node_back_nobody_more_is_asked(
    namespace: str, kube: Kube, fake: FakeCluster, rig: Rig
) -> None:
    rig.harm(LOST)
    patched(kube, BACK)
    assert rig.marked(NODE)
    assert has_ended(asking(rig))
    assert len(evicted(fake)) == 1
    assert set(asking(rig).stay.values()) == {TAKEN_BACK}
    rig.revert(LOST)
    assert rig.seen(LOST, lambda effect: effect.gone).came_to.endswith(f" ({TAKEN_BACK})")


def test_a_node_that_is_only_uncordoned_goes_on_being_emptied(
    namespace: str, kube: Kube, fake: FakeCluster, rig: Rig
) -> None:
    rig.harm(LOST)
    patched(kube, {"spec": {"unschedulable": None}})
    kube.until(lambda: len(set(evicted(fake))) == 2, "the second one was never let go")
    rig.revert(LOST)


def test_what_asks_autoscalers_to_leave_the_node_be_is_no_part_of_the_harm(
    namespace: str, kube: Kube, rig: Rig
) -> None:
    rig.harm(LOST)
    (mark,) = rig.marked(NODE)
    patched(kube, {**BACK, "metadata": {"annotations": {mark: None}}})
    assert rig.mechanisms["nodes"].in_force(LOST).gone
    patched(kube, {"metadata": {"annotations": dict.fromkeys(KEEPS)}})
    rig.revert(LOST)


def test_what_was_never_injected_came_to_nothing_that_is_worth_a_word(namespace: str, rig: Rig) -> None:
    rig.arm(LOST)
    assert rig.seen(LOST, lambda effect: effect.gone).came_to == ""


def test_who_stayed_is_not_guessed_where_it_can_not_be_seen(namespace: str, fake: FakeCluster, rig: Rig) -> None:
    rig.harm(LOST)
    rig.revert(LOST)
    fake.trouble(("GET", "/api/v1/pods"), "500", times=1)
    gone = rig.seen(LOST, lambda effect: effect.gone)
    assert gone.came_to.startswith("how many of 2 pods stayed until the end can't be seen: ")


# --- how often whom ------------------------------------------------------------------------------------------

A, B = (Pod("shop", name, name, True, True, True, True) for name in "ab")


class Budget:
    """Answers as it is told to; notes who was asked when."""

    def __init__(self, *answers: Told | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, float]] = []

    def __call__(self, pod: Pod) -> Told:
        self.asked.append((pod.name, time.monotonic()))
        told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(told, Exception):
            raise told
        return told

    def names(self) -> str:
        return "".join(name for name, _ in self.asked)


def never(node: str) -> bool:
    return False


def going_on(
    ask: Budget, *pods: Pod, over: Callable[[], str] = str, taken_back: Callable[[str], bool] = never
) -> Evicting:
    made = Evicting(pods, ask, over, taken_back, LONG_S)
    made.begin(time.monotonic() + LONG_S)
    return made


def test_nobody_is_asked_again_before_the_server_wants_it() -> None:
    ask = Budget(Told("not now", 0.6), Told())
    made = going_on(ask, A)
    assert has_ended(made)
    (_, first_s), (_, second_s) = ask.asked
    assert second_s - first_s >= 0.6
    assert made.stay == {}


def test_one_that_has_to_wait_long_keeps_no_other_waiting() -> None:
    over = ""
    ask = Budget(Told("not now", LONG_S), Told("not now"), Told())
    made = going_on(ask, A, B, over=lambda: over)
    deadline_s = time.monotonic() + 10.0
    while "shop/b" in made.stay and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert ask.names() == "abb"
    over = "its revert has begun"
    assert has_ended(made), "it waited for the hour that the server had asked for"
    assert made.stay == {"shop/a": "not now"}


def test_who_can_not_be_let_go_at_all_is_asked_once() -> None:
    ask = Budget(Told("forbidden", ever=False))
    made = going_on(ask, A, B)
    assert made.thread is None
    assert ask.names() == "ab"
    assert made.stay == {"shop/a": "forbidden", "shop/b": "forbidden"}


def test_an_outage_in_between_ends_nothing_and_a_defect_is_told() -> None:
    ask = Budget(Told("not now"), Unreachable("no answer"), ValueError("odd"), Told())
    made = going_on(ask, A)
    assert has_ended(made)
    assert ask.names() == "aaaa"
    assert made.stay == {}


def test_where_the_nodes_were_taken_back_nobody_is_asked_again() -> None:
    ask = Budget(Told("not now"))
    made = going_on(ask, A, taken_back=lambda node: True)
    assert has_ended(made)
    assert ask.names() == "a"
    assert made.stay == {"shop/a": TAKEN_BACK}


def test_of_two_nodes_the_one_that_was_taken_back_alone_is_left_in_peace() -> None:
    over, ask = "", Budget(Told("not now", LONG_S), Told("not now"), Told())
    here, there = A._replace(node="test-1"), B._replace(node="test-2")
    made = going_on(ask, here, there, over=lambda: over, taken_back=lambda node: node == "test-2")
    deadline_s = time.monotonic() + 10.0
    while made.stay["shop/b"] != TAKEN_BACK and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert ask.names() == "ab"
    assert made.stay == {"shop/a": "not now", "shop/b": TAKEN_BACK}
    over = "its revert has begun"
    assert has_ended(made)


def test_who_may_not_be_asked_from_the_start_is_not_asked_behind_the_call() -> None:
    made = Evicting([A], Budget(Unreachable("the Lease is gone")), str, never, LONG_S)
    with pytest.raises(Unreachable, match="the Lease is gone"):
        made.begin(time.monotonic() + LONG_S)
    assert made.thread is None


def test_whose_turn_does_not_come_within_the_call_is_asked_behind_it() -> None:
    ask = Budget(Told())
    made = Evicting([A, B], ask, str, never, LONG_S)
    assert set(made.stay.values()) == {NOT_ASKED}
    made.begin(time.monotonic())
    assert has_ended(made)
    assert ask.names() == "ab"


def test_it_ends_with_the_injection_s_time_whoever_forgets_it() -> None:
    ask = Budget(Told("not now"))
    made = Evicting([A], ask, str, never, 0.0)
    made.begin(time.monotonic() + LONG_S)
    assert has_ended(made)
    assert ask.names() == "a"
