"""Less CPU for a running container: its quota, lowered by one call and put back as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import CpuLimit
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Engine as EngineCall
from stormdrill.model.undo import Undo
from stormdrill.ports import Effect
from stormdrill.targets.docker import cgroup
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.fleet import Fleet
from stormdrill.targets.docker.halting import PERMISSION

PERIOD_US = 100_000
LEAST_CPUS = 0.01
"""The kernel takes no quota below a millisecond."""
NONE = -1
"""Takes a quota back; 0 would leave it as it is."""


class Limiting:
    """Witness: the container's control group, which counts the periods in which its processes were held back."""

    permission = PERMISSION

    def __init__(self, engine: Engine, fleet: Fleet, has_cpus: Callable[[str], float] = lambda instance: 0.0) -> None:
        self._engine = engine
        self._fleet = fleet
        self._has_cpus = has_cpus
        """Its limit, where that is known when planning; 0: none, or not known."""
        self._before: dict[str, int] = {}

    def refusal(self, injection: Injection) -> str:
        cpus, has_cpus = _limit(injection).cpus, self._has_cpus(injection.instance)
        if cpus < LEAST_CPUS:
            return f"{cpus:g} cores is less than the kernel can give; write {LEAST_CPUS:g}"
        if has_cpus and cpus >= has_cpus:
            return f"{injection.instance} has no more than {has_cpus:g} cores as it is; write less than that"
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        one = self._fleet.of(injection.instance)
        limits = self._limits(one.id)
        return (
            EngineCall(
                engine=self._engine.where,
                method="POST",
                path=f"/containers/{one.id}/update",
                body=json.dumps(_former(limits)),
                with_the_run=one.owned,
                ours=json.dumps(_lowered(limits, _limit(injection).cpus)),
            ),
        )

    def apply(self, injection: Injection) -> None:
        one, cpus = self._fleet.of(injection.instance), _limit(injection).cpus
        self._before[injection.id] = cgroup.throttled(one.pid) or 0
        limits = self._limits(one.id)
        # A period can't be taken back, and where one is set nobody can set --cpus: only who has one gets another.
        period = {"CpuPeriod": PERIOD_US} if limits.get("CpuPeriod") else {}
        self._engine.act("POST", f"/containers/{one.id}/update", period | _lowered(limits, cpus))

    def observe(self, injection: Injection) -> Effect:
        one, wanted = self._fleet.of(injection.instance), _limit(injection).cpus
        now, witness = cgroup.quota_cpus(one.pid), "its control group"
        if now is None:
            now, witness = cpus_of(self._limits(one.id)), "container state"
        held = now > 0 and abs(now - wanted) < 0.005
        times = cgroup.throttled(one.pid)
        said = f"{injection.instance} may use {now:g} cores" if now else f"{injection.instance} has no CPU limit"
        if times is None:
            return Effect(held, not held, witness, said)
        since = times - self._before.get(injection.id, times)
        return Effect(held and since > 0, not held, witness, f"{said}, held back in {since} periods")

    def _limits(self, container: str) -> dict[str, int]:
        found = self._engine.inspect(container)
        if found is None:
            raise Unreachable(f"the container {container[:12]} is gone")
        return cast("dict[str, int]", found["HostConfig"])


def _former(limits: dict[str, int]) -> dict[str, int]:
    if limits.get("NanoCpus"):
        return {"NanoCpus": limits["NanoCpus"]}
    period = {"CpuPeriod": limits["CpuPeriod"]} if limits.get("CpuPeriod") else {}
    return period | {"CpuQuota": limits["CpuQuota"] if limits.get("CpuQuota", 0) > 0 else NONE}


def _lowered(limits: dict[str, int], cpus: float) -> dict[str, int]:
    return {"NanoCpus": round(cpus * 1e9)} if limits.get("NanoCpus") else {"CpuQuota": round(cpus * PERIOD_US)}


def cpus_of(limits: dict[str, int]) -> float:
    if limits.get("NanoCpus"):
        return limits["NanoCpus"] / 1e9
    return max(0, limits.get("CpuQuota", 0)) / (limits.get("CpuPeriod") or PERIOD_US)


def _limit(injection: Injection) -> CpuLimit:
    assert isinstance(injection.how, CpuLimit)
    return injection.how
