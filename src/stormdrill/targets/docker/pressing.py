"""Memory taken inside a container's own limit, by a program of ours that is started in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import stormdrill
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Pressure
from stormdrill.model.plan import Injection
from stormdrill.model.undo import EndExec, Exec, Undo
from stormdrill.model.undo import Engine as EngineCall
from stormdrill.ports import Effect
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.fleet import Fleet
from stormdrill.targets.docker.halting import PERMISSION
from stormdrill.targets.process.pressing import BITES_MB, HELD_BEFORE_MB, LEAST_CEILING_MB, resident_mb

GRACE_S = 10.0
"""It ends by itself this long after the planned end: after the keeper would have ended it."""
TEXT = Path(stormdrill.__file__).parent / "beside" / "leak.py"
IN_SH = (
    '[ -z "$4" ] || echo "$4" >/proc/$$/oom_score_adj; '
    'held() { while read -r word kb _ && [ "$word" != VmHWM: ]; do :; done </proc/$$/status; }; '
    'x=$(head -c 1048576 /dev/zero | tr "\\0" z); began=$(date +%s); i=0; while :; do '
    "past=$(( $(date +%s) - began )); [ $past -lt $3 ] || exit 0; due=$(( past * $1 / 1024 )); "
    "[ $due -lt $2 ] || due=$2; while [ $i -lt $due ] && held && [ $((kb + 1280)) -le $(($2 * 1024)) ]; do "
    'eval "v$i=\\$x"; i=$((i + 1)); done; sleep 0.2; done'
)
"""Fixed; slope in KB/s, ceiling in MB, deadline in s, its own score and the tag are its arguments. For images without
python3. The ceiling is for the most that the shell ever held, which the kernel counts: a variable of a MB
takes some more."""
SET_SCORE = ("sh", "-c", 'echo "$1" >/proc/1/oom_score_adj', "sh")
FIRST_TO_DIE = "1000"


class Pressing:
    """Witness: the pages that the kernel counts for the allocator, or that it runs where they can't be seen."""

    permission = f"{PERMISSION}: start a program in the container"
    starts_inside = True
    """Not possible while the container is paused or gone, which `plan` refuses."""

    def __init__(
        self, engine: Engine, fleet: Fleet, limit_mb: Callable[[str], float], ends_for_good: Callable[[str], str]
    ) -> None:
        self._engine = engine
        self._fleet = fleet
        self._limit_mb = limit_mb
        self._ends_for_good = ends_for_good
        self._prepared: dict[str, str] = {}

    def refusal(self, injection: Injection) -> str:
        how = _pressure(injection)
        if not self._limit_mb(injection.instance):
            return (
                f"{injection.instance} has no memory limit, so that all of this machine would be pressed; give it "
                "one: docker: {limits: {memory: 256MB}}"
            )
        if how.ceiling_mb < LEAST_CEILING_MB:
            return (
                f"a ceiling of {how.ceiling_mb:g} MB is no more than the allocator needs; write {LEAST_CEILING_MB:g}MB"
            )
        return self._ends_for_good(injection.instance)  # the kernel may kill the application, whoever is meant

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        one, where = self._fleet.of(injection.instance), self._engine.where
        number = self._engine.prepare_exec(one.id, self._argv(injection, one.id))
        self._prepared[injection.id] = number
        end = EndExec(engine=where, container=one.id, exec_id=number, tag=_tag(injection))
        # The kernel may have killed the application, whoever was meant: it is started again, and one that lives is
        # left as it is.
        again = EngineCall(engine=where, method="POST", path=f"/containers/{one.id}/start", with_the_run=one.owned)
        if _pressure(injection).victim == "neighbour":
            return (end, again)
        code, score = self._engine.run(one.id, ("cat", "/proc/1/oom_score_adj"))
        if code:
            raise Unreachable(f"{injection.instance}: its oom_score_adj can't be read ({score.strip()})")
        spare = Exec(engine=where, container=one.id, argv=(*SET_SCORE, score.strip()), with_the_run=one.owned)
        return (end, again, spare)

    def apply(self, injection: Injection) -> None:
        one = self._fleet.of(injection.instance)
        if _pressure(injection).victim == "app":
            code, said = self._engine.run(one.id, (*SET_SCORE, FIRST_TO_DIE))
            if code:
                raise Unreachable(f"{injection.instance}: its oom_score_adj can't be written ({said.strip()})")
        self._engine.act("POST", f"/exec/{self._prepared[injection.id]}/start", {"Detach": True})

    def observe(self, injection: Injection) -> Effect:
        number = self._prepared.get(injection.id, "")
        found = cast("dict[str, object]", self._engine.get(f"/exec/{number}/json") or {}) if number else {}
        pid = found.get("Pid")
        if not found.get("Running") or not isinstance(pid, int):
            code = found.get("ExitCode")
            said = f"; it ended with exit code {code}" if isinstance(code, int) else ""
            return Effect(False, True, "the engine's account", f"no allocator runs{said}")
        held_mb = resident_mb(pid)
        if not held_mb:
            return Effect(True, False, "the engine's account", f"the allocator in {injection.instance} runs")
        detail = f"the allocator in {injection.instance} holds {held_mb:.0f} MB"
        return Effect(held_mb >= HELD_BEFORE_MB + BITES_MB, False, "the kernel's account", detail)

    def _argv(self, injection: Injection, container: str) -> tuple[str, ...]:
        how, deadline_s = _pressure(injection), injection.for_s + GRACE_S
        spared = how.victim == "app"
        code, _ = self._engine.run(container, ("sh", "-c", "command -v python3"))
        if code == 0:
            words = ("--mb-per-s", f"{how.mb_per_s:g}", "--ceiling-mb", f"{how.ceiling_mb:g}")
            return (
                "python3",
                "-c",
                TEXT.read_text(),
                *words,
                "--deadline-s",
                f"{deadline_s:g}",
                *(("--spared",) if spared else ()),
                "--tag",
                _tag(injection),
            )
        numbers = (f"{how.mb_per_s * 1024:.0f}", f"{how.ceiling_mb:.0f}", f"{deadline_s:.0f}")
        return ("sh", "-c", IN_SH, "sh", *numbers, "" if spared else FIRST_TO_DIE, _tag(injection))


def _tag(injection: Injection) -> str:
    return f"stormdrill.{injection.id}"


def _pressure(injection: Injection) -> Pressure:
    assert isinstance(injection.how, Pressure)
    return injection.how
