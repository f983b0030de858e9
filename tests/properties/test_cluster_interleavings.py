"""Runner, watchdog, a second runner and a person with kubectl, in any order, with lost, late and refused requests and
kills: no element of ours is left, nobody's change is overwritten, and one holds the system at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cluster_rig as rig
from cluster_late import made_again
from cluster_stage import BUSY, GO, LATE, LOST_AFTER, LOST_BEFORE, Actor, Stage, StagedApi
from fake_cluster import FakeCluster
from stormdrill.cluster import naming
from stormdrill.cluster.api import MERGE_PATCH, Api
from stormdrill.cluster.asking import Until, text, under
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.ledger import CLOSED
from stormdrill.cluster.setting import books
from stormdrill.cluster.watchdog import Watchdog, watch
from stormdrill.errors import Refused, Unreachable

LEASE_S = 4.0
CHOSEN_STEPS, MOST_STEPS = 250, 6000
FATES = (GO, GO, GO, GO, GO, LOST_AFTER, LATE, LATE, LOST_BEFORE, BUSY)
PATCHED = (
    ("deployments", "platform", "worker-eu"),
    ("services", "platform", "gateway-eu"),
    ("nodes", "", "eu-cpu-1"),
    ("nodes", "", "eu-gpu-1"),
)
MADE = ("networkpolicies", "deployments", "services")
KEPT = '{"key": "of-a-person", "value": "keep", "effect": "NoSchedule"}'


@dataclass
class Play:
    """One performance."""

    cluster: FakeCluster
    stage: Stage
    choose: Callable[[int], int]
    """A number from 0 to that one."""
    wrong: list[str] = field(default_factory=list)
    replicas: int = 3
    """What a person has scaled the worker to."""
    tainted: bool = False
    steps: int = 0
    favoured: Actor | None = None
    turns: int = 0
    """That it has at a stretch."""
    watchdogs: int = 0

    def api(self) -> StagedApi:
        return StagedApi(self.cluster.admin, self.stage)

    # actors

    def runner(self, run: str, injections: tuple[str, ...]) -> None:
        plan = rig.plan({path: self.cluster.read(path) or {} for path in rig.PATHS}, run)

        def play() -> None:
            hold = Hold(
                self.api(), run, "platform", rig.IMAGE, lease_s=LEASE_S, namespaces=(rig.PLATFORM,), ready_s=20.0
            )
            try:
                hold.open()
            except (Refused, Unreachable) as error:
                self.stage.said.append(f"{run} did not begin: {error}")
                return
            self._alone(run)
            try:
                for injection in injections:
                    hold.arm(injection, rig.undos(plan[injection]), 30.0)
                    for change in plan[injection]:
                        hold.apply(injection, change)
                self.stage.sleep(1.0)
            except (Unreachable, Refused) as error:
                self.stage.said.append(f"{run}: {error}")
            for injection in reversed(injections):
                hold.revert(injection)
            self.stage.said.append(f"{run} left {hold.close()}, trouble: {hold.trouble()}")

        self.stage.spawn(run, play)

    def _alone(self, run: str) -> None:
        for other in books(Api(self.cluster.admin), rig.SUITE, Until(5.0)):
            if other.run != run and other.state != CLOSED and other.left:
                self.wrong.append(f"{run} holds the system, and {other.run} has {len(other.left)} injections armed")

    def watchdog(self, run: str) -> None:
        self.watchdogs += 1
        dog = Watchdog(
            self.api(), run, rig.SUITE, tell=lambda said: self.stage.said.append(f"watchdog of {run}: {said}")
        )
        self.stage.spawn(f"watchdog of {run}", lambda: watch(dog, self.stage.sleep))

    def person(self, act: str) -> None:
        api = Api(self.cluster.admin)
        if act == "scale":
            api.call("PATCH", rig.WORKER, {"spec": {"replicas": 5}}, content_type=MERGE_PATCH)
            self.replicas = 5
        elif act == "stop":
            where = f"/api/v1/namespaces/{rig.SUITE}/configmaps/{naming.ledger('r1')}"
            body = {"metadata": {"annotations": {naming.STOP: "enough"}}}
            api.call("PATCH", where, body, content_type=MERGE_PATCH)
        elif act == "replace":  # by force, of what was dumped just now
            made_again(self.cluster, rig.WORKER)
        elif act == "unlabel":
            self._unlabel()
        elif act == "taint" and not self.tainted:
            node = self.cluster.read(rig.NODE) or {}
            taints = [*(under(node, "spec").get("taints") or []), json.loads(KEPT)]  # type: ignore[misc]
            body = {
                "metadata": {"resourceVersion": text(node, "metadata", "resourceVersion")},
                "spec": {"taints": taints},
            }
            self.tainted = api.call("PATCH", rig.NODE, body, content_type=MERGE_PATCH).good

    def _unlabel(self) -> None:
        """Of whatever the runs have created: their label is taken off by somebody who keeps labels in order."""
        for resource in MADE:
            for thing in self.cluster.objects(resource, rig.PLATFORM):
                if naming.LABEL in thing["metadata"].get("labels", {}):
                    name = thing["metadata"]["name"]
                    self.cluster.registry.change(resource, rig.PLATFORM, name, _without_label)

    # the order

    def go(self, acts: list[tuple[int, str]], kills: list[tuple[int, str]]) -> None:
        while True:
            for run in self.stage.jobs[:]:
                self.stage.jobs.remove(run)
                self.watchdog(run)
            waiting = self.stage.waiting()
            if not waiting:
                if not self.stage.late:
                    return
                self.stage.deliver(0)
                continue
            self.steps += 1
            if self.steps % 8 == 0:
                self._collect()
            assert self.steps < MOST_STEPS, f"it doesn't end: {self.stage.said[-8:]}"
            for at, act in acts:
                if at == self.steps:
                    self.person(act)
            for at, who in kills:
                if at == self.steps:
                    self._kill(who)
            waiting = self.stage.waiting()
            if waiting:
                self._next(waiting)

    def _next(self, waiting: list[Actor]) -> None:
        free = self.steps <= CHOSEN_STEPS
        pick = self.choose(11) if free else 0
        if pick >= 11 and self.stage.late and not self.choose(5):
            self.stage.deliver(self.choose(len(self.stage.late) - 1))
            return
        actor = waiting[self.choose(len(waiting) - 1) if pick >= 7 else 0]
        if pick == 8:
            self.favoured, self.turns = actor, 3 + self.choose(20)
        elif self.turns and self.favoured in waiting:  # the others are as if frozen
            actor, self.turns = self.favoured, self.turns - 1
        if self._overtaken_by(actor) is not None and self.choose(1):
            # as at the end of an outage: what was held up comes between the look and what follows from it
            self.stage.deliver(self._overtaken_by(actor) or 0)
        fate = FATES[self.choose(len(FATES) - 1)] if free and pick in (5, 6, 9) else GO
        if free and actor.name == "r1" and _harms(actor.asks) and not self.choose(2):
            fate = LATE
        self.stage.give(actor, fate)
        if fate == LATE and actor.name == "r1" and self.choose(1):
            self._kill("runner")  # with a request of its own still on the way

    def _overtaken_by(self, actor: Actor) -> int | None:
        """A request of somebody else's for the object that the actor is about to change."""
        late = [index for index, (what, _) in enumerate(self.stage.late) if what.startswith(f"{actor.asks} ")]
        return late[0] if late and _harms(actor.asks) else None

    def _kill(self, who: str) -> None:
        there = {actor.name for actor in self.stage.waiting()}
        if who == "runner":
            self.stage.kill("r1", "heart of r1")
        elif "watchdog of r1" in there:
            self.stage.kill("watchdog of r1")
            self.watchdog("r1")

    # what must be

    def check(self, before: dict[str, object]) -> list[str]:
        self._collect()
        for actor in self.stage.actors:
            if actor.error is not None:
                self.wrong.append(f"{actor.name}: {actor.error!r}")
        for run in ("r1", "r2"):
            where = f"/api/v1/namespaces/{rig.PLATFORM}/configmaps/{naming.ledger(run)}"
            if self.cluster.read(where):  # inert; one whose request came after everything was taken down stays
                self.cluster.registry.end("configmaps", rig.PLATFORM, naming.ledger(run))
        for resource, namespace, name in PATCHED:
            self.cluster.registry.change(resource, namespace, name, self._late_fence)
        if self.replicas != 3:
            self.cluster.registry.change("deployments", rig.PLATFORM, "worker-eu", self._person_replicas)
        if self.tainted:
            self.cluster.registry.change("nodes", "", "eu-cpu-1", self._person_taint)
        return self.wrong + rig.differences(before, rig.still(self.cluster))

    def _late_fence(self, thing: dict[str, dict[str, object]]) -> None:
        """A kill while a version was moved on may leave that request under way: the annotation is inert."""
        annotations = under(thing, "metadata", "annotations")
        for name in [name for name in annotations if name.startswith(f"{naming.PREFIX}fence-")]:
            if any(name.removeprefix(naming.PREFIX) in what for what in self.stage.delivered):
                del annotations[name]
        if not annotations:
            thing["metadata"].pop("annotations", None)

    def _person_replicas(self, worker: dict[str, dict[str, object]]) -> None:
        if worker["spec"]["replicas"] != self.replicas:
            self.wrong.append(f"a person scaled to {self.replicas}, and it is {worker['spec']['replicas']}")
        worker["spec"]["replicas"] = 3

    def _person_taint(self, node: dict[str, dict[str, object]]) -> None:
        taints = node["spec"].get("taints") or []
        if json.loads(KEPT) not in taints:  # type: ignore[operator]
            self.wrong.append(f"a person's taint is gone: {taints}")
        left = [taint for taint in taints if taint != json.loads(KEPT)]  # type: ignore[attr-defined]
        if left:
            node["spec"]["taints"] = left
        else:
            node["spec"].pop("taints", None)

    def _collect(self) -> None:
        """As the cluster's garbage collector: what names an owner that isn't there goes, and what waits for pods of its
        own that there aren't here."""
        uids = {text(it, "metadata", "uid") for it in self.cluster.objects("configmaps")}
        for resource in MADE:
            for thing in self.cluster.objects(resource, rig.PLATFORM):
                owners = thing["metadata"].get("ownerReferences") or []
                name = thing["metadata"]["name"]
                if thing["metadata"].get("deletionTimestamp"):
                    self.cluster.registry.change(resource, rig.PLATFORM, name, _without_finalizers)
                elif owners and not any(owner["uid"] in uids for owner in owners):
                    self.cluster.registry.end(resource, rig.PLATFORM, name)


def _harms(asks: str) -> bool:
    """Whether it is a change of what is drilled, or the undo of one."""
    return asks.startswith("PATCH") and "/configmaps/" not in asks


def _without_label(thing: dict[str, dict[str, object]]) -> None:
    del thing["metadata"]["labels"][naming.LABEL]  # type: ignore[attr-defined]  # a map of text


def _without_finalizers(thing: dict[str, dict[str, object]]) -> None:
    thing["metadata"].pop("finalizers", None)


def perform(
    injections: tuple[str, ...],
    choose: Callable[[int], int],
    acts: list[tuple[int, str]],
    kills: list[tuple[int, str]],
    *,
    second: bool,
) -> list[str]:
    """What is wrong at the end, with what was said and asked on the way."""
    with FakeCluster(world=False) as cluster:
        rig.small_world(cluster)
        before = rig.still(cluster)
        stage = Stage()
        play = Play(cluster, stage, choose)
        with stage.time():
            play.runner("r1", injections)
            if second:
                play.runner("r2", injections)
            play.go(acts, kills)
        wrong = play.check(before)
        if not wrong:
            return []
        asked = [f"{r.method} {r.path} {r.status} {r.body.decode()[:300]}" for r in cluster.requests]
        return [*wrong, *stage.said, *asked]


STEP = st.integers(1, 150)


@pytest.mark.parametrize(
    "injections",
    [
        ("region-loss/eu-cpu-1", "queue-backlog/worker"),
        ("late-dependency/gateway",),
        ("segmentation/eu", "gpu-pool-outage/eu-gpu-1"),
    ],
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    acts=st.lists(st.tuples(STEP, st.sampled_from(["scale", "stop", "taint", "replace", "unlabel"])), max_size=2),
    kills=st.lists(st.tuples(STEP, st.sampled_from(["runner", "watchdog"])), max_size=2),
    second=st.booleans(),
)
def test_in_any_order_nothing_of_ours_is_left_and_nobody_is_overwritten(
    injections: tuple[str, ...],
    data: st.DataObject,
    acts: list[tuple[int, str]],
    kills: list[tuple[int, str]],
    second: bool,
) -> None:
    wrong = perform(injections, lambda most: data.draw(st.integers(0, most)), acts, kills, second=second)
    assert not wrong, "\n".join(wrong)
