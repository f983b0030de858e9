"""region-loss: everything that carries one region label stops, by crash or by freeze (a grey failure).

`freeze` (SIGSTOP on processes): connections are still accepted, nothing is answered, memory and leases are kept.
`crash` (SIGKILL): nothing is left but what was durable; nothing restarts it until the fault is reverted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from msgspec import Struct, convert

from stormdrill.errors import Refused
from stormdrill.model.experiment import FaultUse
from stormdrill.model.plan import Injection
from stormdrill.ports import Effect, Halt, Instance

WORD = "region-loss"
UNDO = {"freeze": "thaw", "crash": "start again"}
STOPPED = {"freeze": "frozen", "crash": "gone"}


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    region: str
    """Value of the label `region` that is lost."""
    mode: Literal["freeze", "crash"] = "freeze"


class RegionLoss:
    word = WORD
    summary = "every instance of one region stops: crash, or freeze (grey failure)"
    parameters = Parameters
    needs = Halt

    def plan(self, use: FaultUse, index: int, inventory: Sequence[Instance], for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        hit = [item for item in inventory if item.labels.get("region") == wanted.region]
        if not hit:
            regions = sorted({item.labels["region"] for item in inventory if "region" in item.labels})
            known = f"regions here: {', '.join(regions)}" if regions else "no instance carries the label `region`"
            raise Refused(f"region-loss would touch nothing: no instance has region={wanted.region}; {known}")
        return tuple(
            Injection(
                id=f"{WORD}{'' if index == 0 else f'-{index + 1}'}/{item.name}",
                fault=WORD,
                use=index,
                instance=item.name,
                mechanism=wanted.mode,
                undo=UNDO[wanted.mode],
                start_s=use.start_s,
                for_s=for_s,
                verify_timeout_s=0.0 if wanted.mode == "crash" else 5.0,
            )
            for item in hit
        )

    def inject(self, injection: Injection, via: object) -> None:
        halt = cast(Halt, via)
        if injection.mechanism == "freeze":
            halt.freeze(injection.instance)
        else:
            halt.crash(injection.instance)

    def observe(self, injection: Injection, via: object) -> Effect:
        halt = cast(Halt, via)
        life = halt.life(injection.instance)
        bit = life == STOPPED[injection.mechanism]
        if injection.mechanism == "freeze":
            # a frozen process that somebody killed is no longer frozen: the cause is gone, though nothing is restored
            return Effect(bit, life in ("running", "gone"), "process state", f"{injection.instance} is {life}")
        if life != "running":
            return Effect(bit, False, "process state", f"{injection.instance} is {life}")
        # a process that was started again and dies, or never answers, is as lost as before
        answers = halt.answers(injection.instance)
        said = "answers" if answers else "runs, and does not answer"
        return Effect(bit, answers, "its ready check", f"{injection.instance} {said}")
