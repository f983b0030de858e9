"""Who has mended what of a run is told in the cluster when its ledger is gone, and nothing else is left for that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cluster_rig as rig
from cluster_rig import SUITE, WORKER, patch_of, scaled
from fake_cluster import FakeCluster
from stormdrill.cluster import changing, mended, recovering
from stormdrill.cluster.api import MERGE_PATCH, Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.lease import Lease
from stormdrill.cluster.ledger import CLOSED, Armed, Book, Ended, Ledger
from stormdrill.cluster.rights import Right, of_runner
from stormdrill.model.undo import KubeDelete
from stormdrill.targets.kubernetes import look, sweeping

NAME = "stormdrill-platform"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SUITE}/leases/{NAME}"
GROUP = "rbac.authorization.k8s.io"
ABOUT = {"system": "platform", "lease": NAME, "lease_s": 1.0, "namespaces": [], "needs": []}
WORD = KubeDelete("", "/api/v1/namespaces/platform/configmaps/ours", "r1")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        yield made


def killed(cluster: FakeCluster, run: str = "r1") -> Api:
    """What is left of a run that has scaled something and was killed, and of which the Lease is over."""
    api = Api(cluster.admin)
    ledger = Ledger(api, SUITE, run)
    ledger.create({**ABOUT, "run": run}, "platform")
    change = patch_of(cluster.read(WORKER) or {}, WORKER, run, "scale/worker", scaled(0, 3))
    ledger.arm([Armed("scale/worker", (change.undo,), 60.0, 1)])
    changing.apply(api, change, run, "scale/worker", lambda: None)
    return api


def closed(cluster: FakeCluster, run: str = "r1", by: str = "watchdog") -> Ledger:
    """The ledger of a run of which everything was reverted."""
    ledger = Ledger(Api(cluster.admin), SUITE, run)
    ledger.create({**ABOUT, "run": run}, "platform")
    ledger.arm([Armed("quota/shop", (WORD,), 60.0, 1)])
    ledger.end([Ended("quota/shop", Undone("done", "gone"), by, "2026-11-22T15:14:46.123456Z")])
    ledger.turn(CLOSED, "the Lease was not renewed for 10.1 s; reverted by the watchdog")
    return ledger


def told(cluster: FakeCluster) -> tuple[mended.Mended, ...]:
    return mended.look(Api(cluster.admin), SUITE, Until(5.0))


def everything(cluster: FakeCluster) -> dict[str, Any]:
    """But the Lease, which stands there anyhow."""
    return {where: thing for where, thing in cluster.snapshot().items() if "leases" not in where}


def test_a_sweep_of_a_killed_run_leaves_the_cluster_as_it_was_and_tells_on_the_lease_who_mended_what_and_when(
    cluster: FakeCluster,
) -> None:
    Lease(Api(cluster.admin), SUITE, NAME, "r0/runner", 1.0).acquire()  # an earlier run, which has ended
    Lease(Api(cluster.admin), SUITE, NAME, "r0/runner", 1.0).release()
    before, still = set(everything(cluster)), rig.still(cluster)
    api, began = killed(cluster), datetime.now(UTC)
    things = sweeping.sweep(api, SUITE)
    assert {thing.outcome for thing in things} == {"removed", "reverted"}
    assert set(everything(cluster)) == before
    assert rig.differences(still, rig.still(cluster)) == []
    (one,) = told(cluster)
    assert (one.run, one.by) == ("r1", mended.here("sweep"))
    assert "recovered by hand" in one.why
    assert one.what[0].startswith("scale/worker: done by recover at ")
    assert began - timedelta(seconds=1) <= datetime.fromisoformat(one.at) <= datetime.now(UTC)
    assert sweeping.before(api, SUITE) == (f"mended: {one}",)
    assert sweeping.before(api, SUITE, "another-run") == ()


def test_what_the_watchdog_mended_is_told_as_its_when_recover_removes_the_ledger(cluster: FakeCluster) -> None:
    closed(cluster)
    assert recovering.forget(Api(cluster.admin), "r1", SUITE) == ""
    (one,) = told(cluster)
    assert one.what == ("quota/shop: done by the watchdog at 2026-11-22T15:14:46.123Z",)
    assert one.why.startswith("the Lease was not renewed")
    assert one.by == mended.here("recover")


def test_a_run_that_had_armed_nothing_has_nothing_to_tell(cluster: FakeCluster) -> None:
    ledger = Ledger(Api(cluster.admin), SUITE, "r1")
    ledger.create({**ABOUT, "run": "r1"}, "platform")
    ledger.turn(CLOSED, "over")
    recovering.forget(ledger.api, "r1", SUITE)
    assert cluster.read(LEASE) is None


def test_doctor_tells_the_latest_and_how_many_more_there_are(cluster: FakeCluster) -> None:
    api = Api(cluster.admin)
    assert not [seen for seen in look._findings(api, SUITE, "stormdrill") if seen.part == "mended"]
    for run in ("r1", "r2"):
        closed(cluster, run)
        recovering.forget(api, run, SUITE)
    (seen,) = [seen for seen in look._findings(api, SUITE, "stormdrill") if seen.part == "mended"]
    assert seen.state == "ok"
    assert seen.seen.startswith("run r2 (the Lease was not renewed")
    assert seen.seen.endswith("; 1 more, which stormdrill sweep --target kubernetes names")


# it stays, and is in nobody's way


def test_the_next_runs_take_renew_and_release_the_lease_and_it_stays(cluster: FakeCluster) -> None:
    closed(cluster)
    recovering.forget(Api(cluster.admin), "r1", SUITE)
    (before,) = told(cluster)
    for how in ("released", "taken over"):
        lease = Lease(Api(cluster.admin), SUITE, NAME, "r2/runner", 1.0)
        lease.acquire()
        assert all(lease.renew(1.0) for _ in range(3))
        if how == "released":
            assert lease.release() == ""
        else:
            assert Lease(lease.api, SUITE, NAME, "r2/watchdog", 1.0).take_over(cluster.read(LEASE), 1.0)
        assert told(cluster) == (before,)


def test_the_run_that_holds_the_lease_by_then_goes_on_holding_it(cluster: FakeCluster) -> None:
    holder = Lease(Api(cluster.admin), SUITE, NAME, "r2/runner", 60.0)
    holder.acquire()
    spec = (cluster.read(LEASE) or {})["spec"]
    closed(cluster)
    recovering.forget(Api(cluster.admin), "r1", SUITE)
    assert (cluster.read(LEASE) or {})["spec"] == spec, "not renewed by anybody else than its holder"
    assert holder.renew(1.0)
    assert holder.lost == ""
    assert [one.run for one in told(cluster)] == ["r1"]


def test_a_lease_that_somebody_removed_is_made_again_and_is_nobodys(cluster: FakeCluster) -> None:
    closed(cluster)
    recovering.forget(Api(cluster.admin), "r1", SUITE)
    assert not (cluster.read(LEASE) or {})["spec"].get("holderIdentity")
    lease = Lease(Api(cluster.admin), SUITE, NAME, "r2/runner", 1.0)
    lease.acquire()
    assert lease.young()


def test_a_run_that_clears_away_what_another_left_tells_who_had_mended_it(cluster: FakeCluster) -> None:
    """Its watchdog was killed between its last undo and closing the ledger."""
    ledger = closed(cluster)
    edited = {"data": {"state": "reverting"}}
    assert ledger.api.call("PATCH", ledger.path, edited, content_type=MERGE_PATCH).good
    hold = Hold(Api(cluster.admin), "r2", "platform", rig.IMAGE, lease_s=1.0)
    hold._lease.acquire()
    hold._setting().unfinished()
    assert cluster.read(ledger.path) is None
    assert [(one.run, one.by) for one in told(cluster)] == [("r1", "run r2")]
    assert hold._lease.renew(1.0)


@pytest.mark.parametrize(("by", "runs"), [("watchdog", ["r1"]), ("runner", [])])
def test_a_runner_tells_of_what_the_watchdog_did_for_it_and_not_of_its_own(
    cluster: FakeCluster, by: str, runs: list[str]
) -> None:
    ledger = closed(cluster, by=by)
    assert mended.keep_where_helped(ledger, Until(5.0)) == ""
    assert [one.run for one in told(cluster)] == runs


# whatever goes wrong


@pytest.mark.parametrize("what", ["drop-after", "drop-before", "503"])
def test_written_again_after_a_lost_answer_it_stands_there_once(cluster: FakeCluster, what: str) -> None:
    closed(cluster)
    cluster.trouble(("(POST|PUT)", "leases"), what)
    recovering.forget(Api(cluster.admin), "r1", SUITE)
    assert [one.run for one in told(cluster)] == ["r1"]


def test_it_takes_no_right_that_a_run_has_not_anyhow(cluster: FakeCluster) -> None:
    closed(cluster)
    assert recovering.forget(allowed(cluster, of_runner(SUITE, NAME, ())), "r1", SUITE) == ""
    assert [one.run for one in told(cluster)] == ["r1"]


def test_who_may_not_write_it_removes_the_ledger_all_the_same_and_says_so(cluster: FakeCluster) -> None:
    ledger = closed(cluster)
    Lease(ledger.api, SUITE, NAME, "r0/runner", 1.0).acquire()
    few = [right for right in of_runner(SUITE, NAME, ()) if right.verb != "update"]
    said = recovering.forget(allowed(cluster, few), "r1", SUITE)
    assert said.startswith(f"who has mended run r1 is not kept on the Lease {SUITE}/{NAME}: ")
    assert "forbidden" in said
    assert cluster.read(ledger.path) is None
    assert told(cluster) == ()


@pytest.mark.parametrize(
    "edited",
    [
        "",
        "{",
        "[]",
        "[1]",
        '{"run": "r1"}',
        '[{"run": "r1"}]',
        '[{"what": 3}]',
        "[7]",
        "7",
        '[{"run": 1, "at": 2, "by": 3, "why": 4, "what": 5}]',
    ],
)
def test_what_somebody_has_edited_tells_nothing_and_hinders_nobody(cluster: FakeCluster, edited: str) -> None:
    lease = Lease(Api(cluster.admin), SUITE, NAME, "r0/runner", 1.0)
    lease.acquire()
    body = {"metadata": {"annotations": {mended.ANNOTATION: edited}}}
    assert lease.api.call("PATCH", LEASE, body, content_type=MERGE_PATCH).good
    assert told(cluster) == ()
    assert lease.renew(1.0)
    closed(cluster)
    recovering.forget(lease.api, "r1", SUITE)
    assert [one.run for one in told(cluster)] == ["r1"]


def allowed(cluster: FakeCluster, rights: Iterable[Right]) -> Api:
    token = cluster.account(SUITE, "small")
    rules = [
        {
            "apiGroups": [right.group],
            "resources": [right.resource],
            "verbs": [right.verb],
            **({"resourceNames": [right.name]} if right.name else {}),
        }
        for right in rights
    ]
    api = f"{GROUP}/v1"
    meta = {"name": "small", "namespace": SUITE}
    cluster.apply({"apiVersion": api, "kind": "Role", "metadata": meta, "rules": rules})
    role = {"apiGroup": GROUP, "kind": "Role", "name": "small"}
    subject = {"kind": "ServiceAccount", **meta}
    cluster.apply({"apiVersion": api, "kind": "RoleBinding", "metadata": meta, "roleRef": role, "subjects": [subject]})
    return Api(cluster.access(token))


# bounded


def account(run: str, injections: Iterable[str], why: str = "") -> Book:
    armed = tuple(Armed(name, (), 1.0, number) for number, name in enumerate(injections))
    ended = {entry.injection: Ended(entry.injection, Undone("done", ""), "watchdog", "now") for entry in armed}
    return Book(run, CLOSED, "", why, {**ABOUT, "run": run}, armed, ended, {})


def test_the_last_ten_runs_are_told_however_many_there_were(cluster: FakeCluster) -> None:
    api = Api(cluster.admin)
    for number in range(25):
        assert mended.keep(api, SUITE, account(f"r{number}", ["a"]), "somebody", Until(5.0)) == ""
    assert [one.run for one in told(cluster)] == [f"r{number}" for number in range(24, 14, -1)]


@given(
    named=st.lists(st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=30), min_size=1, max_size=25),
    why=st.text(max_size=1000),
)
def test_whatever_ledgers_say_little_is_kept_of_it_and_the_latest_is(named: list[list[str]], why: str) -> None:
    kept: list[mended.Mended] = []
    for number, injections in enumerate(named):
        one = mended.of(account(f"r{number}", injections, why), "somebody")
        assert one is not None
        written = mended._written([one, *kept])
        assert len(written) <= mended.LARGEST
        kept = list(mended.told_on({"metadata": {"annotations": {mended.ANNOTATION: written}}}))
        assert kept[0] == one


def test_of_many_injections_the_number_is_told() -> None:
    one = mended.of(account("r1", [f"i{number}" for number in range(40)]), "somebody")
    assert one is not None
    assert one.what[-1] == "34 more"


def test_what_is_a_month_old_is_told_no_more() -> None:
    old = (datetime.now(UTC) - mended.KEPT - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    listed = [{"run": run, "at": at, "by": "x", "why": "", "what": []} for run, at in (("r2", "2999"), ("r1", old))]
    lease = {"metadata": {"annotations": {mended.ANNOTATION: json.dumps(listed)}}}
    assert [one.run for one in mended.told_on(lease)] == ["r2"]
