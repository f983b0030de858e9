"""Toxics on the hops that pass a fault proxy of ours, switched over its control address."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import msgspec

from stormdrill.errors import Unreachable
from stormdrill.keeper.limited import request
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Clear, Undo
from stormdrill.ports import Effect

WORDS = ("delay", "stall", "trickle", "squeeze", "reset", "refuse", "cut")
CALL_LIMIT_S = 2.0
EXPIRY_GRACE_S = 10.0
"""The proxy drops a toxic by itself this long after its planned end: after the keeper would have."""


class Toxics:
    """All words of the proxy. Its own word on what is in force is the witness: it sees the bytes, the call doesn't."""

    permission = "talk to the run's own fault proxy"

    def __init__(self, control: Callable[[], str], known: Callable[[], frozenset[str]]) -> None:
        self._control = control
        self._known = known

    def refusal(self, injection: Injection) -> str:
        toxic = _toxic(injection)
        missing = sorted(set(toxic.hops) - self._known())
        if missing:
            return f"no proxy of ours on {', '.join(missing)}; declare the hop under `dependencies` in the system file"
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        return (Clear(address=self._control(), tag=injection.id),)

    def apply(self, injection: Injection) -> None:
        toxic = _toxic(injection)
        body = {
            "routes": list(toxic.hops),
            "expires_in_s": injection.for_s + EXPIRY_GRACE_S,
            **{name: value for name, value in msgspec.to_builtins(toxic).items() if name not in ("type", "hops")},
        }
        said = self._ask("PUT", f"/toxics/{quote(injection.id, safe='')}", json.dumps(body))
        if said is None:
            raise Unreachable(f"the fault proxy at {self._control()} did not take {toxic.kind}")

    def observe(self, injection: Injection) -> Effect:
        text = self._ask("GET", "/toxics", "")
        if text is None:
            return Effect(False, False, "the fault proxy", "it does not answer")
        there = any(item.get("tag") == injection.id for item in json.loads(text))
        word = f"{injection.mechanism} is in force on {len(_toxic(injection).hops)} hops"
        return Effect(there, not there, "the fault proxy", word if there else f"no {injection.mechanism} any more")

    def _ask(self, method: str, path: str, body: str) -> str | None:
        heard = request(method, f"http://{self._control()}{path}", body, CALL_LIMIT_S)
        return heard.body.decode("utf-8", "replace") if not heard.error and heard.status == 200 else None


def _toxic(injection: Injection) -> Toxic:
    assert isinstance(injection.how, Toxic)
    return injection.how
