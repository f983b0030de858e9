"""Carries undos out: for the runner while it lives, for the watchdog after it, for `recover` after both.

An undo looks first, and puts back only what is still as the fault left it. It may be carried out any number of
times, by several at once. Where nothing of ours is found it moves the object's version on, so that a patch that was
sent before and comes late fails its test. It never raises; what could not be shown to be undone within its limit is
`failed`, and is for the caller to try again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from stormdrill.cluster import naming, owning, standing
from stormdrill.cluster.api import JSON_PATCH, Answer, Api, Lost
from stormdrill.cluster.asking import AGAIN, Until, call, read, text, under
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.elements import BEFORE, OTHER, OURS, Draft, evident, shown, states
from stormdrill.cluster.exec import Ran, Refusal
from stormdrill.cluster.objects import being_deleted, delete
from stormdrill.cluster.standing import Found
from stormdrill.cluster.strangers import settled_by
from stormdrill.errors import Unreachable
from stormdrill.model.undo import Element, InCluster, KubeDelete, KubeEndExec, KubePatch

DONE, SUPERSEDED, FAILED = "done", "superseded", "failed"
SERVER = "the API server"
CONTAINER = "a look into the container"
_WITH_PODS = ("/apis/apps/", "/apis/batch/")
"""What makes pods is gone when they are; the server is asked to wait for them."""
_END_TAGGED = (
    "found=0; for d in /proc/[0-9]*; do p=${d#/proc/}; "
    '[ "$p" = "$$" ] && continue; [ "$p" = 1 ] && continue; '
    "tr '\\000' '\\n' <\"$d/cmdline\" 2>/dev/null | grep -qxF -e \"$1\" && "
    '{ found=1; kill -9 "-$p"; kill -9 "$p"; } 2>/dev/null; done; echo "$found"'
)
"""Fixed; the tag is its argument. Never the container's first process. Prints whether there was anything to end."""


class Runs(Protocol):
    """What `cluster.exec.Exec` does."""

    def run(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], stdin: bytes = b"", limit_s: float = 5.0
    ) -> Ran: ...


def undo(
    api: Api, word: InCluster, runs: Runs | None = None, until: Until | None = None, *, fence: bool = True
) -> Undone:
    """Carry it out, within its own limit unless another is given. Never raises. `fence=False`: somebody else has been
    here since nothing may be changed any more, and has moved the version on."""
    until = until or Until(word.timeout_s)
    met: list[Found] = []
    try:
        if isinstance(word, KubePatch):
            undone = _Patched(api, word, until, met, fence).undo()
        elif isinstance(word, KubeDelete):
            undone = _delete(api, word, until, met)
        else:
            undone = _end_exec(api, word, runs, until)
    except Unreachable as error:
        undone = Undone(FAILED, str(error))
    except Exception as error:  # an undo that fails in an unforeseen way must not stop the ones after it
        undone = Undone(FAILED, f"{word.kind}: {type(error).__name__}: {error}")
    return replace(undone, found=met[0]) if met else undone


def together(each: Sequence[Undone]) -> Undone:
    """Of all undos of one injection: failed if one has, done if one has anything to say for itself."""
    if not each:
        return Undone(SUPERSEDED, "nothing was armed")
    for word in (FAILED, DONE, SUPERSEDED):
        said = [undone for undone in each if undone.word == word]
        if said:
            witnesses = {undone.witness for undone in each}
            witness = next(iter(witnesses)) if len(witnesses) == 1 else SERVER if "" not in witnesses else ""
            told = said if word == FAILED else each
            return Undone(word, "; ".join(dict.fromkeys(undone.detail for undone in told)), witness)
    return Undone(FAILED, "an undo ended with a word that is not known")


@dataclass(slots=True)
class _Patched:
    api: Api
    word: KubePatch
    until: Until
    met: list[Found]
    """How it stood at each look; the first one tells what others had done."""
    fence: bool = True
    restored: list[str] = field(default_factory=list)
    """What was found as the fault left it and a patch was sent for."""
    before_us: list[str] = field(default_factory=list)
    """What was as before, though the marker that came with the fault said that it was in force: somebody put it back.
    A status is changed after its marker, so that nobody knows that of one."""

    def undo(self) -> Undone:
        while True:
            there = read(self.api, self.word.path, self.until)
            self.met.append(standing.of(self.word, there))
            if there is None:
                return Undone(SUPERSEDED, f"{self.word.path} is gone", SERVER)
            if text(there, "metadata", "uid") != self.word.uid and not self._is_copy(there):
                return Undone(SUPERSEDED, f"{self.word.path} was replaced by another object of that name", SERVER)
            if (undone := self._round(there)) is not None:
                return undone

    def _is_copy(self, there: dict[str, object]) -> bool:
        """Whether an object under another uid was made again as the fault had left it: nobody's wish, though somebody's
        deed. The marker says so, or what bears a name of ours."""
        if self.word.marker in under(there, "metadata", "annotations"):
            return True
        looked = zip(self.word.elements, states(self.word.elements, there), strict=True)
        return any(now == OURS and self._known(element, now, there) for element, now in looked)

    def _round(self, there: dict[str, object]) -> Undone | None:
        """Decide by one look, and send at most one patch. None: look again."""
        marked = self.word.marker in under(there, "metadata", "annotations")
        copied = text(there, "metadata", "uid") != self.word.uid
        draft, found = Draft(there), list[Element]()
        theirs, kept = list[str](), list[str]()
        looked = list(zip(self.word.elements, states(self.word.elements, there), strict=True))
        self._note_back(looked, marked=marked)
        for element, now in reversed(looked):
            if now == BEFORE:
                continue
            if (now == OURS and (marked or copied)) or self._known(element, now, there):
                try:
                    draft.restore(element)
                    found.append(element)
                except LookupError as error:
                    theirs.append(f"{_place(element)}: {error}")
            else:
                (kept if now == OURS else theirs).append(shown(element, there))
        on_status = bool(self.word.subresource) and not draft.empty
        if not on_status:
            draft.bare(self.word.marker)
        if draft.empty:
            if kept:
                return Undone(FAILED, self._unmarked(kept))
            return self._told(theirs) if not self.fence or self._moved_on(there) else None
        self.restored += [place for place in map(_place, found) if place not in self.restored]
        answer = self._send(draft, status=on_status)
        if answer is None or on_status:
            return None
        if kept:
            return Undone(FAILED, self._unmarked(kept))
        if left := self._left(answer.read(), found):
            self.until.pause(f"{self.word.path}: {left} in spite of what was sent")
            return None
        return self._told(theirs)

    def _known(self, element: Element, now: str, there: dict[str, object]) -> bool:
        """Whether without the marker, too, something says that the fault put it there. Also what isn't as it was to be,
        where nobody else has written it: an admission makes something else of what is sent."""
        if now == OURS and evident(element, self.word.elements):
            return True
        return now != BEFORE and owning.is_sole(there, naming.manager(self.word.marker), element.path)

    def _note_back(self, looked: Sequence[tuple[Element, str]], *, marked: bool) -> None:
        places = [_place(element) for element, now in looked if now == BEFORE]
        if marked and not self.word.subresource:
            self.before_us += [one for one in places if one not in (*self.before_us, *self.restored)]

    def _told(self, theirs: list[str]) -> Undone:
        others = f"put back by somebody else before: {', '.join(self.before_us)}" if self.before_us else ""
        if theirs:
            back = f"; put back: {', '.join(self.restored)}" if self.restored else ""
            back += f"; {others}" if others else ""
            said = f"{'; '.join(theirs)} by now, neither what the fault left nor what was before: left alone{back}"
            return Undone(SUPERSEDED, f"{self.word.path}: {said}", SERVER)
        if self.restored:
            also = f"; {others}" if others else ""
            return Undone(DONE, f"{self.word.path}: put back: {', '.join(self.restored)}{also}", SERVER)
        if others:
            return Undone(SUPERSEDED, f"{self.word.path}: {others}", SERVER)
        return Undone(SUPERSEDED, f"{self.word.path} is as it was before", SERVER)

    def _unmarked(self, kept: list[str]) -> str:
        return (
            f"{self.word.path}: {'; '.join(kept)}, as the fault leaves it, but nothing says that it is the fault's: "
            f"somebody took the marker away (annotation {self.word.marker}), or wanted it so. Set it to what it should "
            "be; then this is settled"
        )

    def _left(self, there: dict[str, object], restored: Sequence[Element]) -> str:
        """What is left of the fault by the server's own answer; empty when nothing is."""
        for element, now in zip(self.word.elements, states(self.word.elements, there), strict=True):
            if now == OURS or (now == OTHER and element in restored):
                return shown(element, there)
        return "the marker stands" if self.word.marker in under(there, "metadata", "annotations") else ""

    def _send(self, draft: Draft, *, status: bool = False) -> Answer | None:
        """None: look again. Raises Unreachable with what no look will change."""
        path = f"{self.word.path}/{self.word.subresource}" if status else self.word.path
        try:
            answer = call(self.api, self.until, "PATCH", path, draft.ops, content_type=JSON_PATCH)
        except Lost as lost:
            self.until.pause(str(lost))
            return None
        if answer.good:
            return answer
        if answer.status in AGAIN or answer.status in (404, 422):  # gone, or changed meanwhile
            self.until.pause(f"PATCH {path}: {answer.said}", answer.retry_after_s)
            return None
        raise Unreachable(f"PATCH {path}: {answer.said}")

    def _moved_on(self, there: dict[str, object]) -> bool:
        """Move the version that was looked at on: what was sent for it fails from now on. False: it is another one by
        now, or that is not known. Nothing is fenced then, what has come meanwhile least of all: look again."""
        name = naming.fence(self.word.marker)
        draft = Draft(there)
        if name in under(there, "metadata", "annotations"):
            draft.bare(name)
        else:
            draft.annotate(name, "moves the version on")
        if (answer := self._send(draft)) is None:
            return False
        now: dict[str, object] | None = answer.read()
        while now is not None and name in under(now, "metadata", "annotations"):
            draft = Draft(now)
            draft.bare(name)
            answer = self._send(draft)
            now = answer.read() if answer is not None else read(self.api, self.word.path, self.until)
        return True


def _place(element: Element) -> str:
    return ".".join(element.path)


def _delete(api: Api, word: KubeDelete, until: Until, met: list[Found]) -> Undone:
    asked = False
    while True:
        there = read(api, word.path, until)
        met.append(standing.of(word, there))
        if there is None:
            said = f"{word.path} is {'gone' if asked else 'not there'}{_with_edits(met)}"
            return Undone(DONE if asked else SUPERSEDED, said, SERVER)
        if not owning.is_ours(there, word.run):
            said = f"{word.path} carries neither the label {naming.LABEL}={word.run} nor the owner that the run gave it"
            for marker in owning.traces(there, word.run):
                keep = f"`{settled_by(word.path, marker)}`"
                return Undone(FAILED, f"{said}, but its marker: delete it, or make it yours with {keep}")
            return Undone(SUPERSEDED, f"{said}: it is somebody else's", SERVER)
        if asked and text(there, "metadata", "deletionTimestamp"):
            until.pause(being_deleted(word.path, there))
            continue
        asked = True
        delete(api, word.path, there, until, "Foreground" if word.path.startswith(_WITH_PODS) else "Background")


def _with_edits(met: Sequence[Found]) -> str:
    """It was ours to delete, and somebody's wish went with it: they are told what."""
    edited = [said for found in met if found.edited for said in found.changed]
    return f", and with it what somebody had changed in it: {'; '.join(dict.fromkeys(edited))}" if edited else ""


def _end_exec(api: Api, word: KubeEndExec, runs: Runs | None, until: Until) -> Undone:
    pod = f"/api/v1/namespaces/{word.namespace}/pods/{word.pod}"
    ended, refused = False, False
    while True:
        there = read(api, pod, until)
        if there is None or text(there, "metadata", "uid") != word.uid:
            return Undone(SUPERSEDED, f"pod {word.namespace}/{word.pod} is gone, and what ran in it", SERVER)
        if (phase := text(there, "status", "phase")) in ("Succeeded", "Failed"):
            return Undone(SUPERSEDED, f"pod {word.namespace}/{word.pod} has ended: {phase}", SERVER)
        if refused and (why := _down(there, word.container)):
            said = f"container {word.container} of pod {word.namespace}/{word.pod} doesn't run ({why})"
            return Undone(SUPERSEDED, f"{said}: what ran in it is gone", SERVER)
        if runs is None:
            return Undone(FAILED, f"{word.kind}: nobody here can run a program in a pod")
        argv = ("sh", "-c", _END_TAGGED, "stormdrill", word.tag)
        try:
            ran = runs.run(word.namespace, word.pod, word.container, argv, limit_s=max(0.05, min(5.0, until.left_s)))
        except (Lost, Refusal) as error:
            refused = isinstance(error, Refusal)
            until.pause(f"exec in {word.namespace}/{word.pod}: {error}")
            continue
        if ran.code == 0 and ran.out.strip() == b"0":
            detail = "ended" if ended else "not there"
            return Undone(DONE if ended else SUPERSEDED, f"what bears {word.tag} is {detail}", CONTAINER)
        ended, refused = ended or ran.out.strip() == b"1", False
        until.pause(f"exec in {word.namespace}/{word.pod}: what bears {word.tag} is still there (exit code {ran.code})")


def _down(pod: dict[str, object], container: str) -> str:
    """Why that container doesn't run, as its status has it; empty where it does, or nobody says. A status comes late:
    who goes by it has tried to run something there before."""
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        listed = under(pod, "status").get(kind)
        for one in listed if isinstance(listed, list) else ():
            for state in ("waiting", "terminated"):
                if text(one, "name") == container and state in under(one, "state"):
                    return text(one, "state", state, "reason") or state
    return ""
