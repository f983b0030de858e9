"""A run on clusters beyond finding its system: what it takes, whether it is allowed, what is held, how that stands."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from msgspec.structs import replace

from stormdrill.cluster import naming, rights
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.exec import Exec
from stormdrill.cluster.hold import READY_S, Hold
from stormdrill.cluster.job import Wanted
from stormdrill.core.reach import on_nodes
from stormdrill.errors import KeeperGone, Problem, Refused, StormdrillError, SystemNotReady, Unreachable
from stormdrill.keeper.client import KeeperClient
from stormdrill.model.event import ClusterHeld, Warned
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.ports import Contact, Keeper
from stormdrill.targets.kubernetes import preflight
from stormdrill.targets.kubernetes.clusters import LiveClusters, named
from stormdrill.targets.kubernetes.holders import occupied
from stormdrill.targets.kubernetes.keeping import ClusterKeeper, HeldHands
from stormdrill.targets.kubernetes.mechanism import Changing, needs_of_undo
from stormdrill.targets.kubernetes.neighbours import others
from stormdrill.targets.kubernetes.rbac import normal
from stormdrill.targets.kubernetes.reach import Reach

MARGIN_S = 600.0
"""Beyond twice what is planned: after that the watchdog ends what a runner still holds."""
LOST_SHARE = 0.6
"""Of the Lease's time without a renewal, from which on the API server counts as lost. It is renewed each quarter."""
LOOK = f"it takes the right to look at what is harmed, and an answer; {preflight.PRINTS}"
LOOK_S = 0.1
STOPPED = "stopped by a person"
HELD = "to hold the cluster for the run: Lease, ledger, watchdog"
WATCHED = "for the watchdog to revert what the runner can't"


class Drilling:
    """What the runner does in the clusters of one plan, besides its mechanisms."""

    def __init__(
        self,
        clusters: LiveClusters,
        mechanisms: Mapping[str, Changing],
        injections: Sequence[Injection],
        *,
        also: Callable[[str], Sequence[Need]] = lambda _: (),
        off: Callable[[str], Sequence[str]] = lambda _: (),
        shunned: Callable[[str], Sequence[str]] = lambda _: (),
        lasts_s: float = 0.0,
        ready_s: float = 0.0,
    ) -> None:
        """`also`: what else is needed in the cluster of that name, for load. `off`: nodes of that cluster on which
        nothing of the suite's own would run; `shunned`: those that others keep pods off. `ready_s`: so long pods may
        take there to be ready."""
        self.clusters, self.mechanisms, self.injections = clusters, mechanisms, injections
        self._stopping: Callable[[], str] = str
        """Why the run is being stopped; empty, as here, while nobody does."""
        self._also, self._off, self._shunned = also, off, shunned
        self._lasts_s, self._ready_s = lasts_s, ready_s

    @property
    def lease(self) -> str:
        return naming.lease(self.clusters.system)

    # --- what it takes ---------------------------------------------------------------------------------------

    def needs(self, *, outside: bool | None = None) -> tuple[Need, ...]:
        """Everything: what the plan has read, harm, revert, watchdog, load. `outside`: the run is no pod of it. Raises
        Refused where that takes a look that isn't allowed, or isn't answered."""
        outside = not self.clusters.inside if outside is None else outside
        try:
            harm = self.of_injections()
        except Unreachable as error:
            raise Refused([Problem("", 0, 0, f"what the drill takes can't be found out: {error}", LOOK)]) from error
        found = [*self.clusters.read(), *harm]
        for cluster in self.clusters.names:
            found += self._held(cluster, harm)
            found += self._also(cluster)
            if outside:
                found += Reach.needs(self.clusters.spec.namespace, cluster)
        return tuple(dict.fromkeys(found))

    def of_injections(self) -> list[Need]:
        return [need for injection, mechanism in self._harm() for need in mechanism.needs(injection)]

    def of_undos(self, cluster: str) -> list[Need]:
        """What the watchdog takes to undo what is planned there."""
        words = [word for injection, mechanism in self._harm() for word in mechanism.words(injection)]
        mine = [word for word in words if word.cluster == cluster]
        return list(dict.fromkeys(need for word in mine for need in needs_of_undo(word, WATCHED)))

    def anchored(self, cluster: str, harm: Sequence[Need]) -> tuple[str, ...]:
        """The namespaces in which objects are made."""
        mine = [need for need in harm if need.cluster == cluster and need.verb == "create"]
        made = {need.namespace for need in mine if not need.subresource}  # an eviction makes nothing
        return tuple(sorted(made - {"", self.clusters.spec.suite}))

    def _held(self, cluster: str, harm: Sequence[Need]) -> list[Need]:
        spec = self.clusters.spec
        namespaces = self.anchored(cluster, harm)
        runner = rights.of_runner(spec.suite, self.lease, namespaces)
        watchdog = rights.of_watchdog(spec.suite, self.lease, namespaces)
        found = [_need(right, cluster, HELD) for right in runner]
        found += [_need(right, cluster, WATCHED) for right in watchdog if right not in runner]
        seen = "to see that the watchdog can run"
        found.append(Need("get", "", "serviceaccounts", spec.suite, spec.account, cluster=cluster, why=seen))
        told = {replace(need, why="") for need in harm}  # who harms it may undo it: said once
        return [*found, *(need for need in self.of_undos(cluster) if replace(need, why="") not in told)]

    # --- before anything is touched --------------------------------------------------------------------------

    def check(self) -> None:
        """Raises Refused with all that can be known to fail. Changes nothing."""
        problems: list[Problem] = []
        if not self.clusters.spec.image.name:
            what = "the kubernetes section names no image for what the suite runs there, its watchdog first of all"
            problems.append(Problem(self._where, 0, 0, what, "write image: {name: REGISTRY/stormdrill:TAG}"))
        preflight.refuse(self._others())  # while they harm it, what this run would take isn't known
        needs = self.needs()
        for cluster in self.clusters.names:
            try:
                problems += preflight.here(cluster, self._check_cluster(cluster, needs))
            except Lost as lost:
                problems.append(Problem("", 0, 0, f"{named(cluster)} does not answer: {lost}", "nothing was touched"))
        if not problems:
            problems += self._dry_runs()
        preflight.refuse(problems)

    def explained(self, refused: Refused) -> Refused:
        """With who is at it, where a run on this system is open: what it harms can't be found whole."""
        return Refused([*self._others(), *refused.problems])

    def _others(self) -> list[Problem]:
        """Who drills this system now, or has left something in force. As far as that can be read."""
        found = []
        for cluster in self.clusters.names:
            with contextlib.suppress(StormdrillError):
                found += occupied(self.clusters.api(cluster), self.clusters, cluster)
        return found

    def _check_cluster(self, cluster: str, needs: Sequence[Need]) -> list[Problem]:
        api, spec = self.clusters.api(cluster), self.clusters.spec
        problems = preflight.not_allowed(api, [need for need in needs if need.cluster == cluster])
        if not (missing := _account_missing(api, spec.suite, spec.account)):
            account = preflight.Asker(f"{spec.suite}/{spec.account}")
            harm = self.of_injections()
            watchdog = rights.of_watchdog(spec.suite, self.lease, self.anchored(cluster, harm))
            of_account = [*(_need(right, cluster, WATCHED) for right in watchdog), *self.of_undos(cluster)]
            if not preflight.not_allowed(api, [preflight.MAY_ASK]):  # else the watchdog does, before the first fault
                problems += preflight.not_allowed(api, of_account, account)
        return [*problems, *missing]

    # --- while it lasts --------------------------------------------------------------------------------------

    def open(self, keeper: Keeper) -> None:
        """Lease, ledger, watchdog and anchors in every cluster. Raises Refused, and SystemNotReady where one doesn't
        answer; nothing is left behind then."""
        harm = self.of_injections()
        for cluster in self.clusters.names:
            held = self._hold(cluster, harm, keeper)
            try:
                with self._unless_stopped(held):
                    held.open()
            except Unreachable as error:
                raise SystemNotReady(f"{named(cluster)} could not be held for the run: {error}") from error
            self.clusters.holds[cluster] = held
            names, spec = held.names, self.clusters.spec
            keeper.record(
                ClusterHeld(cluster, spec.suite, names["ledger"], names["lease"], names["watchdog"], spec.lease_s)
            )

    @contextlib.contextmanager
    def _unless_stopped(self, held: Hold) -> Iterator[None]:
        """A watchdog's pod may take long to begin: who stops the run doesn't wait for it."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(LOOK_S):
                if why := self._stopping():
                    held.abandon(why)
                    return

        thread = threading.Thread(target=look, name="stopping", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def contacts(self) -> Sequence[Contact]:
        """How the run stands in each cluster; asks nobody."""
        return [_contact(cluster, held) for cluster, held in list(self.clusters.holds.items())]

    def contacts_now(self) -> Sequence[Contact]:
        """The same after a look at each of them, side by side."""
        holds = list(self.clusters.holds.values())
        with ThreadPoolExecutor(max_workers=max(1, len(holds))) as pool:
            list(pool.map(Hold.trouble_now, holds))
        return self.contacts()

    def keeping(
        self, client: KeeperClient, stopping: Callable[[], str], redact: Callable[[str], None]
    ) -> ClusterKeeper:
        self._stopping = stopping

        def tell(name: str, value: str) -> None:
            redact(value)  # this process writes too, and goes on with the journal when the keeper is gone
            with contextlib.suppress(KeeperGone):
                client.secret(name, value)

        self.clusters.hide(tell)  # before the first line that could hold one
        return ClusterKeeper(client, lambda: self.clusters.holds)

    def hands(self) -> HeldHands:
        return HeldHands(lambda: self.clusters.holds)

    def _hold(self, cluster: str, harm: Sequence[Need], keeper: Keeper) -> Hold:
        api, spec = self.clusters.api(cluster), self.clusters.spec
        nodes = (name for where, name in on_nodes(self.injections, crowded=True) if where == cluster)
        wanted = Wanted(
            pull=spec.image.pull,
            pull_secret=spec.image.pull_secret,
            keep_off=sorted({*self._off(cluster), *nodes}),
            rather_not=self._shunned(cluster),
            nodes=spec.image.nodes,
            priority=spec.priority_class,
        )
        return Hold(
            api,
            run=self.clusters.run,
            system=self.clusters.system,
            image=spec.image.name,
            suite=spec.suite,
            account=spec.account,
            lease_s=spec.lease_s,
            wanted=wanted,
            longest_s=2 * self._lasts_s + MARGIN_S,
            namespaces=self.anchored(cluster, harm),
            drills=(spec.namespace,),
            beside=others(self.injections, cluster),
            needs=[_right(need) for need in self.of_undos(cluster)],
            tell=lambda text: _note(keeper, f"{named(cluster)}: {text}"),
            runs=Exec(api),
            ready_s=max(READY_S, self._ready_s),
        )

    # --- small things ----------------------------------------------------------------------------------------

    def _dry_runs(self) -> list[Problem]:
        """Every mutation, as the server would take it."""
        try:
            found = preflight.at_once([partial(_dry_run, *one) for one in self._harm()])
        except Lost as lost:
            what = f"not every change could be tried as a dry run: {lost}"
            return [Problem("", 0, 0, what, "nothing was touched; try again, or hit fewer at a time")]
        return [problem for problems in found for problem in problems]

    def _harm(self) -> Iterator[tuple[Injection, Changing]]:
        """Each injection with what does it."""
        for injection in self.injections:
            if (mechanism := self.mechanisms.get(injection.mechanism)) is not None:
                yield injection, mechanism

    @property
    def _where(self) -> str:
        return f"system {self.clusters.system}"


def _dry_run(injection: Injection, mechanism: Changing) -> list[Problem]:
    try:
        told = list(mechanism.dry_run(injection))
    except (Unreachable, Refused) as error:
        told = [str(error)]
    return [Problem(injection.id, 0, 0, text, "nothing was touched") for text in told]


def _contact(cluster: str, held: Hold) -> Contact:
    over = held.trouble()
    late = held.silent_s > held.lease_s * LOST_SHARE
    lost = f"the Lease was renewed {held.silent_s:.1f} s ago" if late else ""
    if held.well_s is not None:
        return Contact(cluster, lost, over, "deleted", held.well_s * 1000)
    return Contact(cluster, lost, over, "person" if over.startswith(STOPPED) else "cluster")


def _note(keeper: Keeper, text: str) -> None:
    with contextlib.suppress(StormdrillError):  # the conductor hears of a keeper that is gone by itself
        keeper.record(Warned(text))


def _account_missing(api: Api, suite: str, account: str) -> list[Problem]:
    answer = api.call("GET", f"/api/v1/namespaces/{suite}/serviceaccounts/{account}")
    if answer.status != 404:
        return []
    what = f"there is no ServiceAccount {account} in namespace {suite}, under which the watchdog runs"
    return [Problem("", 0, 0, what, "stormdrill plan EXPERIMENT --rbac | kubectl apply -f -")]


def _need(right: rights.Right, cluster: str, why: str) -> Need:
    return Need(right.verb, right.group, right.resource, right.namespace, right.name, right.subresource, cluster, why)


def _right(need: Need) -> rights.Right:
    need = normal(need)
    return rights.Right(need.verb, need.group, need.resource, need.namespace, need.name, need.subresource)
