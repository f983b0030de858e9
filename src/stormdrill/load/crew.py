"""How many generators a load takes, and where: what the experiment says, or what one of them can send asks for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stormdrill.errors import Refused
from stormdrill.load.ceiling import CEILING_PER_S, peak_per_s, usable_per_s
from stormdrill.model.experiment import LoadUse
from stormdrill.model.profile import Profile

if TYPE_CHECKING:
    from stormdrill.load.cluster import ClusterLoad
    from stormdrill.load.in_cluster import Inside
    from stormdrill.load.launcher import LocustLoad, StopRun, Tell
    from stormdrill.load.messages import Generator
    from stormdrill.model.plan import Plan


def local_workers(
    use: LoadUse, profile: Profile | None, ceiling_per_s: float = CEILING_PER_S, cores: int | None = None
) -> int:
    """How many generator processes this machine starts; 0 where all are on others.

    Raises Refused when they are too few for the profile's highest rate, with how many would carry it.
    """
    if profile is None or use.closed_loop:
        return use.workers or (0 if use.hosts else 1)
    peak = peak_per_s(profile, use.rate_per_s)
    needed = max(math.ceil(peak / ceiling_per_s), 1)
    if not use.workers and not use.hosts:
        room = cores or len(os.sched_getaffinity(0))
        if needed > max(room, 1):
            raise Refused(
                f"profile {profile.name} at {use.rate_per_s:g}/s reaches {peak:g}/s, which takes {needed} workers of "
                f"{ceiling_per_s:g}/s each, and this machine has {room} cores; name workers on other machines (load "
                f"hosts:), or ask for at most {room * ceiling_per_s * use.rate_per_s / peak:g}/s"
            )
        return needed
    there = use.workers + len(use.hosts)
    if needed > there:
        raise Refused(
            f"profile {profile.name} at {use.rate_per_s:g}/s reaches {peak:g}/s, and {there} "
            f"{'worker sends' if there == 1 else 'workers send'} at most {there * ceiling_per_s:g}/s on time; write "
            f"workers: {needed - len(use.hosts)}, or ask for at most "
            f"{there * ceiling_per_s * use.rate_per_s / peak:g}/s"
        )
    return use.workers


def workers_inside(use: LoadUse, profile: Profile | None, least: int = 1) -> int:
    """How many pods send a load from inside of a cluster. What one of them can send was measured nowhere: as little is
    asked of it as any machine could do.

    Raises Refused when they are too few for the profile's highest rate, and for hosts of other machines.
    """
    if use.hosts:
        raise Refused(
            f"load hosts: {', '.join(use.hosts)} are other machines, and on a cluster the load is sent from its pods; "
            "leave hosts and listen out, and say workers"
        )
    if profile is None or use.closed_loop:
        return use.workers or least
    return local_workers(replace(use, workers=use.workers or max(least, _needed(use, profile))), profile, CEILING_PER_S)


def _needed(use: LoadUse, profile: Profile) -> int:
    return max(math.ceil(peak_per_s(profile, use.rate_per_s) / CEILING_PER_S), 1)


def make_load(  # noqa: PLR0913  (what a load is made of)
    plan: Plan,
    *,
    directory: Path,
    locustfile: Path,
    entries: Sequence[str],
    token: str,
    tell: Tell,
    stop_run: StopRun,
    announce: Callable[[str], object],
    ceiling_per_s: float | None = None,
    inside: Inside | None = None,
    through: str = "",
) -> LocustLoad | ClusterLoad:
    """One generator, or a master and its workers; by the ceiling that was measured here unless another is given.

    `inside`: in pods of a cluster, and not on this machine. `through`: what leads from here to the entries that users
    don't pass. Raises Refused for what can't be.
    """
    from stormdrill.load.cluster import ClusterLoad, Crew
    from stormdrill.load.launcher import LocustLoad

    use = plan.experiment.load
    assert use is not None
    profile = None if use.closed_loop else plan.profile
    if inside is not None:
        from stormdrill.load.in_cluster import InClusterLoad

        crew = Crew(workers_inside(use, profile, inside.least_workers), use.hosts, use.listen)
        config = _config(plan, directory, locustfile, entries)
        return InClusterLoad(directory, config, crew, inside=inside, tell=tell, stop_run=stop_run, announce=announce)
    ceiling_per_s = ceiling_per_s or usable_per_s()
    local = local_workers(use, profile, ceiling_per_s)
    if local == 1 and not use.hosts:
        return LocustLoad(
            directory=directory,
            run=directory.name,
            profile=profile,
            rate_per_s=use.rate_per_s,
            seed=plan.seed,
            locustfile=locustfile,
            entries=entries,
            ceiling_per_s=ceiling_per_s,
            users=use.users,
            spawn_per_s=use.spawn_per_s,
            deadline_s=use.deadline_s,
            tell=tell,
            stop_run=stop_run,
            through=through,
        )
    config = _config(plan, directory, locustfile, entries)
    crew = Crew(local, use.hosts, use.listen, token, ceiling_per_s)
    return ClusterLoad(directory, config, crew, tell=tell, stop_run=stop_run, announce=announce, through=through)


def _config(plan: Plan, directory: Path, locustfile: Path, entries: Sequence[str]) -> Generator:
    """Of each of several generators, but for its number."""
    from stormdrill.load.messages import Generator
    from stormdrill.store.identity import boot_id

    use = plan.experiment.load
    assert use is not None
    return Generator(
        control="",
        run=directory.name,
        records="",
        locustfile=str(locustfile),
        profile=None if use.closed_loop else plan.profile,
        rate_per_s=use.rate_per_s,
        seed=plan.seed,
        entries=tuple(entry.rstrip("/") for entry in entries),
        boot_id=boot_id(),
        users=use.users,
        spawn_per_s=use.spawn_per_s,
        deadline_s=use.deadline_s,
    )
