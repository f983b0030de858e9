"""An experiment as resolved from its file: parameters filled in, durations in seconds, expressions parsed."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stormdrill.model.expression import Expression

Phase = Literal["warmup", "baseline", "fault", "recovery", "failback"]
PHASES: tuple[Phase, ...] = ("warmup", "baseline", "fault", "recovery", "failback")
Scalar = str | int | float | bool | None


class Phases(Struct, frozen=True):
    """Declared durations in seconds. `fault` is how long the faults are meant to last."""

    warmup_s: float
    baseline_s: float
    fault_s: float
    recovery_s: float
    failback_s: float = 0.0

    def of(self, phase: Phase) -> float:
        return float(getattr(self, f"{phase}_s"))

    @property
    def total_s(self) -> float:
        return sum(self.of(phase) for phase in PHASES)


class LoadUse(Struct, frozen=True):
    profile: str
    """Names of profiles in loadgen/, as written: `peak`, `peak + 0.5 x spike`. Empty for a locustfile of the user's."""
    rate_per_s: float
    """Mean arrivals a second that the profile is scaled to."""
    workers: int = 0
    """Generator processes; 0: as many as the calibration says are needed."""
    hosts: tuple[str, ...] = ()
    """Names of generator workers on other machines, which a person starts there and which report under these names."""
    listen: str = ""
    """host:port where the workers of other machines find the master; empty: on loopback only."""
    locustfile: str = ""
    """A locustfile of the user's own, run unchanged: closed loop. Relative to the experiment's repository."""
    users: int = 0
    """Of that locustfile."""
    spawn_per_s: float = 0.0
    deadline_s: float = 0.0
    """After which an answer to one of its requests is no success."""
    here: bool = False
    """On a cluster: sent from the runner's machine through port-forwards, for looking only."""

    @property
    def closed_loop(self) -> bool:
        """Users wait for answers before they ask again, so that a slow system is asked less."""
        return bool(self.locustfile)


class CheckUse(Struct, frozen=True):
    """One backpressure check as the experiment asks for it; sets are spelled out."""

    word: str
    parameters: dict[str, Scalar] = {}
    """Checked against the check's own."""


class FaultUse(Struct, frozen=True):
    """One fault as the experiment asks for it."""

    word: str
    parameters: dict[str, Scalar]
    """Checked against the fault's own parameters."""
    start_s: float = 0.0
    """Since the fault phase began."""
    for_s: float | None = None
    """None: until the fault phase ends."""


class Window(Struct, frozen=True):
    """Where an objective is judged: one phase (or `whole run`), from `after_s` into it."""

    phase: Literal["warmup", "baseline", "fault", "recovery", "failback", "whole run"]
    after_s: float = 0.0

    @property
    def text(self) -> str:
        return f"{self.phase} after {self.after_s:g}s" if self.after_s else str(self.phase)


class Objective(Struct, frozen=True):
    """One expression in one window; `baseline, recovery:` in the file makes two of each."""

    window: Window
    expression: Expression


class RunbookUse(Struct, frozen=True):
    run: str
    start: Expression
    else_after_s: float
    """After this long in the fault phase it starts anyhow, and detection has FAILed."""
    approve: tuple[str, ...] = ()
    """Steps whose approval this experiment gives beforehand."""


class Experiment(Struct, frozen=True):
    name: str
    """The file's name without its ending."""
    title: str
    hypothesis: str
    owner: str
    system: str
    phases: Phases
    faults: tuple[FaultUse, ...]
    objectives: tuple[Objective, ...]
    parameters: dict[str, Scalar] = {}
    load: LoadUse | None = None
    guards: tuple[Expression, ...] = ()
    runbook: RunbookUse | None = None
    catches: tuple[str, ...] = ()
    """The system's resilience bugs with which this experiment must FAIL; they measure the experiment itself."""
    backpressure: tuple[CheckUse, ...] = ()
    observed: bool = False
    """No generator: the system's own traffic is judged, from its metrics (`load: observed`)."""
    fast: bool = False
    """True when the `fast:` section has replaced what it names."""
