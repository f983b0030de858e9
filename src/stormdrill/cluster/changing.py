"""Carries a change out: at most once, only on what was planned, and so that whoever comes later can tell.

Each round looks at the object first and decides by what is there. So an answer that was lost, a conflict, and a second
attempt are the same case: the marker tells that the patch was applied. Between the look and the patch `before_each` is
asked; the patch carries a test of the version that was looked at. Whoever closes the ledger first and moves the version
on then has the last word, however late the patch arrives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from stormdrill.cluster import dropping, naming
from stormdrill.cluster.api import JSON, JSON_PATCH, Answer, Api, Lost
from stormdrill.cluster.asking import AGAIN, IN_DOUBT, Until, call, read, text, under
from stormdrill.cluster.changes import Change, NotApplied
from stormdrill.cluster.elements import BEFORE, OURS, Draft, shown, states
from stormdrill.cluster.strangers import Others, settled_by
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.undo import KubeDelete, KubePatch

LIMIT_S = 10.0
DRY = {"dryRun": "All"}


def apply(
    api: Api,
    change: Change,
    run: str,
    injection: str,
    before_each: Callable[[], None],
    until: Until | None = None,
    others: Others | None = None,
) -> None:
    """Bring the change about. Raises NotApplied when it certainly is not and won't be, Unreachable when that isn't
    known, or it was made and is not as it should be. `before_each` raises what ends it. `others`: tells of the runs
    whose markers are met; None: any is in force."""
    attempt = _Attempt(api, change, run, injection, before_each, until or Until(LIMIT_S), others)
    try:
        attempt.make()
    except LookupError as error:
        raise attempt.not_made(f"{error}: it has changed since it was planned") from error
    except NotApplied:
        raise
    except Unreachable as error:
        known = "whether it is changed is not known" if attempt.doubt else "it was not changed"
        kind = Unreachable if attempt.doubt else NotApplied
        raise kind(f"{change.undo.path}: {known}: {error}") from error


def dry_run(
    api: Api,
    change: Change,
    run: str,
    injection: str,
    until: Until | None = None,
    others: Others | None = None,
) -> None:
    """Let the server check the change without making it. Raises Refused with what is wrong, Unreachable."""
    try:
        _Attempt(api, change, run, injection, lambda: None, until or Until(LIMIT_S), others, dry=True).make()
    except (NotApplied, LookupError) as error:
        raise Refused(f"{error}; it would be needed {change.why or 'for the fault'}") from error


@dataclass(slots=True)
class _Attempt:
    api: Api
    change: Change
    run: str
    injection: str
    before_each: Callable[[], None]
    until: Until
    others: Others | None = None
    dry: bool = False
    sent: str = ""
    """Version of the object that a patch went out for whose answer isn't known: it may have landed, and may still land
    while the object has that version. For a creation anything."""
    landed: bool = False
    """The server has taken it. Stays so, whatever it made of it, until it is seen to be gone."""
    refused: dict[str, str] = field(default_factory=dict)
    """What the server said of a patch with a valid test, by the object's version."""
    tested: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    """Markers of runs that are known to have ended."""
    begun: bool = False
    """The marker stands, and the elements may not yet."""

    @property
    def doubt(self) -> bool:
        return bool(self.sent) or self.begun or self.landed

    @property
    def path(self) -> str:
        return self.change.undo.path

    @property
    def _marking(self) -> str:
        return naming.marking(self.run, self.injection, self.others.suite if self.others else "")

    def make(self) -> None:
        word = self.change.undo
        if isinstance(word, KubePatch):
            self._patch(word)
        else:
            self._create(word)

    # patches

    def _patch(self, word: KubePatch) -> None:
        while True:
            there = read(self.api, self.path, self.until)
            if there is None or text(there, "metadata", "uid") != word.uid:
                what = "it is gone" if there is None else "another object has taken its name"
                raise self.not_made(what)  # in doubt all the same: what has landed may be in a copy of it
            version = text(there, "metadata", "resourceVersion")
            marked = word.marker in under(there, "metadata", "annotations")
            if not marked and self.sent != version and OURS not in states(word.elements, there):
                self.sent = ""  # it won't land, for a patch tests the version, and nothing shows that it has
            draft = self._draft(word, there, marked)
            if draft is None:
                return
            self.before_each()
            status = bool(word.subresource) and (marked or self.dry)
            answer = self._send("PATCH", word, draft.ops, version, status=status)
            if answer is None or not answer.good:
                continue
            if word.subresource and not marked:
                if not self.dry:
                    self._kept(word, answer.read())
                    self.begun = True  # now the elements
                    continue
                self._dry_status(word, there, version)
            self.sent, self.landed = "", not self.dry
            self._recognised(word, answer.read())
            return

    def _draft(self, word: KubePatch, there: dict[str, object], marked: bool) -> Draft | None:
        """What is to be sent for this version of the object; None when it is in force already."""
        self.begun = marked
        self._strangers(there, word.marker)
        found = states(word.elements, there)
        changed = [shown(e, there) for e, s in zip(word.elements, found, strict=True) if s != BEFORE]
        if marked:
            if all(now == OURS for now in found):
                return None
            if not word.subresource or changed:
                raise Unreachable(f"{self.path}: somebody changed it since it was applied: {'; '.join(changed)}")
        elif changed:
            raise self.not_made(f"{'; '.join(changed)}: not as it was planned, somebody changed it since")
        if version_said := self.refused.get(text(there, "metadata", "resourceVersion")):
            raise self.not_made(version_said)
        draft = Draft(there)
        if not marked:
            draft.annotate(word.marker, self._marking)
        if marked or not word.subresource:
            for element in word.elements:
                draft.apply(element)
        if word.subresource and self.dry:
            draft = Draft(there)
            for element in word.elements:
                draft.apply(element)
        return draft

    def _dry_status(self, word: KubePatch, there: dict[str, object], version: str) -> None:
        """The other half of a change that takes two patches: the marker."""
        draft = Draft(there)
        draft.annotate(word.marker, self._marking)
        while (answer := self._send("PATCH", word, draft.ops, version, status=False)) is None or not answer.good:
            if version in self.refused:
                raise self.not_made(self.refused[version])
        self._kept(word, answer.read())

    def _strangers(self, there: dict[str, object], own: str) -> None:
        """Another run's change on the same object: what is there now is not how it is without drills. A marker whose
        run is over says nothing any more; it is nobody's to take away, and left where it is."""
        for name, written in under(there, "metadata", "annotations").items():
            if name == own or not naming.is_marker(name):
                continue
            run = naming.run_of(written)
            if run == self.run or name in self.over:
                continue
            why = "it can't be told whether that run is over"
            if self.others:
                why = self.others.in_force(there, name)
            if why:
                raise self.not_made(
                    f"it carries the change of run {run or 'unknown'} (annotation {name}): {why}; "
                    f"`stormdrill recover {run or 'RUN'}` looks after it, and where nothing of it is left: "
                    f"`{settled_by(self.path, name)}`"
                )
            self.over.add(name)

    def _recognised(self, word: KubePatch, stored: dict[str, object]) -> None:
        """What the server made of it must be what the undo will look for."""
        found = zip(word.elements, states(word.elements, stored), strict=True)
        strange = [shown(e, stored) for e, now in found if now != OURS and e.ours != e.before]
        if word.subresource:
            return
        if strange:
            said = f"the server keeps something else than what was sent, so that no undo would know it: {strange[0]}"
            raise self.not_made(said)
        self._kept(word, stored)

    def _kept(self, word: KubePatch, stored: dict[str, object]) -> None:
        """An admission webhook may take away annotations that it doesn't know."""
        if word.marker not in under(stored, "metadata", "annotations"):
            said = f"the server takes the marker off, by which the undo knows its own (annotation {word.marker})"
            if word.subresource and not self.begun:  # the elements are changed after it
                self.sent = ""  # the answer has come
            raise self.not_made(said)

    # creations

    def _create(self, word: KubeDelete) -> None:
        collection, _, name = self.path.rpartition("/")
        anchor = self._anchor_path()
        body = json.loads(self.change.body)
        owner: dict[str, object] | None = None
        while True:
            if not self.dry:
                owner = self._owner(anchor)
            if (there := read(self.api, self.path, self.until)) is not None:
                self._existing(there, owner)
                return
            if said := self.refused.get(""):
                raise self.not_made(said)
            self.before_each()
            answer = self._send("POST", word, self._body(body, name, owner), "", collection=collection)
            if answer is not None and answer.good:
                self.landed = not self.dry
                if lost := dropping.of_creation(self._body(body, name, owner), answer.read()):
                    if not self.dry:
                        dropping.remove(self.api, self.path, answer.read(), self.until)
                        self.landed = False  # and `sent` stays: one that was sent before finds the name free again
                    raise self.not_made(dropping.said(lost))
                return

    def _anchor_path(self) -> str:
        parts = self.path.split("/")
        if "namespaces" not in parts[:-2]:
            raise NotApplied(
                f"{self.path}: only objects in namespaces are created: nothing would end one that comes late"
            )
        namespace = parts[parts.index("namespaces") + 1]
        return f"/api/v1/namespaces/{namespace}/configmaps/{naming.ledger(self.run)}"

    def _owner(self, path: str) -> dict[str, object]:
        anchor = read(self.api, path, self.until)
        if anchor is None or text(anchor, "metadata", "labels", naming.LABEL) != self.run:
            raise self.not_made(
                f"the run's anchor {path} is not there: the run was ended, or never began in this namespace"
            )
        uid = text(anchor, "metadata", "uid")
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": naming.ledger(self.run), "uid": uid}

    def _existing(self, there: dict[str, object], owner: dict[str, object] | None) -> None:
        """An object of that name: ours when an answer was lost, else somebody's."""
        value = text(there, "metadata", "annotations", naming.marker(self.run, self.injection))
        ours = text(there, "metadata", "labels", naming.LABEL) == self.run == naming.run_of(value)
        if self.dry or not ours:
            raise self.not_made("an object of that name exists already, and is not this injection's")
        self.sent, self.landed = "", True
        owners = under(there, "metadata").get("ownerReferences")
        if text(there, "metadata", "deletionTimestamp") or not isinstance(owners, list) or owner is None:
            raise Unreachable(f"{self.path}: it was created and is being deleted")

    def _body(self, body: dict[str, object], name: str, owner: dict[str, object] | None) -> dict[str, object]:
        metadata = dict(under(body, "metadata"))
        metadata["name"] = name
        metadata["labels"] = {**under(metadata, "labels"), naming.LABEL: self.run}
        marker = {naming.marker(self.run, self.injection): self._marking}
        metadata["annotations"] = {**under(metadata, "annotations"), **marker}
        if owner is not None:
            metadata["ownerReferences"] = [owner]
        return {**body, "metadata": metadata}

    # both

    def _send(
        self,
        method: str,
        word: KubePatch | KubeDelete,
        body: object,
        version: str,
        *,
        status: bool = False,
        collection: str = "",
    ) -> Answer | None:
        """One request. None when its answer was lost. Raises what can't get better by asking again."""
        path = collection or (f"{self.path}/{getattr(word, 'subresource', '')}" if status else self.path)
        kind = JSON if method == "POST" else JSON_PATCH
        query = dict(DRY) if self.dry else {}
        # tells of them where somebody takes the marker away, and of what somebody writes into what was created
        query["fieldManager"] = naming.manager(word.marker) if isinstance(word, KubePatch) else naming.maker(self.run)
        try:
            answer = call(self.api, self.until, method, path, body, content_type=kind, query=query)
        except Lost as lost:
            self._doubtful(version, lost.sent)
            self.until.pause(str(lost))
            return None
        if answer.good:
            return answer
        said = f"{method}: {answer.said}"
        if answer.status in AGAIN:
            self._doubtful(version, answer.status in IN_DOUBT)
            self.until.pause(said, answer.retry_after_s)
        elif answer.status == 422:
            # the same answer to a test that fails and to what the server won't take: a second one to the same version
            self.refused[version] = said if method == "POST" or version in self.tested else ""
            self.tested.add(version)
            self.until.pause(said)
        elif answer.status == 404 and method == "PATCH":
            self.until.pause(said)  # gone meanwhile: the next look tells
        else:
            raise self.not_made(said)
        return answer

    def _doubtful(self, version: str, sent: bool) -> None:
        if sent and not self.dry:
            self.sent = version or "created"

    def not_made(self, why: str) -> Unreachable:
        if self.landed:
            return Unreachable(f"{self.path}: {why}; it was made")
        if self.sent:
            return Unreachable(f"{self.path}: {why}; a request whose answer was lost may be taken, or still come")
        if self.begun:
            return Unreachable(f"{self.path}: {why}; its marker stands there already")
        return NotApplied(f"{self.path}: {why}")
