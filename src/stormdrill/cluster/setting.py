"""What a hold sets up in a cluster besides Lease and ledger: watchdog and anchors; and what others have left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from stormdrill.cluster import job, mended, naming, objects
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import AGAIN, Until, call, read, text, under
from stormdrill.cluster.ledger import CLOSED, CONFIGMAPS, REVERTING, Book, Ledger, book
from stormdrill.errors import Refused, Unreachable

LIMIT_S = 10.0
LOOK_S = 0.2
PAGE = "500"


@dataclass(frozen=True, slots=True)
class Setting:
    api: Api
    ledger: Ledger
    system: str
    account: str
    image: str
    wanted: job.Wanted
    namespaces: tuple[str, ...]
    tell: Callable[[str], None]

    @property
    def jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.ledger.suite}/jobs"

    @property
    def job(self) -> str:
        return f"{self.jobs}/{naming.watchdog(self.ledger.run)}"

    def unfinished(self) -> None:
        """Other runs on this system whose ledger isn't closed: their runners are gone, for the Lease is ours. What
        never armed anything is cleared away. Raises Refused naming one that has."""
        for other in books(self.api, self.ledger.suite, Until(LIMIT_S), self.system):
            if other.state == CLOSED or other.run == self.ledger.run:
                continue
            if not other.about:
                raise Refused(
                    f"run {other.run} on this system: somebody has edited its ledger, so that nobody knows what it had "
                    f"armed; look for what carries its marker, then `stormdrill recover {other.run}` closes it"
                )
            if other.left or other.unreadable:
                raise Refused(
                    f"run {other.run} on this system has not ended in this cluster: "
                    f"{len(other.left)} injections are still to be reverted; its watchdog is doing that, or "
                    f"`stormdrill recover {other.run}` does"
                )
            self._clear(other)

    def watchdog(self, within_s: float, trouble: Callable[[], str]) -> None:
        """Make the Job and wait until it says that it watches. Raises Refused with what its pod says."""
        ledger = self.ledger
        self.make(Until(LIMIT_S))
        end_s = time.monotonic() + within_s
        while True:
            if why := trouble():
                raise Unreachable(f"while waiting for the watchdog: {why}")
            there = ledger.read(Until(LIMIT_S))
            said = there.watchdog if there else {}
            if said.get("ready") is True:
                return
            if isinstance(lacks := said.get("missing"), list) and lacks:
                raise Refused(
                    f"the watchdog (ServiceAccount {ledger.suite}/{self.account}) may not "
                    f"{'; '.join(map(str, lacks))}; "
                    "`stormdrill plan --rbac` prints what it needs"
                )
            pods = self._pods()
            waits, hopeless = job.why_waiting(pods)
            if self.wanted.priority and not pods:
                waits += f"; is there a PriorityClass {self.wanted.priority}?"
            if hopeless or time.monotonic() > end_s:
                after = "" if hopeless else f" within {within_s:g} s"
                raise Refused(f"the watchdog ({self.image}) did not begin{after}: {waits}")
            time.sleep(LOOK_S)

    def make(self, until: Until) -> None:
        """The watchdog's Job. Raises Refused, Unreachable."""
        run, suite = self.ledger.run, self.ledger.suite
        manifest = job.manifest(run, suite, self.account, self.image, self.wanted)
        objects.create(self.api, self.jobs, manifest, until)

    def waits(self) -> str:
        """Why its pod has not begun. Raises Unreachable."""
        return job.why_waiting(self._pods())[0]

    def anchors(self) -> dict[str, str]:
        """Their paths and uids. Raises Refused where a namespace doesn't take one."""
        run, made = self.ledger.run, dict[str, str]()
        for namespace in self.namespaces:
            anchor = objects.create(
                self.api, CONFIGMAPS.format(namespace), objects.anchor(run, namespace), Until(LIMIT_S)
            )
            made[objects.anchor_path(run, namespace)] = text(anchor, "metadata", "uid")
        return made

    def end_watchdog(self, within_s: float) -> None:
        """Given that the ledger is closed: wait for its end, then remove the Job. Raises Unreachable."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            there = read(self.api, self.job, Until(LIMIT_S))
            if there is None or under(there, "status").get("succeeded") or not under(there, "status").get("active"):
                break
            time.sleep(LOOK_S)
        objects.remove(self.api, self.job, self.ledger.run, Until(LIMIT_S))

    def _pods(self) -> list[dict[str, object]]:
        selector = f"{naming.LABEL}={self.ledger.run},{naming.PART}=watchdog"
        path = f"/api/v1/namespaces/{self.ledger.suite}/pods?{urlencode({'labelSelector': selector})}"
        items = under(read(self.api, path, Until(LIMIT_S))).get("items")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def _clear(self, other: Book) -> None:
        run, suite = other.run, self.ledger.suite
        known = "everything of it is reverted" if other.armed else "it had armed nothing"
        self.tell(f"clearing away what run {run} left: {known}")
        ledger = Ledger(self.api, suite, run)
        why = f"cleared away by run {self.ledger.run}"
        ledger.turn(REVERTING, why)  # not closed yet: an anchor that stays is its watchdog's, or the next run's
        listed = other.about.get("namespaces")
        for namespace in listed if isinstance(listed, list) else []:
            if namespace != suite:
                self._unanchor(run, str(namespace))
        ledger.turn(CLOSED, why)
        objects.remove(self.api, f"{self.jobs}/{naming.watchdog(run)}", run, Until(LIMIT_S))
        if said := mended.keep(self.api, suite, other, f"run {self.ledger.run}", Until(LIMIT_S)):
            self.tell(said)
        ledger.remove()

    def _unanchor(self, run: str, namespace: str) -> None:
        try:
            objects.remove_anchor(self.api, run, namespace, Until(LIMIT_S))
        except Unreachable as error:
            raise Unreachable(
                f"run {run} on this system is not over before its anchor is gone: {error}; "
                f"`stormdrill recover {run}` goes on with it"
            ) from error


def books(api: Api, suite: str, until: Until, system: str = "") -> list[Book]:
    """All ledgers there are, of one system or of all. Raises Unreachable."""
    selector = f"{naming.PART}=ledger" + (f",{naming.SYSTEM}={naming.label(system)}" if system else "")
    found: list[Book] = []
    token = ""
    while True:
        query = {"labelSelector": selector, "limit": PAGE} | ({"continue": token} if token else {})
        try:
            answer = call(api, until, "GET", CONFIGMAPS.format(suite), query=query)
        except Lost as lost:
            until.pause(str(lost))
            continue
        if answer.good:
            page = answer.read()
            items = page.get("items")
            found += [book(item) for item in items if isinstance(item, dict)] if isinstance(items, list) else []
            if not (token := text(page, "metadata", "continue")):
                return found
        elif answer.status == 410:
            found, token = [], ""
            until.pause(answer.said, answer.retry_after_s)
        elif answer.status in AGAIN:
            until.pause(answer.said, answer.retry_after_s)
        else:
            raise Unreachable(f"the ledgers in namespace {suite} can't be listed: {answer.said}")
