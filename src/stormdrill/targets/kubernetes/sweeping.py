"""What runs keep in a cluster, whose it is, and the removal of what no living run owns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from stormdrill.cluster import mended, naming, recovering
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import Until, read, text, under
from stormdrill.cluster.exec import Exec
from stormdrill.cluster.lease import LEASES, LOOK_S, Watch
from stormdrill.cluster.ledger import CLOSED, OPEN, Book
from stormdrill.cluster.setting import books
from stormdrill.errors import StormdrillError
from stormdrill.keeper.sweep import DIRTY, KILLED, LIVING, OVER, Thing
from stormdrill.targets.kubernetes.clusters import named

LIMIT_S = 10.0
DONE = {"ledger": "removed", "lease": "released", "fault": "reverted"}
LEAST_S = 10.0
"""How long a Lease is watched that doesn't say how long it lasts."""


@dataclass(frozen=True, slots=True)
class _Held:
    """One run's ledger, and its Lease as it was read."""

    book: Book
    lease: str
    holder: str
    expires: str
    lasts_s: float
    alive: bool = False

    @property
    def runners(self) -> bool:
        return self.holder == f"{self.book.run}/runner"

    @property
    def owner(self) -> str:
        if self.book.state == CLOSED:
            return OVER
        if self.book.state != OPEN:
            return DIRTY
        return LIVING if self.alive else KILLED


def look(api: Api, suite: str, run: str = "") -> list[Thing]:
    """Ledgers, Leases and what is armed, of all runs or of one. Takes as long as the longest Lease lasts where a run
    is still open: its runner lives if it renews it. Raises Unreachable."""
    return [thing for held in _held(api, suite, run) for thing in _things(held, suite)]


def missing(api: Api, suite: str) -> str:
    """What to say where the suite's namespace isn't there, so that nothing can be; empty where it is, or can't be asked
    for."""
    try:
        answer = api.call("GET", f"/api/v1/namespaces/{suite}", limit_s=LIMIT_S)
    except Lost:
        return ""
    if answer.status != 404:
        return ""
    return f"{named(api.name)} has no namespace {suite}, so no ledger was looked at; --suite names the suite's own"


def sweep(api: Api, suite: str, run: str = "", *, dry_run: bool = False) -> tuple[Thing, ...]:
    """The same, and the removal of what is stale: what a killed run has left is reverted first. Raises Unreachable."""
    found: list[Thing] = []
    for held in _held(api, suite, run):
        things = list(_things(held, suite))
        if not dry_run and held.owner != LIVING:
            outcome, said = _removed(api, suite, held.book)
            things = [replace(thing, outcome=outcome or DONE[thing.kind] + said) for thing in things]
        found += things
    return tuple(found)


def before(api: Api, suite: str, run: str = "") -> tuple[str, ...]:
    """Which runs were mended lately, by whom and when, of all or of one: their ledgers are gone."""
    try:
        return tuple(f"mended: {one}" for one in mended.look(api, suite, Until(LIMIT_S)) if run in ("", one.run))
    except StormdrillError as error:
        return (f"not looked at: who has mended what lately: {error}",)


def _removed(api: Api, suite: str, book: Book) -> tuple[str, str]:
    """What has kept it from being removed; empty when nothing has. And what else is to be said."""
    try:
        account = recovering.mend(api, book.run, suite, runs=Exec(api))
        if account.left:
            return f"left: not known to be reverted: {', '.join(account.left)}", ""
        said = recovering.forget(api, book.run, suite, "sweep")
    except StormdrillError as error:
        return f"left: {named(api.name)}: {error}", ""
    return "", f"; {said}" if said else ""


def _things(held: _Held, suite: str) -> Iterator[Thing]:
    book, owner = held.book, held.owner
    yield Thing("ledger", f"{suite}/{naming.ledger(book.run)} ({book.state})", book.run, owner, "")
    if held.holder.startswith(f"{book.run}/"):
        yield Thing("lease", f"{suite}/{held.lease} ({held.holder.partition('/')[2]})", book.run, owner, held.expires)
    for armed in book.left:
        yield Thing("fault", armed.injection, book.run, owner, _after(armed.at, armed.expires_in_s))


def _held(api: Api, suite: str, run: str) -> Sequence[_Held]:
    until = Until(LIMIT_S)
    found = [_with_lease(api, suite, book, until) for book in books(api, suite, until) if run in ("", book.run)]
    return _judged(api, suite, found)


def _with_lease(api: Api, suite: str, book: Book, until: Until) -> _Held:
    name = str(book.about.get("lease", ""))
    there = read(api, f"{LEASES.format(suite)}/{name}", until) if name else None
    lasts = under(there, "spec").get("leaseDurationSeconds")
    lasts_s = float(lasts) if isinstance(lasts, int) else LEAST_S
    expires = _after(text(there, "spec", "renewTime"), lasts_s)
    return _Held(book, name, text(there, "spec", "holderIdentity"), expires, lasts_s)


def _judged(api: Api, suite: str, found: Sequence[_Held]) -> Sequence[_Held]:
    """Who lives: seen to renew its Lease before that could expire."""
    alive: set[str] = set()
    waiting = {held.lease: (held, Watch()) for held in found if held.book.state == OPEN and held.runners}
    first: dict[str, str] = {}
    while waiting:
        for name, (held, watch) in list(waiting.items()):
            asked_s = time.monotonic()
            there = read(api, f"{LEASES.format(suite)}/{name}", Until(LIMIT_S))
            version = text(there, "metadata", "resourceVersion")
            unchanged_s = watch.unchanged_s(version, asked_s)
            if text(there, "spec", "holderIdentity") != held.holder:
                pass  # its watchdog has just taken it
            elif version != first.setdefault(name, version):
                alive.add(held.book.run)
            elif unchanged_s < held.lasts_s:
                continue
            del waiting[name]
        time.sleep(LOOK_S if waiting else 0.0)
    return [replace(held, alive=held.book.run in alive) for held in found]


def _after(at: str, seconds: float) -> str:
    try:
        then = datetime.fromisoformat(at.replace("Z", "+00:00")) + timedelta(seconds=seconds)
    except ValueError:
        return ""
    return then.astimezone(UTC).isoformat(timespec="seconds")
