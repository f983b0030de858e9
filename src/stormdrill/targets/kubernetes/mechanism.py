"""What the mechanisms of a cluster share: from the changes that one describes follow apply, undo, dry run and needs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from stormdrill.cluster import elements, naming
from stormdrill.cluster.api import Answer, Api, Lost
from stormdrill.cluster.asking import Until, patient, read
from stormdrill.cluster.changes import Change
from stormdrill.cluster.changing import dry_run
from stormdrill.cluster.owning import is_ours, traces
from stormdrill.cluster.standing import NOTES
from stormdrill.cluster.strangers import Others
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.permission import Need, to_stream
from stormdrill.model.plan import Injection
from stormdrill.model.undo import InCluster, KubeEndExec, KubePatch, Undo
from stormdrill.ports import Effect

API_SERVER = "the API server"
PREFIX = naming.PREFIX
OPTED_IN = naming.OPTED_IN
LOOK_EVERY_S = 0.1
"""The engine asks again and again; an API server is asked no more often than this."""
SHARE_OF_LIMIT = 0.8
"""Of an injection's own limit: what outlives that one is doubtful, and reverted."""
ARMING_S = 3.0
"""How long an object is asked for that is about to be harmed, or is planned with, where the API server has trouble."""
PAGE = 500
Object = dict[str, object]


class Applies(Protocol):
    """Carries changes out; refuses once the run may change nothing any more (`cluster.hold.Hold`)."""

    def apply(self, injection: str, change: Change) -> None:
        """Raises Unreachable when it can't be said to be in force."""
        ...

    def check(self, injection: str) -> None:
        """Raises Unreachable when nothing may be done for it any more."""
        ...

    def step(self, injection: str) -> AbstractContextManager[None]:
        """Around one request that is no change of an object (eviction): asks the same, and a revert waits for it."""
        ...

    def over_for(self, injection: str) -> str:
        """Why nothing will be done for it any more, as far as is known here; asks nobody. Empty while it may be."""
        ...


class Clusters(Protocol):
    """The clusters of a system, by their names in its file; the empty name is the only one's."""

    run: str

    @property
    def suite(self) -> str:
        """The suite's own namespace, where ledgers are."""
        ...

    def api(self, cluster: str) -> Api: ...
    def hold(self, cluster: str) -> Applies:
        """There is one once the run has begun."""
        ...


class Place(NamedTuple):
    """What a path of the API names."""

    group: str
    resource: str
    namespace: str
    name: str

    @classmethod
    def of(cls, path: str) -> Place:
        """`/apis/apps/v1/namespaces/shop/deployments/web`, `/api/v1/nodes/n1`, without a subresource."""
        parts = path.strip("/").split("/")
        group, parts = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = parts[1] if parts[0] == "namespaces" and len(parts) > 2 else ""
        resource, *name = parts[2:] if namespace else parts
        return cls(group, resource, namespace, name[0] if name else "")

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{where}{self.resource}/{self.name}"


@dataclass(slots=True)
class Left:
    """What a look found of the changes of one injection."""

    marked: list[str] = field(default_factory=list)
    """Objects that carry its marker or, created by it, are there."""
    standing: list[str] = field(default_factory=list)
    """Elements that are what the fault left."""
    others: list[str] = field(default_factory=list)
    """Elements that are neither that nor what was there before: somebody else's by now."""
    absent: list[str] = field(default_factory=list)
    """Objects that are there no more, or under another uid."""

    @property
    def gone(self) -> bool:
        return not (self.marked or self.standing)

    @property
    def said(self) -> str:
        told = [f"{text}, as the fault left it" for text in self.standing]
        told += [f"{text} carries its marker" for text in self.marked if not self.standing]
        told += [f"{text}, as somebody else left it" for text in self.others]
        told += [f"{text} is there no more" for text in self.absent]
        return "; ".join(told)


class Changing:
    """Base of the mechanisms (`ports.Mechanism`). A word describes its `changes` and its `look`; the rest follows from
    them, also what is asked before anything is touched: `needs`, `dry_run`, `notes`."""

    permission = "change objects of the cluster through its API server"
    inject_timeout_s = 0.0
    """The least that it takes; a plan may give it more."""
    starts_up = False
    """Whether pods of ours have to be started before it is in force, which its call waits for."""
    stands = False
    """Whether what it changes stays until the revert unless somebody takes it away: nothing of it ends by itself."""

    def __init__(self, clusters: Clusters) -> None:
        self.clusters = clusters
        self.until_s: dict[str, float] = {}
        """Injection → when `after` has to be done with it, on the monotonic clock."""
        self._bound: dict[str, tuple[Change, ...]] = {}
        self._looks: dict[str, tuple[float, Effect]] = {}
        self._looking = threading.Lock()
        self._observing = threading.local()

    # What a word says of itself

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        """What would be done now, bound to what is there; reads only. Raises Unreachable with what to do about it."""
        raise NotImplementedError

    def look(self, injection: Injection, left: Left) -> Effect:
        """Bit: a witness other than the patch saw it (pods gone, endpoints changed). Gone: no cause of ours is left.

        Called only while `left` isn't gone, or where more than the changes has to go (`lingers`)."""
        raise NotImplementedError

    def touches(self, injection: Injection) -> tuple[Change, ...]:
        """Changes as far as permissions need them: their paths. Reads nothing, where the plan names the objects."""
        return self.changes(injection)

    def words(self, injection: Injection) -> tuple[InCluster, ...]:
        """The undos as far as they are planned: what is to be undone where. For what the watchdog must be allowed."""
        return tuple(change.undo for change in self.touches(injection))

    def also(self, injection: Injection) -> tuple[Need, ...]:
        """What it takes beyond its changes and their undo: reads, evictions, exec."""
        return ()

    def bound(self, injection: Injection) -> None:
        """Called when it was armed: the time to remember who is there, for `look`."""

    def after(self, injection: Injection) -> None:
        """What follows the changes and has no undo: evictions. Bounded; called once, after they were applied. What goes
        on behind it ends by itself, once the hold says that it is over for this injection."""

    def lingers(self, injection: Injection) -> str:
        """What of the harm is still there once the changes are undone, and has to go too: pods of a bad release."""
        return ""

    def came_to(self, injection: Injection) -> str:
        """What it came to, for the record, once it is seen to be gone. Reads only."""
        return ""

    def refusal(self, injection: Injection) -> str:
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        """What the plan has to say aloud of it, as sentences. Reads only."""
        return ()

    # What follows

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        """The live objects are read once; what is found is what will be applied, and what is undone."""
        changes = self.changes(injection)
        self._bound[injection.id] = changes
        self.bound(injection)
        return tuple(change.undo for change in changes)

    def apply(self, injection: Injection) -> None:
        if injection.id not in self._bound:
            raise Unreachable(f"{injection.id} was never armed: nothing was changed")
        self.until_s[injection.id] = time.monotonic() + SHARE_OF_LIMIT * injection.inject_timeout_s
        self._looks.pop(injection.id, None)
        for change in self._bound[injection.id]:
            self.clusters.hold(change.undo.cluster).apply(injection.id, change)
        self._looks.pop(injection.id, None)
        self.after(injection)

    def dry_run(self, injection: Injection) -> tuple[str, ...]:
        """What the API server would not take, in people's words; nothing is changed. Raises Unreachable."""
        told = []
        for change in self.changes(injection):
            try:
                api = self.clusters.api(change.undo.cluster)
                others = Others(api, self.clusters.suite)
                dry_run(api, change, self.clusters.run, injection.id, others=others)
            except Refused as refused:
                told.append(f"{Place.of(change.undo.path)}: {refused}")
        return tuple(told)

    def needs(self, injection: Injection) -> tuple[Need, ...]:
        """All that it takes: its changes, their undo, and what it reads or asks for besides."""
        changes = self._bound.get(injection.id) or self.touches(injection)
        found = [need for change in changes for need in needs_of(change)]
        return tuple(dict.fromkeys([*found, *self.also(injection)]))

    def observe(self, injection: Injection) -> Effect:
        with self._looking:
            at_s, last = self._looks.get(injection.id, (0.0, None))
        if last is not None and time.monotonic() - at_s < LOOK_EVERY_S:
            return last
        self._observing.now = True
        try:
            seen = self._seen(injection)
        except Unreachable as error:
            seen = Effect(False, False, "nobody", str(error))
        finally:
            self._observing.now = False
        with self._looking:
            self._looks[injection.id] = (time.monotonic(), seen)
        return seen

    def _seen(self, injection: Injection) -> Effect:
        left = self.in_force(injection)
        if not left.gone:
            return self.look(injection, left)
        if lingering := self.lingers(injection):
            return Effect(False, False, API_SERVER, lingering)
        said = left.said or "nothing of it is left"
        return Effect(False, True, API_SERVER, said, came_to=self.came_to(injection))

    def in_force(self, injection: Injection) -> Left:
        """What is seen of the changes now: markers and elements on the objects themselves. Raises Unreachable."""
        left = Left()
        for change in self._bound.get(injection.id, ()):
            undo = change.undo
            found = self.get(undo.cluster, undo.path)
            named = str(Place.of(undo.path))
            if found is None:
                left.absent.append(named)
            elif isinstance(undo, KubePatch):
                _look_at(left, named, undo, found)
            elif is_ours(found, undo.run) or traces(found, undo.run):
                left.marked.append(named)
            else:
                left.others.append(named)
        return left

    def applied(self, injection: Injection) -> tuple[Change, ...]:
        """What it was armed with; empty before."""
        return self._bound.get(injection.id, ())

    # Reading

    def get(self, cluster: str, path: str) -> Object | None:
        """None: it isn't there. Raises Unreachable."""
        answer = self.ask(cluster, "GET", path)
        if answer.status == 404:
            return None
        if not answer.good:
            raise Unreachable(f"GET {path}: {answer.said}")
        return answer.read()

    def items(self, cluster: str, path: str, **query: str) -> Iterator[Object]:
        """All objects of a list, page by page; begun anew where a page came too late. Raises Unreachable."""
        pages, anew = {**query, "limit": str(PAGE)}, True
        found: list[Object] = []
        while True:
            answer = self.ask(cluster, "GET", path, query=pages)
            if answer.status == 410 and anew:
                pages, anew, found = {**query, "limit": str(PAGE)}, False, []
                continue
            if not answer.good:
                raise Unreachable(f"GET {path}: {answer.said}")
            page = answer.read()
            found += objects(page.get("items"))
            going_on = at(page, "metadata", "continue")
            if not going_on:
                return iter(found)
            pages["continue"] = str(going_on)

    def ask(
        self, cluster: str, method: str, path: str, body: object = None, *, query: Mapping[str, str] | None = None
    ) -> Answer:
        """One request; what only reads is asked again while the server is busy, except by looks, which come again by
        themselves. Raises Unreachable when there is no complete answer."""

        def once() -> Answer:
            return self.clusters.api(cluster).call(method, path, body, query=query)

        try:
            if method != "GET" or getattr(self._observing, "now", False):
                return once()
            return patient(Until(ARMING_S), once)
        except Lost as lost:
            raise Unreachable(str(lost)) from lost

    def marker(self, injection: Injection) -> str:
        return naming.marker(self.clusters.run, injection.id)

    def fresh(self, injection: Injection, path: str, cluster: str) -> Object:
        """The object as it is before the fault. Raises Unreachable where it isn't there, is being deleted, or carries
        this injection's marker: what would be read as the value before is the harmed one."""
        found = read(self.clusters.api(cluster), path, Until(ARMING_S))
        named = Place.of(path)
        if found is None:
            raise Unreachable(f"{named} is not there: nothing was changed")
        if at(found, "metadata", "deletionTimestamp"):
            raise Unreachable(f"{named} is being deleted: nothing was changed")
        if self.marker(injection) in texts(at(found, "metadata", "annotations")):
            raise Unreachable(f"{named} is harmed by {injection.id} already; revert that first: stormdrill recover")
        return found


def needs_of_undo(word: InCluster, why: str = "") -> tuple[Need, ...]:
    """What carrying an undo out takes, whoever does."""
    if not isinstance(word, KubeEndExec):
        return tuple(need for need in needs_of(Change(word, why=why)) if need.verb != "create")
    # by namespace: the pod is bound when it is armed, and may be another one by then
    where, inside = word.namespace, why or "to end what was started in a container"
    return (
        Need("get", "", "pods", where, "", "", word.cluster, inside),
        *to_stream("exec", where, cluster=word.cluster, why=inside),
    )


def needs_of(change: Change) -> tuple[Need, ...]:
    """What applying it takes, looking at it, and undoing it."""
    undo, why = change.undo, change.why
    place = Place.of(undo.path)

    def need(verb: str, name: str = place.name, subresource: str = "") -> Need:
        return Need(verb, place.group, place.resource, place.namespace, name, subresource, undo.cluster, why)

    if not isinstance(undo, KubePatch):
        return need("get"), need("create", name=""), need("delete")
    found = [need("get"), need("patch")]
    if undo.subresource:
        found.append(need("patch", subresource=undo.subresource))
    return tuple(found)


def _look_at(left: Left, named: str, undo: KubePatch, found: Object) -> None:
    if at(found, "metadata", "uid") != undo.uid:
        # under another uid it may still be a copy that was taken while the fault was in force
        left.absent.append(named)
    marked = undo.marker in texts(at(found, "metadata", "annotations"))
    if marked:
        left.marked.append(named)
    for element, state in zip(undo.elements, elements.states(undo.elements, found), strict=True):
        shown = f"{elements.shown(element, found)} on {named}"
        if element.path[:2] == NOTES:  # no part of the harm
            continue
        if state == elements.OURS and element.ours != element.before:
            left.standing.append(shown)
        elif state == elements.OTHER:
            left.others.append(shown)


def rolled_back(name: str) -> str:
    """What a plan has to say of a Deployment whose annotations `kubectl` replaces."""
    return (
        f"`kubectl rollout undo` of {name} meanwhile takes the fault's marker away: what is left of the fault is then "
        "put back only where the API server's account of who wrote it shows it to be the fault's"
    )


def text(value: object) -> str:
    """As elements hold values: JSON, always written in the same way."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def at(found: object, *path: str) -> object:
    """What stands there; None when nothing does."""
    for name in path:
        if isinstance(found, list):
            found = found[int(name)] if name.isdigit() and int(name) < len(found) else None
        else:
            found = found.get(name) if isinstance(found, dict) else None
    return found


def objects(found: object) -> Sequence[Object]:
    """The objects of what should be a list of them."""
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def texts(found: object) -> Mapping[str, str]:
    """Labels, annotations: what should be texts by their names."""
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def says_ready(pod: object) -> bool:
    """Whether the pod's own condition says so; one that is being ended may still."""
    conditions = objects(at(pod, "status", "conditions"))
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def number(found: object) -> int:
    """A counter of a status, which is left out where it is 0."""
    return found if isinstance(found, int) else 0
