"""The watchdog without a Lease that it could read or take, and one whose pod is made anew again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import cluster_rig as rig
from cluster_rig import SUITE, WORKER, patch_of, scaled
from fake_cluster import FakeCluster
from stormdrill.cluster import changing
from stormdrill.cluster.ages import SKEW_S, Ages
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.inside import DIRECTORY, PLAIN
from stormdrill.cluster.lease import Lease
from stormdrill.cluster.ledger import CLOSED, Armed, Ledger
from stormdrill.cluster.rights import missing, of_watchdog
from stormdrill.cluster.watchdog import NEVER_SEEN_S, Watchdog
from stormdrill.errors import Unreachable

LEASE_S = 1.0
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SUITE}/leases/stormdrill-platform"
GROUP = "rbac.authorization.k8s.io"


@dataclass
class Scene:
    """A run that has scaled the worker to nothing, and a watchdog on a clock that stands still between its steps."""

    cluster: FakeCluster
    api: Api
    lease: Lease
    s: float = 5000.0
    told: list[str] = field(default_factory=list)

    def dog(self, api: Api | None = None) -> Watchdog:
        clock = lambda: self.s  # noqa: E731
        return Watchdog(api or self.api, "r1", SUITE, now=clock, server_s=clock, tell=self.told.append)

    def step(self, dog: Watchdog, pause_s: float = 0.5) -> bool:
        self.s += pause_s
        try:
            return dog.step()
        except Unreachable as error:
            self.told.append(str(error))
            return False

    def replicas(self) -> int:
        return int((self.cluster.read(WORKER) or {})["spec"]["replicas"])


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        yield made


def scene(cluster: FakeCluster, expires_in_s: float, longest_s: float = 3600.0) -> Scene:
    api = Api(cluster.admin)
    ledger = Ledger(api, SUITE, "r1")
    about = {"run": "r1", "system": "platform", "lease": "stormdrill-platform", "lease_s": LEASE_S}
    ledger.create({**about, "longest_s": longest_s, "namespaces": [rig.PLATFORM], "needs": []}, "platform")
    lease = Lease(api, SUITE, "stormdrill-platform", "r1/runner", 600.0)
    lease.acquire()
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    ledger.arm([Armed("a", (change.undo,), expires_in_s, 1)])
    changing.apply(api, change, "r1", "a", lambda: None)
    return Scene(cluster, api, lease)


def allowed(cluster: FakeCluster, *leases: str, writes: bool = True) -> Api:
    """An account that may do what reverting takes, and this with Leases; without `writes` nothing to a ledger."""
    token = cluster.account(SUITE, "small")
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch", "delete"][: 3 if writes else 1]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]},
    ]
    if leases:
        rules.append({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": list(leases)})
    api = f"{GROUP}/v1"
    cluster.apply({"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": "small"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "small", "namespace": SUITE}
    role = {"apiGroup": GROUP, "kind": "ClusterRole", "name": "small"}
    binding = {"apiVersion": api, "kind": "ClusterRoleBinding", "metadata": {"name": "small"}}
    cluster.apply({**binding, "roleRef": role, "subjects": [subject]})
    return Api(cluster.access(token))


def test_a_lease_that_can_not_be_read_postpones_no_expiry(cluster: FakeCluster) -> None:
    play = scene(cluster, expires_in_s=0.0)
    dog = play.dog(allowed(cluster, "get"))
    play.step(dog)
    assert play.lease.renew(1.0)
    play.step(dog, 0.9)
    allowed(cluster)
    play.step(dog, 0.2)
    assert play.replicas() == 3
    assert any("its time of 0 s is over" in said for said in play.told)


def test_a_lease_that_can_not_be_read_for_longer_than_it_lasts_ends_the_run_and_the_ledger_says_why(
    cluster: FakeCluster,
) -> None:
    play = scene(cluster, expires_in_s=3600.0)
    dog = play.dog(allowed(cluster))
    steps = [play.step(dog) for _ in range(10)]
    assert True in steps
    assert play.replicas() == 3
    book = Ledger(play.api, SUITE, "r1").read()
    assert book is not None
    assert book.state == CLOSED
    assert "whether the Lease is renewed can't be seen" in book.why
    assert "forbidden" in book.why


def test_a_ledger_that_takes_no_word_of_it_postpones_no_expiry_for_long(cluster: FakeCluster) -> None:
    play = scene(cluster, expires_in_s=0.0)
    dog = play.dog(allowed(cluster, "get", writes=False))
    for _ in range(12):
        assert play.lease.renew(1.0)
        play.step(dog, 0.5)
    assert play.replicas() == 3
    assert any("can't be written down, reverting all the same" in said for said in play.told)


@pytest.mark.parametrize(
    ("leases", "why"), [(("get",), "could not be taken"), (("get", "update", "create"), "is gone")]
)
def test_a_deleted_lease_with_nobody_behind_it_is_reverted_for(
    cluster: FakeCluster, leases: tuple[str, ...], why: str
) -> None:
    play = scene(cluster, expires_in_s=3600.0)
    assert play.api.call("DELETE", LEASE).good
    dog = play.dog(allowed(cluster, *leases))
    assert any(play.step(dog) for _ in range(10))
    assert play.replicas() == 3
    book = Ledger(play.api, SUITE, "r1").read()
    assert book is not None
    assert why in book.why


def test_the_rights_that_it_asks_for_are_those_to_make_a_lease_again(cluster: FakeCluster) -> None:
    needed = of_watchdog(SUITE, "stormdrill-platform", [])
    lacks = missing(allowed(cluster, "get", "update"), needed, Until(10.0))
    assert [str(right) for right in lacks] == [f"create leases.coordination.k8s.io in namespace {SUITE}"]


def test_the_longest_time_counts_though_no_lease_can_be_read(cluster: FakeCluster) -> None:
    play = scene(cluster, expires_in_s=3600.0, longest_s=0.2)
    dog = play.dog(allowed(cluster))
    assert any(play.step(dog, 0.7) for _ in range(4))
    assert any("longer than it said at most" in said for said in play.told)


@pytest.mark.parametrize("what", ["expiry", "longest", "lease"])
def test_restarts_every_few_seconds_begin_no_time_anew(cluster: FakeCluster, what: str) -> None:
    expires_in_s = 20.0 if what == "expiry" else 3600.0
    play = scene(cluster, expires_in_s, longest_s=20.0 if what == "longest" else 3600.0)
    if what == "lease":
        book = {"lease_s": 20.0, "run": "r1", "system": "platform", "lease": "stormdrill-platform"}
        Ledger(play.api, SUITE, "r1").write({"run.json": json.dumps(book)}, while_open=False)
    began_s = play.s
    for _ in range(20):
        dog = play.dog()
        for _ in range(3):
            if what != "lease":
                assert play.lease.renew(1.0) or play.replicas() == 3
            play.step(dog, 0.4)
        play.s += 0.8  # until there is another pod
        if play.replicas() == 3:
            break
    assert play.replicas() == 3
    assert 20.0 <= play.s - began_s <= 20.0 + LEASE_S + SKEW_S + 4.0


def test_one_life_is_counted_by_its_own_clock_whatever_the_servers_says() -> None:
    clock = {"own": 0.0, "server": 1000.0}
    ages = Ages(lambda: clock["own"], lambda: clock["server"])
    ages.see("a")
    clock["server"] += 3600.0
    assert ages.of_s("a") == 0.0
    clock["own"] += 3.0
    assert ages.of_s("a") == 3.0


def test_a_servers_clock_that_is_set_back_makes_nothing_younger_than_the_own_one_says() -> None:
    clock = {"own": 0.0, "server": 1000.0}
    ages = Ages(lambda: clock["own"], lambda: clock["server"])
    ages.resume({"a": 900, "b": "nonsense"})
    ages.see("a")
    assert ages.of_s("a") == 100.0 - SKEW_S
    clock["server"] = 10.0
    clock["own"] += 2.0
    assert ages.of_s("a") == 2.0
    assert ages.of_s("b") == 0.0


def test_the_servers_time_is_what_its_answers_say(cluster: FakeCluster) -> None:
    api = Api(cluster.admin)
    assert api.server_s == 0.0
    assert api.call("GET", WORKER).good
    assert abs(api.server_s - time.time()) < 60.0


def test_one_that_finds_no_ledger_never_says_that_all_is_well(cluster: FakeCluster) -> None:
    """Its pod was made anew just after somebody had removed the ledger, so that it remembers nothing."""
    play = scene(cluster, expires_in_s=3600.0)
    Ledger(play.api, SUITE, "r1").remove()
    dog = play.dog()
    assert not play.step(dog), "it may only just be missing"
    assert play.step(dog, NEVER_SEEN_S)
    assert dog.helpless
    (told,) = play.told
    assert "what was armed is not known here" in told
    assert "`stormdrill recover r1`" in told


def test_one_that_finds_it_again_in_time_reverts_by_it(cluster: FakeCluster) -> None:
    play = scene(cluster, expires_in_s=3600.0)
    ledger = Ledger(play.api, SUITE, "r1")
    kept = play.api.call("GET", ledger.path).read()
    ledger.remove()
    dog = play.dog()
    play.step(dog)
    for name in ("uid", "resourceVersion"):
        del kept["metadata"][name]  # type: ignore[attr-defined]  # an object
    cluster.apply(kept)
    assert any(play.step(dog, LEASE_S) for _ in range(10))
    assert play.replicas() == 3
    assert not dog.helpless


@pytest.mark.parametrize(("state", "code"), [("", 1), (CLOSED, 0)])
def test_what_its_process_ends_with_tells_whether_it_knew_what_to_revert(
    cluster: FakeCluster, tmp_path: Path, state: str, code: int
) -> None:
    ledger = Ledger(Api(cluster.admin), SUITE, "r1")
    if state:
        ledger.create({"run": "r1", "system": "platform"}, "platform")
        ledger.turn(state, "the run has ended")
    (tmp_path / "token").write_text(cluster.account(SUITE, "stormdrill"))
    host, _, port = cluster.url.removeprefix("http://").partition(":")
    at = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, PLAIN: "1", DIRECTORY: str(tmp_path)}
    program = "import sys; from stormdrill.cluster import __main__, watchdog; watchdog.NEVER_SEEN_S = 0.0; "
    done = subprocess.run(
        [sys.executable, "-c", f"{program}sys.exit(__main__.main())", "--run", "r1", "--suite", SUITE],
        env={**os.environ, **at},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert ("what was armed is not known here" in done.stdout) == bool(code)
