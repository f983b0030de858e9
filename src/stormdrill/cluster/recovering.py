"""For `stormdrill recover` and `sweep`: what the ledgers of a cluster tell, and reverting what nobody else does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from stormdrill.cluster import mended, naming, objects
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, text, under
from stormdrill.cluster.exec import Exec
from stormdrill.cluster.lease import LEASES, Lease, Watch
from stormdrill.cluster.ledger import CLOSED, Book, Ended, Ledger
from stormdrill.cluster.undoing import Runs
from stormdrill.cluster.watchdog import Watchdog
from stormdrill.errors import Refused, Unreachable

LIMIT_S = 10.0
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a run in a cluster."""

    run: str
    state: str
    """open, reverting, closed; empty when there is no ledger: it was closed and removed, or never written."""
    why: str
    """Why it isn't open any more."""
    ended: tuple[Ended, ...]
    """By injection, in the order of arming."""
    left: tuple[str, ...]
    """Injections that are not known to be reverted."""


def look(api: Api, run: str, suite: str) -> Account:
    """Raises Unreachable."""
    return _account(run, Ledger(api, suite, run).read())


def mend(
    api: Api,
    run: str,
    suite: str,
    *,
    limit_s: float = 60.0,
    runs: Runs | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Account:
    """Revert what the run has left, also while its watchdog does the same. Raises Refused while its runner lives,
    Unreachable."""
    ledger = Ledger(api, suite, run)
    there = ledger.read()
    if there is None or there.state == CLOSED:
        return _account(run, there)
    if there.state == "open" and not there.stop:
        _gone(api, run, suite, there)
    hand = Watchdog(api, run, suite, runs or Exec(api), by="recover", tell=tell, asked="recovered by hand")
    end_s = time.monotonic() + limit_s
    while not hand.step() and time.monotonic() < end_s:
        time.sleep(LOOK_S)
    return look(api, run, suite)


def forget(api: Api, run: str, suite: str, by: str = "recover") -> str:
    """Release the Lease where it is still that run's, remove the ledger and the Job of a run that is closed. Its Lease
    tells from then on who has mended what; returns what is wrong with that. Raises Refused when it isn't closed,
    Unreachable."""
    ledger = Ledger(api, suite, run)
    there = ledger.read()
    if there is not None and there.state != CLOSED:
        raise Refused(f"run {run} is not closed in this cluster ({there.state}): `stormdrill recover {run}` first")
    path = f"/apis/batch/v1/namespaces/{suite}/jobs/{naming.watchdog(run)}"
    objects.remove(api, path, run, Until(LIMIT_S))
    if there is not None and (name := str(there.about.get("lease", ""))):
        lasts_s = there.about.get("lease_s")
        lease = Lease(api, suite, name, f"{run}/recover", float(lasts_s) if isinstance(lasts_s, (int, float)) else 10.0)
        if said := lease.release(Until(LIMIT_S)):
            raise Unreachable(said)
    said = mended.keep(api, suite, there, mended.here(by), Until(LIMIT_S)) if there is not None else ""
    ledger.remove()
    return said


def _gone(api: Api, run: str, suite: str, there: Book) -> None:
    """See the Lease not being renewed by the run's own runner for as long as it lasts."""
    name = str(there.about.get("lease", ""))
    path = f"{LEASES.format(suite)}/{name}"
    watch, first = Watch(), ""
    while True:
        asked_s = time.monotonic()
        lease = read(api, path, Until(LIMIT_S))
        if text(lease, "spec", "holderIdentity") != f"{run}/runner":
            return
        version = text(lease, "metadata", "resourceVersion")
        first = first or version
        lasts_s = under(lease, "spec").get("leaseDurationSeconds")
        if version != first:
            raise Refused(
                f"run {run} is under way: its Lease {suite}/{name} is being renewed; stop it with "
                f"kubectl annotate configmap -n {suite} {naming.ledger(run)} {naming.STOP}='why'"
            )
        if watch.unchanged_s(version, asked_s) >= (lasts_s if isinstance(lasts_s, int) else 10):
            return
        time.sleep(LOOK_S)


def _account(run: str, there: Book | None) -> Account:
    if there is None:
        return Account(run, "", "", (), ())
    ended = tuple(there.ended[entry.injection] for entry in there.armed if entry.injection in there.ended)
    left = tuple(entry.injection for entry in there.left) + there.unreadable
    return Account(run, there.state, there.why, ended, left)
