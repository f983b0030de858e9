"""The protocols between the engine and the world. Engine and review know faults, targets, probes, load and
notify through these only; `api` picks the concrete parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from stormdrill.model.experiment import FaultUse
from stormdrill.model.expression import Expression
from stormdrill.model.world import Hop as Hop
from stormdrill.model.world import Instance as Instance
from stormdrill.model.world import Workload as Workload
from stormdrill.model.world import World as World

if TYPE_CHECKING:
    from stormdrill.model.event import Event, LoadStarted
    from stormdrill.model.event import Spawned as Spawned
    from stormdrill.model.plan import Injection
    from stormdrill.model.system import MetricSource
    from stormdrill.model.undo import Undo
else:

    def __getattr__(name: str) -> object:
        """`Spawned` stands where the keeper can see it. Defining all events costs 18 ms, which `validate` spares."""
        if name == "Spawned":
            from stormdrill.model.event import Spawned

            return Spawned
        raise AttributeError(name)


Life = Literal["running", "frozen", "gone", "unknown"]


class Effect(Struct, frozen=True):
    """What a witness other than the injecting call saw, just now."""

    bit: bool
    gone: bool
    witness: str
    detail: str
    at_ms: float = 0.0
    """When the witness saw it, where that was before this look; monotonic."""
    readings: tuple[tuple[str, dict[str, str], float], ...] = ()
    """What it measured by looking: name, labels, value. Written down as readings of the instance."""
    came_to: str = ""
    """What it had come to, once it is gone, where that may be less than was asked for; as a sentence."""


class Mechanism(Protocol):
    """One way to do harm, as one target does it. Every call is bounded; none sleeps, retries or keeps time."""

    @property
    def permission(self) -> str:
        """What it takes to be allowed this here, in people's words."""

    def refusal(self, injection: Injection) -> str:
        """Why this can't be done here, and what would help; empty when it can. Pure but for looking at the machine."""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        """Bound to what is really there now. Nothing is harmed yet."""
        ...

    def apply(self, injection: Injection) -> None: ...

    def observe(self, injection: Injection) -> Effect:
        """What a witness other than the call sees now: has it bitten, is it gone."""
        ...


@runtime_checkable
class Mechanisms(Protocol):
    """Capability: the target's ways to do harm, by their word. What isn't there is refused when planning."""

    @property
    def permission(self) -> str:
        """What it takes to run a system there at all."""
        ...

    @property
    def mechanisms(self) -> Mapping[str, Mechanism]: ...


@runtime_checkable
class Binds(Protocol):
    """Capability: a target whose units of harm aren't instances. What faults ask for is bound to what is there."""

    def bind(self, asked: Sequence[Injection]) -> tuple[Injection, ...]:
        """What will be done for them, with whom it reaches (`how.reaches`). Raises Refused with every problem."""
        ...

    def aloud(self, bound: Sequence[Injection]) -> tuple[str, ...]:
        """What whoever agrees to the plan has to know besides, as sentences."""
        ...


class Stood(Struct, frozen=True):
    """How what an injection put in force stands, while nobody has reverted it."""

    gone: bool
    """Nothing of it is in force any more, as far as anybody knows."""
    changed: str
    """What is not as the injection left it; empty when all is."""
    witness: str
    edited: bool = False
    """It is there, and somebody else wrote what it says."""


@runtime_checkable
class Stands(Protocol):
    """Capability: a target where a cause that is over before its revert was ended by somebody, and never by itself."""

    def stands(self, injection: Injection) -> Stood | None:
        """Asks once, and cheaply. None where that can't be told of it. Raises Unreachable, which says nothing."""
        ...

    def undone(self, injection: Injection) -> Stood | None:
        """The same as its undo found it, before it changed anything; asks nobody. None until then."""
        ...


EndedBy = Literal["person", "cluster", "deleted"]


class Contact(Struct, frozen=True):
    """How a run stands with what must go on answering for it to be allowed to change anything: one cluster's API."""

    cluster: str
    lost: str = ""
    """Why it doesn't answer at the moment; empty: it does."""
    over: str = ""
    """Why nothing may be changed there any more; the run has to end."""
    by: EndedBy = "cluster"
    """Who ended it, where it is over; `deleted`: whoever deleted what is drilled there."""
    well_mono_ms: float | None = None  # of what was deleted: when it was last seen to be all there


@runtime_checkable
class Contacts(Protocol):
    """Capability: a target that can be lost, or taken away, while a run lasts."""

    def contacts(self) -> Sequence[Contact]:
        """As it is known to stand; asks nobody."""
        ...

    def contacts_now(self) -> Sequence[Contact]:
        """As it stands after a look, which takes a second or a few."""
        ...


class Target(Protocol):
    """Where systems run. Owns the inventory; never decides."""

    name: str

    def inventory(self) -> tuple[Instance, ...]:
        """What is there now; before the start, what will be there (without pids)."""
        ...

    def world(self) -> World:
        """What faults may choose from; needs no start."""
        ...

    def start(self, keeper: Keeper) -> None:
        """Start proxies and system through the keeper. Raises SystemNotReady."""
        ...

    def ready(self) -> Mapping[str, bool]:
        """Instance → has it *answered* its ready check. Never blocks for longer than a second."""
        ...

    def respawned(self, instance: str, pid: int, start_ticks: int) -> None:
        """The keeper started this process: from now on it is the instance. Unknown names are somebody else's."""
        ...

    def companions(self) -> Mapping[str, int]:
        """Processes that work for the run without being of it: `engine/NAME` → pid. Those below them that work for
        others are `stranger/NAME`."""
        ...

    def leave(self) -> None:
        """The system is about to be ended: keep what would be lost with it. Never raises; may be called twice."""
        ...

    def undo_of(self, injection: Injection) -> tuple[Undo, ...]:
        """The undo, bound to what is really there (pid, start time, boot id)."""
        ...


class Fault(Protocol):
    """One failure mode: what to do and its undo, as data. Never sleeps, never retries."""

    @property
    def word(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def parameters(self) -> type[Struct]: ...
    @property
    def needs(self) -> type:
        """The capability (a protocol of this module) that a target must offer: `Mechanisms` for the built-in ones."""
        ...

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        """Pure. Raises Refused when it would touch nothing."""
        ...

    def inject(self, injection: Injection, via: object) -> None: ...
    def observe(self, injection: Injection, via: object) -> Effect: ...


class Keeper(Protocol):
    """The runner's hold on the process that outlives it. Every call raises KeeperGone when it no longer answers."""

    def record(self, event: Event, mono_ms: float | None = None) -> int:
        """Write one event; returns its sequence number, after the fsync when the event is durable."""
        ...

    def spawn(
        self,
        instance: str,
        *,
        service: str,
        role: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        address: str,
        labels: Mapping[str, str],
    ) -> Spawned:
        """Start a process as the keeper's child; standard output and error go to logs/<instance>.log."""
        ...

    def arm(
        self, injection: str, *, fault: str, instance: str, mechanism: str, undo: Sequence[Undo], expires_in_s: float
    ) -> None:
        """Write the undo down, fsynced, and hold it; reverted by the keeper at its expiry or when the runner dies."""
        ...

    def revert(self, injection: str, cause: str) -> str:
        """Execute the undo now. Returns done, failed or superseded.

        Reverting twice does nothing the second time, unless the cause is `again`: a look has shown that the first
        time did not help.
        """
        ...

    def disarm(self, injection: str) -> None:
        """Forget a runbook action's undo that is meant to stay. Journalled as reverted/superseded."""
        ...

    def stop(self, instance: str, timeout_s: float) -> None:
        """End one process that the keeper spawned (SIGTERM, then SIGKILL), with its descendants."""
        ...

    def teardown(self) -> list[str]:
        """Revert what is still armed, end every process; returns what could not be ended."""
        ...

    def close(self, status: str, reason: str) -> str:
        """Write run-ended, release the locks, end the keeper. Returns the journal's head hash."""
        ...


class Answer(Struct, frozen=True):
    """One probe's fresh reading, or why there is none."""

    values: tuple[tuple[dict[str, str], float], ...]
    detail: str = ""
    took_ms: float = 0.0

    @property
    def fresh(self) -> bool:
        return not self.detail


class Probe(Protocol):
    def read(self, timeout_s: float) -> Answer: ...


class Reply(Struct, frozen=True):
    """What came back from one HTTP request."""

    status: int = 0
    """0: no complete answer."""
    text: str = ""
    error: str = ""
    """Why there is no complete answer."""
    sent: bool = False
    """True when the other side may have acted on it: with `error` set, the outcome is doubtful."""
    took_ms: float = 0.0


class Ran(Struct, frozen=True):
    """What became of one command."""

    code: int | None = None
    """None: it did not start, or it was ended at its limit."""
    output: str = ""
    """Standard output, up to the caller's bound."""
    complaint: str = ""
    """The end of standard error."""
    error: str = ""
    started: bool = False
    took_ms: float = 0.0


class Caller(Protocol):
    """Makes one call with one limit. Neither method raises, retries, or outlives its limit by more than a moment."""

    def http(self, method: str, url: str, body: str, timeout_s: float) -> Reply: ...
    def command(self, argv: Sequence[str], timeout_s: float) -> Ran: ...


class Held(Struct, frozen=True):
    """Whether an expression holds on what was seen last."""

    held: bool
    value: float | None = None
    detail: str = ""
    """Why there is no fresh reading; empty: the reading is fresh. Without one, `held` means nothing."""
    never: bool = False
    """True: no reading of this will ever come from here, so that waiting for it is pointless."""

    @property
    def fresh(self) -> bool:
        return not self.detail


class Sight(Protocol):
    """Live data for wait-until and exit criteria: success, latency, metrics, alerts."""

    def evaluate(self, expression: Expression) -> Held:
        """Now, over the last second or so. `for`, `within` and `after` are the asker's business, not this one's."""
        ...


class LiveLoad(Struct, frozen=True):
    """The generator's state over its last second, for guards and the live view."""

    scheduled: int = 0
    sent: int = 0
    done: int = 0
    dropped: int = 0
    lag_p99_ms: float = 0.0


class Load(Protocol):
    """The generator's process, seen from the runner."""

    def prepare(self, keeper: Keeper) -> None:
        """Start the process and wait until it has imported everything. Raises Refused or SystemNotReady."""
        ...

    @property
    def lead_ms(self) -> float:
        """How far in the future the first arrival must lie, so that whoever sends has been told by then."""
        ...

    def begin(self, epoch_mono_ms: float) -> LoadStarted:
        """Returns what is journalled of it."""
        ...

    def live(self) -> LiveLoad: ...
    def records(self) -> Sequence[str]:
        """Paths of the record files, for the live judgement of guards."""
        ...

    def end(self, last_intended_mono_ms: float, timeout_s: float, *, retries: bool = True) -> Sequence[Event]:
        """No arrivals after that; waits for what is in flight. Returns `load-ended` and a `record-closed` a file.

        Without `retries` nothing is sent any more; with them who waits to try again may, until its deadline.
        """
        ...


OLDEST_SAMPLE_S = 15.0
"""A sample that carries a timestamp may be this old; after that it is no fresh reading."""


class Sample(NamedTuple):
    """One sample of a metrics endpoint (Prometheus' data model)."""

    name: str
    labels: dict[str, str]
    value: float
    at_ms: int | None = None
    """Wall clock in ms, where the endpoint gave one."""

    def doubt(self, now_ms: float | None) -> str:
        """Why this is no fresh reading at `now_ms` (wall clock); empty when it is one."""
        if not math.isfinite(self.value):
            return f"{self._shown()} is {self.value}"
        age_s = 0.0 if self.at_ms is None or now_ms is None else (now_ms - self.at_ms) / 1000
        return f"{self._shown()} is {age_s:.0f} s old" if age_s > OLDEST_SAMPLE_S else ""

    def _shown(self) -> str:
        inner = ",".join(f"{name}={value}" for name, value in self.labels.items())
        return f"{self.name}{{{inner}}}" if inner else self.name


class Scraped(NamedTuple):
    """Every sample of one answer, or why there is none."""

    samples: tuple[Sample, ...]
    detail: str = ""
    took_ms: float = 0.0

    @property
    def fresh(self) -> bool:
        return not self.detail


class Scrape(Protocol):
    """Read one metrics endpoint. Never raises, never repeats an old reading."""

    def __call__(self, url: str, timeout_s: float) -> Scraped: ...


class Readers(Protocol):
    """Reads what is no metrics endpoint of an instance. Neither method raises, or repeats an old reading."""

    def read(self, metric: MetricSource, address: str, timeout_s: float) -> Answer:
        """One look at a query, a command, or an instance's answer at `address`."""
        ...

    def alerts(self, server: str, timeout_s: float) -> Scraped:
        """What `server` (prometheus, alertmanager) knows of, as ALERTS samples."""
        ...


class LedgerRow(Struct, frozen=True):
    """What one instance of the system knows of one job."""

    job: int
    state: str
    done: int
    took_ms: float | None = None
    region: str = ""


class ReadLedger(Protocol):
    """Every job of one run (by its id) that one instance knows. Raises Unreachable."""

    def __call__(self, url: str, timeout_s: float, run: str) -> tuple[LedgerRow, ...]: ...
