"""Picks the target by its word. Each is imported only when it is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stormdrill.errors import Refused
from stormdrill.ports import Mechanisms, Target

if TYPE_CHECKING:
    from stormdrill.model.plan import Injection
    from stormdrill.model.system import System

NAMES = ("process", "docker")


class DrillTarget(Target, Mechanisms, Protocol):
    """What a whole run asks of its target, beyond what the engine does."""

    def preflight(self) -> None:
        """Raises Refused, before anything is touched, for what can be known to fail."""
        ...

    def entries(self) -> tuple[str, ...]:
        """Base URLs where load enters."""
        ...

    def admin(self) -> str:
        """URL of the first instance of the admin service that answers; empty when there is none."""
        ...


def refuse_unknown(target: str) -> None:
    if target not in NAMES:
        raise Refused(f"target {target} is not built yet; this version has: {', '.join(NAMES)}")


def make(
    target: str,
    system: System,
    run_dir: Path,
    *,
    injections: Sequence[Injection] = (),
    lasts_s: float = 0.0,
    secrets: Mapping[str, str] | None = None,
) -> DrillTarget:
    """`injections`: what is planned, since some of it has to be prepared when the system starts."""
    refuse_unknown(target)
    if target == "docker":
        from stormdrill.targets.docker.target import DockerTarget

        return DockerTarget(system, run_dir, injections=injections, lasts_s=lasts_s, secrets=secrets)
    from stormdrill.targets.process.target import ProcessTarget

    return ProcessTarget(system, run_dir)
