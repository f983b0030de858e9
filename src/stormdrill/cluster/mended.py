"""Who has mended what a run had left, and when: told on the run's Lease, which stays when the ledger is removed.

While the ledger stands it tells that itself. Whoever removes it after the runner's death first writes here what it
said: an annotation, for an object that is there anyhow, by requests that a run is allowed anyhow. The last few are
kept. Another run may hold the Lease by then: its holder and times stay as they are, and as each request names the
version that it has seen, none of the two writers undoes what the other has written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from stormdrill.cluster import naming
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import Until, call, read, text, under
from stormdrill.cluster.lease import LEASES
from stormdrill.cluster.ledger import Book, Ledger, now
from stormdrill.errors import Unreachable

ANNOTATION = f"{naming.PREFIX}mended"
MOST, LARGEST = 10, 8000
"""Runs, and bytes: an annotation is written again with each renewal of the Lease."""
KEPT = timedelta(days=30)
MOST_NAMED = 6
"""Injections of a run; how many more there were is told."""
LONGEST_NAME, LONGEST_WORD, LONGEST_WHY = 80, 24, 200
"""Bytes of what stands in a ledger, where people may have edited it."""

_BECAME = re.compile(r"(?P<word>[\w-]+) by (?:the )?(?P<by>[\w-]+) at (?P<at>[\d:.T-]+Z)")
"""As `of` writes it, without the injection's name."""


@dataclass(frozen=True, slots=True)
class Mended:
    """One run that was mended."""

    run: str
    at: str
    """When its ledger was removed; UTC."""
    by: str
    """Who removed that: recover or sweep and on which machine, or a run that came after it."""
    why: str
    """Why it had to be mended, as the ledger said."""
    what: tuple[str, ...]
    """What became of each injection, by whom and when."""

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"run {self.run}{why}: {'; '.join(self.what)}; its ledger was removed by {self.by} at {self.at}"

    def became(self, injection: str) -> tuple[str, str, str] | None:
        """Of one injection: the word, by whom, and when; None where that isn't told."""
        if len(injection.encode()) > LONGEST_NAME:
            return None  # the beginning of its name may be another's, too
        for said in self.what:
            told = _BECAME.fullmatch(said.removeprefix(f"{injection}: "))
            if told is not None and said.startswith(f"{injection}: "):
                return told["word"], told["by"], told["at"]
        return None


def here(word: str) -> str:
    """Who does it: that command on this machine."""
    return f"{word} on {os.uname().nodename}"


def of(book: Book, by: str) -> Mended | None:
    """What a ledger tells; None where nothing was armed, so that there was nothing to mend."""
    if not book.armed:
        return None
    told = []
    for entry in book.armed[:MOST_NAMED]:
        ended = book.ended.get(entry.injection)
        name = _cut(entry.injection, LONGEST_NAME)
        if ended is None:
            told.append(f"{name}: not known to be reverted")
        else:
            at = ended.at.removesuffix("Z")[:23]  # to the millisecond
            word, whose, at = (_cut(said, LONGEST_WORD) for said in (ended.undone.word, ended.by, at))
            told.append(f"{name}: {word} by {'' if whose == 'recover' else 'the '}{whose} at {at}Z")
    if more := len(book.armed) - len(told):
        told.append(f"{more} more")
    return Mended(book.run, f"{now()[:19]}Z", _cut(by, LONGEST_NAME), _cut(book.why, LONGEST_WHY), tuple(told))


def keep(api: Api, suite: str, book: Book, by: str, until: Until) -> str:
    """Write it down, before the ledger is removed; again is as good as once. Never raises, and mending doesn't depend
    on it: returns what went wrong."""
    name, mended = str(book.about.get("lease", "")), of(book, by)
    if not name or mended is None:
        return ""
    try:
        _keep(api, suite, name, mended, until)
    except Unreachable as error:
        return f"who has mended run {book.run} is not kept on the Lease {suite}/{name}: {error}"
    return ""


def keep_where_helped(ledger: Ledger, until: Until) -> str:
    """By a runner at its end, where somebody else has reverted something for it. Never raises, as `keep`."""
    try:
        book = ledger.read(until)
    except Unreachable as error:
        return f"whether anybody else has mended something of the run is not known: {error}"
    if book is None or all(ended.by == "runner" for ended in book.ended.values()):
        return ""
    return keep(ledger.api, ledger.suite, book, "its own runner", until)


def told_on(lease: Mapping[str, object] | None) -> tuple[Mended, ...]:
    """The latest first; what is too old, or was edited so that it says nothing, is left out."""
    try:
        listed = json.loads(text(lease, "metadata", "annotations", ANNOTATION) or "[]")
        found = tuple(_read(one) for one in listed)
    except (ValueError, TypeError, KeyError):
        return ()
    since = (datetime.now(UTC) - KEPT).strftime("%Y-%m-%dT")
    return tuple(one for one in found if one.at >= since)


def look_at(api: Api, suite: str, name: str, until: Until) -> tuple[Mended, ...]:
    """What that Lease tells, the latest first. Raises Unreachable."""
    return told_on(read(api, f"{LEASES.format(suite)}/{name}", until))


def look(api: Api, suite: str, until: Until) -> tuple[Mended, ...]:
    """What all systems' Leases tell, the latest first. Raises Unreachable."""
    there = read(api, f"{LEASES.format(suite)}?{urlencode({'labelSelector': naming.LABEL})}", until)
    items = under(there).get("items")
    found = [one for item in (items if isinstance(items, list) else ()) for one in told_on(item)]
    return tuple(sorted(found, key=lambda one: one.at, reverse=True))


def _keep(api: Api, suite: str, name: str, mended: Mended, until: Until) -> None:
    path = f"{LEASES.format(suite)}/{name}"
    while True:
        there = read(api, path, until)
        lease = there or _nobodys(suite, name, mended.run)
        others = [one for one in told_on(there) if one.run != mended.run]
        metadata = under(lease, "metadata")
        metadata["annotations"] = {**under(metadata, "annotations"), ANNOTATION: _written([mended, *others])}
        try:
            method, where = ("PUT", path) if there else ("POST", LEASES.format(suite))
            answer = call(api, until, method, where, lease)
        except Lost as lost:
            until.pause(str(lost))
            continue
        if answer.good:
            return
        if answer.status in (400, 403, 422):
            raise Unreachable(answer.said)
        until.pause(answer.said, answer.retry_after_s)


def _nobodys(suite: str, name: str, run: str) -> dict[str, object]:
    """As it is left by a run that has ended: here somebody has removed it."""
    metadata = {"name": name, "namespace": suite, "labels": {naming.LABEL: run}}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}


def _read(one: Mapping[str, object]) -> Mended:
    what = one["what"]
    run, at, by, why = (str(one[name]) for name in ("run", "at", "by", "why"))
    return Mended(run, at, by, why, tuple(map(str, what)) if isinstance(what, list) else ())


def _written(all_of_them: list[Mended]) -> str:
    kept = all_of_them[:MOST]
    while len(told := json.dumps([asdict(one) for one in kept])) > LARGEST and len(kept) > 1:
        kept.pop()
    return told


def _cut(said: str, most: int) -> str:
    return said.encode()[:most].decode(errors="ignore")
