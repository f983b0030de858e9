"""A whole hold on a cluster, with the watchdog as a Job of the image and the rules that are printed, and no others."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kube_held import INJECTIONS, LEASE_S, Held, a_runner, as_account, jobs_of, laid_out, strictly, without
from kube_rig import Kube
from stormdrill.cluster import naming
from stormdrill.cluster.asking import Until
from stormdrill.cluster.rights import Right, missing
from stormdrill.errors import Refused
from stormdrill.model.permission import Need
from stormdrill.targets.kubernetes.mechanism import at
from stormdrill.targets.kubernetes.sweeping import sweep

pytestmark = pytest.mark.cluster


@pytest.fixture
def laid(kube: Kube, tmp_path: Path) -> tuple[Held, list[Any]]:
    return laid_out(kube, tmp_path)


@pytest.fixture
def held(laid: tuple[Held, list[Any]]) -> Held:
    return laid[0]


def begins(held: Held) -> Need:
    """The first thing that a hold asks for."""
    return Need("create", "coordination.k8s.io", "leases", held.suite)


def state(kube: Kube, held: Held) -> object:
    return at(kube.read(held.ledger), "data", "state")


def said(kube: Kube, held: Held) -> dict[str, Any]:
    """Of each injection what the ledger says became of it."""
    data = at(kube.read(held.ledger), "data")
    assert isinstance(data, dict)
    return {name: json.loads(data[f"ended.{naming.key(name)}"]) for name in INJECTIONS}


def test_from_open_to_close_with_a_real_watchdog_nothing_is_left(kube: Kube, held: Held) -> None:
    before = kube.snapshot()
    holding = held.hold(kube.api)
    holding.open()
    assert {f"configmaps/{naming.ledger(held.run)}", f"jobs/{naming.watchdog(held.run)}"} <= held.left(kube)
    assert kube.astray() == []
    held.harm(holding)
    assert held.harmed(kube)
    assert {holding.revert(name).word for name in INJECTIONS} == {"done"}
    assert held.as_before(kube)
    assert holding.close() == ()
    held.nothing_left(kube)
    kube.until(lambda: _besides(kube, held) == {**before, **_besides(kube, held, lease=True)}, "not as it was before")


def test_a_runner_that_is_killed_is_reverted_by_its_watchdog(
    kube: Kube, held: Held, record_property: Callable[[str, object], None]
) -> None:
    with a_runner(held) as process:
        assert held.harmed(kube)
        began_s = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        kube.until(lambda: held.as_before(kube), "the watchdog never reverted it")
    took_s = time.monotonic() - began_s
    record_property("reverted_s", took_s)
    sys.stdout.write(f"reverted {took_s:.1f} s after the kill; the Lease lasts {LEASE_S:g} s\n")
    _left_to_the_watchdog(kube, held)


def test_a_person_who_annotates_the_ledger_has_it_reverted(kube: Kube, held: Held) -> None:
    with a_runner(held):
        kube.patch(held.ledger, {"metadata": {"annotations": {naming.STOP: "enough"}}})
        kube.until(lambda: held.as_before(kube), "the watchdog never reverted it")
        kube.until(lambda: state(kube, held) == "closed", "the ledger was never closed")
        assert "enough" in str(at(kube.read(held.ledger), "data", "why"))
    _left_to_the_watchdog(kube, held)


def _left_to_the_watchdog(kube: Kube, held: Held) -> None:
    """What docs/reference/ledger.md names stays for `recover`, and goes with it; nothing else is there."""
    kube.until(lambda: state(kube, held) == "closed", "the ledger was never closed")
    kube.until(lambda: at(jobs_of(kube, held)[0], "status", "succeeded"), "the watchdog never ended")
    assert {one["by"] for one in said(kube, held).values()} == {"watchdog"}
    ledger, job = f"configmaps/{naming.ledger(held.run)}", f"jobs/{naming.watchdog(held.run)}"
    kube.until(lambda: held.left(kube) <= {ledger, job, "pods"}, "more of the run is left than its ledger and its Job")
    assert {ledger, job} <= held.left(kube)
    assert {thing.outcome for thing in sweep(kube.api, held.suite, held.run)} == {"removed"}
    held.nothing_left(kube)


def _besides(kube: Kube, held: Held, *, lease: bool = False) -> dict[str, object]:
    """The snapshot, or what of it is of the run's Lease, which outlives it."""
    name = naming.lease("shop")
    return {path: one for path, one in kube.snapshot().items() if not lease or name in path}


def test_with_the_printed_rules_alone_a_whole_cycle_is_allowed(kube: Kube, held: Held, tmp_path: Path) -> None:
    api = as_account(kube, held.suite, "stormdrill", tmp_path, [begins(held)])
    holding = held.hold(api)
    holding.open()
    changes = held.changes(api)
    for name, change in changes.items():
        holding.arm(name, (change.undo,), 600.0)
        holding.dry_run(name, change)
        holding.apply(name, change)
    assert held.harmed(kube)
    assert {holding.revert(name).word for name in changes} == {"done"}
    assert holding.close() == ()
    assert held.as_before(kube)
    held.nothing_left(kube)
    api.close()


@pytest.mark.parametrize(
    ("verb", "group", "resource"), [("patch", "apps", "deployments"), ("delete", "", "resourcequotas")]
)
def test_without_one_rule_it_is_refused_by_name_before_anything_is_changed(
    kube: Kube, laid: tuple[Held, list[Any]], tmp_path: Path, verb: str, group: str, resource: str
) -> None:
    held, rules = laid
    strictly(kube, without(rules, verb, resource))
    api = as_account(kube, held.suite, "stormdrill", tmp_path, [begins(held)])
    name = "web" if group else held.quota
    right = Right(verb, group, resource, held.shop, name)
    kube.until(lambda: missing(api, [right], Until(10.0)), "the rule is still in force")
    with pytest.raises(Refused, match=f"may not {verb} {resource}"):
        held.hold(api).open()
    assert held.as_before(kube)
    held.nothing_left(kube)
    api.close()
