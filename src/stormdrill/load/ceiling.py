"""How much one generator can send on time. Beyond it the latency would be the generator's own, so it is refused.

What this machine can do is measured (`calibrate.calibrate_machine`) and kept in $XDG_STATE_HOME/stormdrill, with what
it holds for. CEILING_PER_S stands in for it where a load is too small to be worth measuring for.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from stormdrill import __version__
from stormdrill.errors import Refused
from stormdrill.load.arrivals import Demand
from stormdrill.model.experiment import LoadUse
from stormdrill.model.profile import Profile
from stormdrill.store.holds import state_home

CEILING_PER_S = 1500.0
"""Arrivals a second of one generator process, well below what was seen anywhere (docs/decisions/0004-load.md)."""
NEEDS_NONE_PER_S = 300.0
"""Arrivals a second of one worker up to which no machine has to be measured."""
USABLE = 0.7
"""Share of what was measured that is asked of a worker: the machine of a run also runs the system under test."""
_FILE = "ceiling.json"
_CLIENT = ("locust", "gevent", "geventhttpclient")


class Machine(Struct, frozen=True):
    """What a measurement holds for: on anything else it is made anew."""

    cpu: str
    cores: int
    python: str
    stormdrill: str
    client: str
    """Versions of the libraries that send."""


class Step(Struct, frozen=True):
    """What the generator did at one rate."""

    rate_per_s: float
    sent_of_scheduled: float
    lag_p99_ms: float
    on_time: bool


class Ceiling(Struct, frozen=True):
    """What one worker of this machine can send on time."""

    measured_per_s: float
    """The highest rate at which it was on time; more may have been possible where every step was."""
    machine: Machine
    at: str
    """UTC with offset."""
    steps: tuple[Step, ...]
    load_average: float
    """Of the last minute before: on a busy machine less is measured."""

    @property
    def usable_per_s(self) -> float:
        """What is asked of a worker at most."""
        return self.measured_per_s * USABLE


def this_machine() -> Machine:
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        stormdrill=__version__,
        client=" ".join(f"{name}-{importlib.metadata.version(name)}" for name in _CLIENT),
    )


def known() -> Ceiling | None:
    """What was measured before, if it was measured here: same machine, same versions."""
    try:
        found = msgspec.json.decode((state_home() / _FILE).read_bytes(), type=Ceiling)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.machine == this_machine() and found.measured_per_s > 0 else None


def remember(ceiling: Ceiling) -> Path:
    """Raises Refused when it can't be written."""
    home = state_home()
    place = home / _FILE
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".ceiling-", delete=False) as file:
            file.write(msgspec.json.format(msgspec.json.encode(ceiling), indent=1) + b"\n")
        Path(file.name).replace(place)
    except OSError as error:
        with contextlib.suppress(OSError, UnboundLocalError):
            Path(file.name).unlink()
        raise Refused(f"{place} cannot be written: {error.strerror}") from error
    return place


def usable_per_s() -> float:
    """What is asked of one worker at most, as far as it is known without measuring."""
    found = known()
    return found.usable_per_s if found is not None else CEILING_PER_S


def ceiling_for(use: LoadUse, profile: Profile | None, announce: Callable[[str], object]) -> float:
    """What is asked of one worker at most, measured first where that is needed and wasn't done yet: for some seconds.

    A closed loop sends when it is answered, so nothing can be asked of it. Raises Refused for what can't be a demand.
    """
    if profile is None or use.closed_loop or peak_per_s(profile, use.rate_per_s) <= NEEDS_NONE_PER_S * _workers(use):
        return usable_per_s()
    found = known()
    if found is None:
        from stormdrill.load.calibrate import calibrate_machine

        announce("measuring what a load generator can send on this machine: once, for some seconds")
        found = calibrate_machine()
        remember(found)
        announce(
            f"one generator sends {found.measured_per_s:g}/s on time here; {found.usable_per_s:g}/s are asked of it"
        )
    return found.usable_per_s


def peak_per_s(profile: Profile, rate_per_s: float) -> float:
    """The highest λ. Raises Refused for what can't be a demand."""
    try:
        return Demand(profile, rate_per_s).peak_rate()
    except ValueError as error:
        raise Refused(str(error)) from error


def refuse_beyond_ceiling(
    profile: Profile, rate_per_s: float, ceiling_per_s: float = CEILING_PER_S, workers: int = 1
) -> None:
    """Raises Refused when the profile's highest rate is more than the workers can send on time, with how many could."""
    peak = peak_per_s(profile, rate_per_s)
    carried = max(workers, 1) * ceiling_per_s
    if peak > carried:
        needed = -int(-peak // ceiling_per_s)
        raise Refused(
            f"profile {profile.name} at {rate_per_s:g}/s reaches {peak:g}/s, and {_these(workers)} at most "
            f"{carried:g}/s on time; {needed} workers would carry it, "
            f"or ask for at most {carried * rate_per_s / peak:g}/s"
        )


def _these(workers: int) -> str:
    return "one generator sends" if workers <= 1 else f"{workers} generators send"


def _workers(use: LoadUse) -> int:
    return max(use.workers + len(use.hosts), 1)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
