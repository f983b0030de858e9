"""How an injection does its harm, as data: the words between faults, which plan, and targets, which act.

A fault picks a word and its numbers; each target says which words it can do, by which means, and what undoes them.
A new word here needs an implementation in at least one target (`ports.Mechanism`) and a line in
`docs/reference/mechanisms.md`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ToxicKind = Literal["delay", "stall", "trickle", "squeeze", "reset", "refuse", "cut"]
DeviceState = Literal["lost", "slow", "hang", "cold"]


class Toxic(Struct, frozen=True, tag="toxic"):
    """On hops that pass a proxy of ours: what happens to their bytes (see docs/reference/proxy.md)."""

    hops: tuple[str, ...]
    """`edge-1>gateway-eu`"""
    kind: ToxicKind
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    distribution: Literal["uniform", "normal", "pareto"] = "uniform"
    bytes_per_s: float = 0.0
    direction: Literal["both", "up", "down"] = "both"


class Sever(Struct, frozen=True, tag="sever"):
    """Packets between the instance and its peers vanish, below any proxy. No peers: it is cut from everybody."""

    peers: tuple[str, ...] = ()
    direction: Literal["both", "up", "down"] = "both"
    users: bool = False
    """From whoever reaches it from outside the system, too: through its published port, past every proxy."""


class Pressure(Struct, frozen=True, tag="pressure"):
    """Memory is taken at a steady slope up to a ceiling, and kept until the revert."""

    mb_per_s: float
    ceiling_mb: float
    victim: Literal["app", "neighbour"] = "neighbour"
    """Whom the kernel is to kill first when the limit is reached: the application, or the allocator beside it."""


class CpuLimit(Struct, frozen=True, tag="cpu-limit"):
    cpus: float
    """Of one core's time."""


class Device(Struct, frozen=True, tag="device"):
    device: str
    """Its name in the instance's `devices:`, gpu0."""
    state: DeviceState


class Tell(Struct, frozen=True, tag="tell"):
    """One request to the system itself, declared in its file, and the request that takes it back."""

    service: str
    method: str
    path: str
    body: str
    undo_method: str
    undo_path: str
    undo_body: str
    look_path: str
    """GET on it shows whether it is in force: `look` is then found in the answer."""
    look: str
    """`.version == leaky`: a dotted path into the JSON answer, and the value that means: in force."""
    reaches: tuple[str, ...] = ()
    """The instances that a release changes; empty: whoever is told is all that is known to change."""
    means: str = ""
    """What they are then, in people's words: on another release."""


class Beside(Struct, frozen=True, tag="beside"):
    """A program of ours (`stormdrill.beside`) that runs beside the instance until the revert."""

    program: Literal["burn", "flood"]
    arguments: tuple[str, ...]
    """`$entry` stands for the base URLs where load enters, separated by commas."""
    reaches: tuple[str, ...] = ()
    """Of `flood`: the instances that it enters by."""
    request: str = ""
    """Of `flood`, in people's words: POST /jobs (kind batch, tier 3)."""
    rate_per_s: float = 0.0
    """Of `flood`."""
    cores: int = 0
    """Of `burn`."""


How = Toxic | Sever | Pressure | CpuLimit | Device | Tell | Beside
"""freeze and crash need no data."""
