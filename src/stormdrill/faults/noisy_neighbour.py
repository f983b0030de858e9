"""noisy-neighbour: somebody else uses what is shared, and uses a lot of it.

`flood`: one workload asks far more than its part, through the entry, as any client would; its answers are nobody's
objective, and its jobs are not counted among the run's. `cpu`: programs beside the system burn the machine's cores.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct, convert
from msgspec.structs import replace

from stormdrill.errors import Refused
from stormdrill.faults.acting import Asked, ThroughMechanisms, injection, nothing_touched
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Beside
from stormdrill.model.plan import Injection
from stormdrill.model.units import parse_rate
from stormdrill.ports import World
from stormdrill.spec.kinds import Rate

MOST_PER_S = 1000.0
REQUEST = "POST /jobs"
ONE_REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<path>/[!-~]*)")
BODY = '{"id": "$id", "kind": "$kind", "tier": $tier, "deadline_ms": 2000, "wait": false}'
"""The reference platform's own; another system's experiment writes its own request and body."""


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    mode: Literal["flood", "cpu"] = "flood"
    rate: Rate | None = None
    """Of `flood`: requests that it sends, whether or not earlier ones were answered."""
    tier: Annotated[int, Meta(ge=1, le=9)] = 3
    kind: str = "batch"
    request: str = REQUEST
    """Of `flood`: method and path."""
    body: str = BODY
    """Of `flood`: `$id`, `$kind` and `$tier` are filled in."""
    cores: Annotated[int, Meta(ge=1, le=64)] = 1
    """Of `cpu`: how many programs burn."""


class NoisyNeighbour(ThroughMechanisms):
    word = "noisy-neighbour"
    summary = "one workload floods what is shared, or programs beside the system burn its cores"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        entries = world.chosen(service=world.system.entry)
        if not entries:
            raise nothing_touched(use, f"the entry {world.system.entry} has no instance")
        asked = Asked(use, index, for_s)
        if wanted.mode == "cpu":
            how = Beside("burn", ("--cores", str(wanted.cores)), cores=wanted.cores)
            return (injection(asked, "burn", "beside", instance=entries[0].name, how=how),)
        if wanted.rate is None:
            raise Refused(f"{use.word} floods at which rate? write for instance rate: 80/s")
        rate = parse_rate(wanted.rate)
        if not 0 < rate <= MOST_PER_S:
            raise Refused(f"{use.word}: rate {wanted.rate} is out of bounds; write up to {MOST_PER_S:g}/s")
        line = ONE_REQUEST.fullmatch(wanted.request)
        if line is None:
            raise Refused(f"{use.word}: request {wanted.request!r} is none; write a method and a path: {REQUEST}")
        words = (
            *("--entries", "$entry", "--rate", f"{rate:g}", "--method", line["method"], "--path", line["path"]),
            *("--tier", str(wanted.tier), f"--kind={wanted.kind}", f"--body={wanted.body}"),
        )
        names = tuple(one.name for one in entries)
        how = Beside("flood", words, reaches=names, request=_request(wanted), rate_per_s=rate)
        one = injection(asked, "flood", "beside", instance=names[0], how=how)
        return (replace(one, leaves=_leaves(wanted)),)


def _request(wanted: Parameters) -> str:
    """With what of kind and tier is filled in."""
    told = {"$kind": f"kind {wanted.kind}", "$tier": f"tier {wanted.tier}"}
    filled = ", ".join(said for word, said in told.items() if word in wanted.body)
    return f"{wanted.request} ({filled})" if filled else wanted.request


def _leaves(wanted: Parameters) -> str:
    if wanted.request == REQUEST:
        return "jobs of the flood that were accepted stay in the system"
    asks_only = wanted.request.startswith(("GET ", "HEAD ", "OPTIONS "))
    return "" if asks_only else "what the flood's requests changed in the system stays changed"
