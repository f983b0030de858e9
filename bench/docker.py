"""Containers: from the call to the container's state, and what a run costs beyond the platform's own start and stop."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.figure import Figure, at_most

TESTS = Path(__file__).parent.parent / "tests"
TIMES, QUICK_TIMES = 20, 5


def measure(quick: bool) -> Iterator[Figure]:
    sys.path[:0] = [str(TESTS), str(TESTS / "contract")]
    from mechanism_rig import HOW, injection, rig

    times = QUICK_TIMES if quick else TIMES
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_STATE_HOME"] = f"{place}/state"
        with rig("docker", Path(place) / "runs") as small:
            for word, limit_s in (
                ("freeze", 0.03),
                ("crash", 0.03),
                ("cpu-limit", 0.0),
                ("sever", 0.0),
                ("stall", 0.0),
            ):
                took_s = []
                for number in range(times):
                    one = injection(word, HOW[word], f"bench-{number}")
                    undo = small.target.undo_of(one)
                    small.run.keeper.arm(
                        one.id, fault="bench", instance="back", mechanism=word, undo=undo, expires_in_s=30.0
                    )
                    began_s = time.monotonic()
                    small.target.mechanisms[word].apply(one)
                    seen = small.seen(one, lambda effect: effect.bit)
                    took_s.append((seen.at_ms / 1000 or time.monotonic()) - began_s)
                    small.revert(one)
                    small.well()
                name = f"docker_{word.replace('-', '_')}_effect"
                yield (
                    at_most(name, median(took_s), "s", limit_s)
                    if limit_s
                    else Figure(name, median(took_s), "s", "", None)
                )
        yield from _starts(quick, Path(place))


def _starts(quick: bool, place: Path) -> Iterator[Figure]:
    """The reference platform on both targets, without load: until everything answers, and until nothing is left."""
    from keeping import kept_run
    from stormdrill.api import validate
    from stormdrill.api.targets import make

    taken: dict[str, list[tuple[float, float]]] = {"process": [], "docker": []}
    for number in range(2 if quick else 5):
        for word, found in taken.items():
            system = validate("experiments/region-loss.yaml", target=word).system
            with kept_run(place / f"{word}-{number}") as run:
                target = make(word, system, run.dir, lasts_s=60.0)
                target.preflight()
                began_s = time.monotonic()
                target.start(run.keeper)
                while not all(target.ready().values()):
                    time.sleep(0.01)
                ready_s = time.monotonic() - began_s
                began_s = time.monotonic()
                target.leave()
                run.keeper.teardown()
                found.append((ready_s, time.monotonic() - began_s))
    ready = {word: median(one[0] for one in found) for word, found in taken.items()}
    stop = {word: median(one[1] for one in found) for word, found in taken.items()}
    yield at_most("docker_platform_ready", ready["docker"], "s", 3.0)
    yield Figure("docker_platform_stop", stop["docker"], "s", "", None)
    beyond_s = ready["docker"] + stop["docker"] - ready["process"] - stop["process"]
    yield at_most("docker_beyond_processes", beyond_s, "s", 2.0)
