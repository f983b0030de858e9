"""What a run will do, exactly: the value that `decide`, `judge` and the review rest on. Written as plan.json."""

from __future__ import annotations

from msgspec import Struct

from stormdrill.model.experiment import PHASES, Experiment
from stormdrill.model.mechanism import How
from stormdrill.model.policy import Policy
from stormdrill.model.profile import Profile
from stormdrill.model.system import System


class Injection(Struct, frozen=True):
    """One fault on one instance. Pure data; the target binds `undo` to what is really there when arming."""

    id: str
    """`region-loss/gateway-eu`, unique in the plan."""
    fault: str
    """The fault's word."""
    use: int
    """Index into the experiment's faults."""
    instance: str
    mechanism: str
    """freeze, crash, delay, …: a word that the target implements (`ports.Mechanism`)."""
    undo: str
    """What reverts it in people's words: thaw, start again."""
    start_s: float
    for_s: float
    inject_timeout_s: float = 5.0
    starts_up: bool = False
    """What does it has to be started first: it is in force when its call is answered, and `for_s` counts from then."""
    verify_timeout_s: float = 5.0
    """How long the undo may take to be seen before it is tried again; a fault's 0 means: as long as the system may
    take to get ready, which the plan fills in."""
    how: How | None = None
    """The mechanism's numbers; None for freeze and crash."""
    switches: tuple[str, ...] = ()
    """What it holds in a state of its own: two injections can't hold the same one at the same time, because the
    first undo would end both. `life of gateway-eu`. Toxics stack and hold none."""
    loses: str = ""
    """What no undo brings back, in people's words; empty: nothing."""
    leaves: str = ""
    """What no undo takes away, as a sentence: jobs of the flood that were accepted stay in the system."""

    @property
    def longest_s(self) -> float:
        """From its call to its planned end, at the longest."""
        return self.for_s + (self.inject_timeout_s if self.starts_up else 0.0)


class ClusterAt(Struct, frozen=True):
    """A cluster that a plan is for, as a person knows it; no credentials."""

    name: str
    """In the system file; empty for the only one."""
    context: str
    """Of the kubeconfig; empty: the cluster that the runner is in."""
    server: str
    """The API server's URL, without user and password."""
    namespace: str
    """Where the system's pods are."""

    def __str__(self) -> str:
        by = f"context {self.context}" if self.context else "the cluster that this runs in"
        return f"{f'{self.name}: ' if self.name else ''}{by}, {self.server}, namespace {self.namespace}"


class Plan(Struct, frozen=True):
    experiment: Experiment
    system: System
    target: str
    seed: int
    injections: tuple[Injection, ...]
    duration_s: float
    worst_case: str
    irreversible: tuple[str, ...]
    permissions: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What whoever agrees to it has to know besides."""
    clusters: tuple[ClusterAt, ...] = ()
    """Where it is done; empty on other targets."""
    policy: Policy = Policy()
    profile: Profile | None = None
    files: dict[str, str] = {}
    """What else a run reads, locustfile and runbook → SHA-256."""
    digest: str = ""
    """First 12 hex digits of SHA-256 over all that `core.digest.facts` names."""

    @property
    def fault_s(self) -> float:
        """How long the fault phase is meant to last: from the first inject to the last revert that is planned."""
        if not self.injections:
            return self.experiment.phases.fault_s
        starts = [item.start_s for item in self.injections]
        return max(item.start_s + item.for_s for item in self.injections) - min(starts)

    @property
    def longest_fault_s(self) -> float:
        """How long the fault phase may last if all that has to be started first takes the time that it is given: what
        was to follow such a one waits until that has ended."""
        if not any(item.starts_up for item in self.injections):
            return self.fault_s
        ends: list[tuple[float, float]] = []
        for item in sorted(self.injections, key=lambda one: one.start_s):
            begins_s = max([item.start_s, *(late for planned, late in ends if planned <= item.start_s)])
            ends.append((item.start_s + item.for_s, begins_s + item.longest_s))
        return max(late for _, late in ends) - min(item.start_s for item in self.injections)

    @property
    def longest_s(self) -> float:
        """How long the run may take, the system's start and stop aside; `duration_s` where nothing has to be started
        first."""
        return self.duration_s + self.longest_fault_s - self.fault_s

    def length_s(self, phase: str) -> float:
        """The planned length of a phase; 0 for a name that is none."""
        if phase == "fault":
            return self.fault_s
        return next((self.experiment.phases.of(known) for known in PHASES if known == phase), 0.0)

    def injection(self, id: str) -> Injection:
        for injection in self.injections:
            if injection.id == id:
                return injection
        raise KeyError(id)
