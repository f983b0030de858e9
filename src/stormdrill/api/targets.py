"""Picks the target by its word. Each is imported only when it is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from stormdrill.errors import Refused
from stormdrill.ports import Keeper, Mechanisms, Target

if TYPE_CHECKING:
    from stormdrill.keeper.client import KeeperClient
    from stormdrill.keeper.far import Hands
    from stormdrill.model.experiment import LoadUse
    from stormdrill.model.plan import Injection
    from stormdrill.model.system import System

NAMES = ("process", "docker", "kubernetes")
RUNBOOK = (
    "what the runbook changes is undone by the runner, or by stormdrill recover; the watchdog, which reverts the "
    "faults when this machine vanishes, doesn't"
)


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


class Kept(Keeper, Protocol):
    """What a session asks of its keeper, beyond what the engine does."""

    def secret(self, name: str, value: str) -> None: ...


@runtime_checkable
class Keeps(Protocol):
    """Capability: a target where undos are carried out by the runner, not by its keeper."""

    def keeping(self, client: KeeperClient, stopping: Callable[[], str], redact: Callable[[str], None]) -> Kept:
        """The keeper as the run sees it from now on. `stopping`: why the run is being stopped; asked once it began.
        `redact`: is given each secret that this process must write nowhere, before it is used."""
        ...

    def hands(self) -> Hands:
        """For whoever takes the run over in this process."""
        ...


def keeping(
    target: DrillTarget, client: KeeperClient, stopping: Callable[[], str], redact: Callable[[str], None]
) -> Kept:
    return target.keeping(client, stopping, redact) if isinstance(target, Keeps) else client


def hands(target: DrillTarget) -> Hands | None:
    return target.hands() if isinstance(target, Keeps) else None


def refuse_unknown(target: str) -> None:
    if target not in NAMES:
        raise Refused(f"there is no target {target}; this version has: {', '.join(NAMES)}")


def make(
    target: str,
    system: System,
    run_dir: Path,
    *,
    injections: Sequence[Injection] = (),
    lasts_s: float = 0.0,
    secrets: Mapping[str, str] | None = None,
    load: LoadUse | None = None,
) -> DrillTarget:
    """`injections`: what is planned, since some of it has to be prepared when the system starts. `load`: what it takes
    to send it is asked for too."""
    refuse_unknown(target)
    if target == "docker":
        from stormdrill.targets.docker.target import DockerTarget

        return DockerTarget(system, run_dir, injections=injections, lasts_s=lasts_s, secrets=secrets)
    if target == "kubernetes":
        from stormdrill.api.sending import needs
        from stormdrill.targets.kubernetes.target import KubernetesTarget

        return KubernetesTarget(
            system, run_dir, injections=injections, lasts_s=lasts_s, secrets=secrets, also=needs(system, load)
        )
    from stormdrill.targets.process.target import ProcessTarget

    return ProcessTarget(system, run_dir)


def told_of_runbook(target: str, runbook: bool) -> tuple[str, ...]:
    """What whoever agrees to a plan has to know of the runbook in it."""
    if target != "kubernetes" or not runbook:
        return ()
    return (RUNBOOK,)
