"""What bears our names in a cluster and belongs to no ledger that is open: requests that came late, ledgers that
somebody removed. Only what may be looked at is; what may not is said.

Objects are listed before the ledgers are: what appears in between is of a run whose ledger is then seen. Markers are
told and never taken away: where no ledger is left they are the last trace of a change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from stormdrill.cluster import naming, objects
from stormdrill.cluster.api import JSON_PATCH, Api, Lost
from stormdrill.cluster.asking import AGAIN, Until, call, read, text, under
from stormdrill.cluster.elements import Draft
from stormdrill.cluster.ledger import CLOSED, Book, book
from stormdrill.cluster.strangers import settled_by
from stormdrill.errors import StormdrillError, Unreachable
from stormdrill.keeper.sweep import DIRTY, LIVING, OVER, RUN, UNKNOWN, Thing
from stormdrill.model.undo import KubePatch
from stormdrill.targets.kubernetes.mechanism import OPTED_IN

LIMIT_S = 10.0
LOOK_S = 60.0
"""For the whole look: large clusters answer in many pages."""
PAGE = "500"
ANEW = 3
"""How often a list is begun anew: a server keeps what its pages come from for minutes."""
LABELLED = ("apis/batch/v1/jobs", "apis/apps/v1/deployments", "api/v1/services", "api/v1/resourcequotas",
            "apis/networking.k8s.io/v1/networkpolicies", "api/v1/pods", "api/v1/configmaps")  # fmt: skip
"""What a run creates; the anchors last, which own the others."""
CHANGED = ("api/v1/nodes", "apis/apps/v1/deployments", "apis/apps/v1/statefulsets", "api/v1/services")
"""What a run changes."""
_KINDS = {"networkpolicies": "network policy", "resourcequotas": "quota", "configmaps": "anchor"} | {
    f"{kind}s": kind for kind in ("job", "deployment", "service", "pod")
}
_FENCE = re.compile(r"stormdrill\.dev/fence-[0-9a-f]{12}")


class _Forbidden(Unreachable):
    pass


@dataclass(frozen=True, slots=True)
class Leftover:
    """An object of ours, or with a fence that an undo left there."""

    path: str
    run: str
    """Empty for a fence, whose name doesn't tell."""
    fence: str = ""

    @property
    def thing(self) -> Thing:
        parts = self.path.split("/")
        where = f"{parts[parts.index('namespaces') + 1]}/" if "namespaces" in parts[:-2] else ""
        return Thing("fence" if self.fence else _KINDS[parts[-2]], f"{where}{parts[-1]}", self.run, OVER, "")


@dataclass(slots=True)
class Looking:
    """One look through a cluster."""

    api: Api
    suite: str
    until: Until = field(default_factory=lambda: Until(LOOK_S))
    notes: list[str] = field(default_factory=list)
    whole: bool = True
    """All was seen: the ledgers of other suites, and where markers may stand."""
    others: bool = True
    """The ledgers of other suites were seen."""

    def found(self, run: str) -> Iterator[tuple[Leftover, str]]:
        """With whose it is. Raises Unreachable."""
        labelled = [one for kind in LABELLED for one in self._all(kind, naming.LABEL)]
        changed = [one for kind in CHANGED for one in self._all(kind)]
        ledgers = [book(there) for _, there in self._ledgers()]
        open_ = {one.run for one in ledgers if one.state != CLOSED}
        marked = self._marked(changed, open_, run)
        needed = {one for one, _ in _watched(labelled) if one in marked or not _has_failed(labelled, one)}
        watched = {one: path for one, path in _watched(labelled) if one in needed or not self.whole}
        for path, there in labelled:
            whose = text(there, "metadata", "labels", naming.LABEL)
            mine = RUN.fullmatch(whose) and run in ("", whose) and whose not in open_
            if not mine or text(there, "metadata", "labels", naming.PART) == "ledger" or _made_by_another(there):
                continue
            if whose in watched:
                self.notes.append(f"{whose}: {path}: {_not_ended(whose, watched[whose])}")
                yield Leftover(path, whose), LIVING
            elif whose in marked:
                yield Leftover(path, whose), DIRTY
            else:
                yield Leftover(path, whose), OVER if self.whole or run else UNKNOWN
        yield from self._fences([] if run else changed, ledgers, open_)
        if not self.whole and not run:
            self.notes.append("not everything could be looked at; what is known to be over: stormdrill sweep RUN")

    def _fences(
        self, changed: Sequence[tuple[str, dict[str, object]]], ledgers: Sequence[Book], open_: set[str]
    ) -> Iterator[tuple[Leftover, str]]:
        words = [word for one in ledgers if one.run in open_ for armed in one.armed for word in armed.undos]
        living = {naming.fence(word.marker) for word in words if isinstance(word, KubePatch)}
        for path, there in changed:
            for name in under(there, "metadata", "annotations"):
                if _FENCE.fullmatch(name) and name not in living:
                    yield Leftover(path, "", name), OVER if self.whole else UNKNOWN

    def _marked(self, changed: Sequence[tuple[str, dict[str, object]]], open_: set[str], named: str) -> set[str]:
        """Runs without an open ledger whose marker stands somewhere: what they made may be needed until that is put
        back. Of another suite's, whose ledgers can't be read here, nobody here knows; who names one is kept from
        removing what it may need."""
        found = set()
        for path, there in changed:
            for name, written in under(there, "metadata", "annotations").items():
                run = naming.run_of(written) if naming.is_marker(name) else ""
                if not run or run in open_:
                    continue
                suite = naming.suite_of(written)
                if suite not in ("", self.suite) and not self.others:
                    found |= {run} & {named}
                    self.notes.append(
                        f"{path} carries the marker of run {run} of the suite in namespace {suite}, whose ledgers "
                        "can't be read here: it may be under way; ask whoever drills from there"
                    )
                else:
                    found.add(run)
                    self.notes.append(
                        f"{path} carries the marker of run {run}, which has no open ledger; once nothing of it is in "
                        f"force: {settled_by(path, name)}"
                    )
        return found

    def _ledgers(self) -> list[tuple[str, dict[str, object]]]:
        selector = f"{naming.PART}=ledger"
        try:
            return self._listed("api/v1/configmaps", "", selector)
        except _Forbidden:
            self.whole = self.others = False
            return self._listed("api/v1/configmaps", self.suite, selector)

    def _all(self, kind: str, selector: str = "") -> list[tuple[str, dict[str, object]]]:
        """In the whole cluster, or else wherever it may be listed."""
        try:
            return self._listed(kind, "", selector)
        except _Forbidden as error:
            self.whole = False
            if kind.endswith("/nodes"):
                self.notes.append(f"not looked at: {error}")
                return []
        found: list[tuple[str, dict[str, object]]] = []
        for namespace in self._namespaces():
            try:
                found += self._listed(kind, namespace, selector)
            except _Forbidden as error:
                self.notes.append(f"not looked at: {error}")
        return found

    def _namespaces(self) -> list[str]:
        try:
            opted_in = [
                text(one, "metadata", "name") for _, one in self._listed("api/v1/namespaces", "", "=".join(OPTED_IN))
            ]
        except _Forbidden:
            opted_in = []
        note = f"not looked at: namespaces other than {', '.join([self.suite, *opted_in])}"
        if note not in self.notes:
            self.notes.append(note)
        return [self.suite, *opted_in]

    def _listed(self, kind: str, namespace: str, selector: str) -> list[tuple[str, dict[str, object]]]:
        """With their paths; begun anew where the state that the pages come from is forgotten on the way. Raises
        Unreachable, _Forbidden."""
        group, _, resource = kind.rpartition("/")
        path = f"/{group}/namespaces/{namespace}/{resource}" if namespace else f"/{kind}"
        found: list[tuple[str, dict[str, object]]] = []
        token, anew = "", 0
        while True:
            query = {"limit": PAGE, "labelSelector": selector, "continue": token}
            asked = urlencode({name: value for name, value in query.items() if value})
            try:
                answer = call(self.api, self.until, "GET", f"{path}?{asked}")
            except Lost as lost:
                self.until.pause(str(lost))
                continue
            if answer.good:
                page = answer.read()
                items = page.get("items")
                for one in items if isinstance(items, list) else []:
                    where = text(one, "metadata", "namespace")
                    inside = f"namespaces/{where}/" if where else ""
                    found.append((f"/{group}/{inside}{resource}/{text(one, 'metadata', 'name')}", one))
                if not (token := text(page, "metadata", "continue")):
                    return found
            elif answer.status == 410 and anew < ANEW:
                found, token, anew = [], "", anew + 1
                self.until.pause(answer.said, answer.retry_after_s)
            elif answer.status in AGAIN:
                self.until.pause(answer.said, answer.retry_after_s)
            elif answer.status == 410:
                raise Unreachable(f"{path} is forgotten faster than it can be read: {answer.said}; sweep again later")
            else:
                kind_of = _Forbidden if answer.status in (403, 404) else Unreachable
                raise kind_of(f"{path}: {answer.said}")


def sweep(api: Api, suite: str, run: str = "", *, dry_run: bool = False) -> tuple[tuple[Thing, ...], tuple[str, ...]]:
    """What is left, and notes of what could not be looked at; what is over is removed. Raises Unreachable."""
    looking = Looking(api, suite)
    things = []
    for left, owner in list(looking.found(run)):
        thing = replace(left.thing, owner=owner)
        if owner == DIRTY:
            thing = replace(thing, outcome="left: a marker of its run stands on what it changed")
        elif owner == OVER and not dry_run:
            thing = replace(thing, outcome=_removed(api, left))
        things.append(thing)
    return tuple(things), tuple(dict.fromkeys(looking.notes))


def _removed(api: Api, left: Leftover) -> str:
    try:
        if left.fence:
            _unfence(api, left, Until(LIMIT_S))
        else:
            # what an anchor owns goes only once it has: one that somebody's finalizer keeps is not removed
            seen = left.thing.kind == _KINDS["configmaps"]
            objects.remove(api, left.path, left.run, Until(LIMIT_S), seen=seen)
    except StormdrillError as error:
        return f"left: {error}"
    return "removed"


def _unfence(api: Api, left: Leftover, until: Until) -> None:
    while (there := read(api, left.path, until)) is not None:
        if left.fence not in under(there, "metadata", "annotations"):
            return
        draft = Draft(there)
        draft.bare(left.fence)
        try:
            answer = call(api, until, "PATCH", left.path, draft.ops, content_type=JSON_PATCH)
        except Lost as lost:
            until.pause(str(lost))
            continue
        if not answer.good and answer.status not in AGAIN | {404, 422}:
            raise Unreachable(f"PATCH {left.path}: {answer.said}")
        until.pause(answer.said)


def _watched(labelled: Sequence[tuple[str, dict[str, object]]]) -> list[tuple[str, str]]:
    """Runs with a watchdog's Job that has not ended, and its path."""
    return [
        (text(there, "metadata", "labels", naming.LABEL), path)
        for path, there in labelled
        if _of_watchdog(path, there, "jobs") and not under(there, "status").get("succeeded")
    ]


def _has_failed(labelled: Sequence[tuple[str, dict[str, object]]], run: str) -> bool:
    """Whether its watchdog has run, and doesn't now. What it had read went with its process, and there is no ledger to
    read that again from: started once more, it can but fail in the same way."""
    pods = [there for path, there in labelled if _of_watchdog(path, there, "pods")]
    status = [under(one, "status") for one in pods if text(one, "metadata", "labels", naming.LABEL) == run]
    listed = [one.get("containerStatuses") for one in status]
    each = [under(one) for found in listed if isinstance(found, list) for one in found]
    failed = [one for one in each if one.get("restartCount") or "terminated" in under(one, "state")]
    return bool(failed) and not any("running" in under(one, "state") for one in each)


def _of_watchdog(path: str, there: Mapping[str, object], kind: str) -> bool:
    return path.split("/")[-2] == kind and text(there, "metadata", "labels", naming.PART) == "watchdog"


def _not_ended(run: str, job: str) -> str:
    """Of what a watchdog without a ledger may still need."""
    namespace, name = job.split("/")[-3], job.split("/")[-1]
    return (
        f"its watchdog has not ended (kubectl logs -n {namespace} job/{name}); sweep again when it has. Where it says "
        f"that there is no ledger: `stormdrill recover {run}` on the machine that has the run's record, or, once "
        f"nothing carries its marker, kubectl delete job -n {namespace} {name}"
    )


def _made_by_another(there: Mapping[str, object]) -> bool:
    """It goes with what made it: a pod with its Job. What an anchor owns has no controller."""
    owners = under(there, "metadata").get("ownerReferences")
    return any(under(one).get("controller") for one in owners) if isinstance(owners, list) else False
