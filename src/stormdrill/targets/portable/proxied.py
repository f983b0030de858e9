"""Toxics on the hops that pass a fault proxy of ours, switched over its control address."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import msgspec
from msgspec import Struct

from stormdrill.errors import Unreachable
from stormdrill.keeper.limited import Heard, request
from stormdrill.keeper.loop import run_now
from stormdrill.keeper.undo_engine import REFUSED, ended
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Clear, Undo
from stormdrill.ports import Effect

FIELDS: dict[str, tuple[str, ...]] = {
    "delay": ("delay_ms", "jitter_ms", "distribution", "direction"),
    "stall": ("direction",),
    "trickle": ("bytes_per_s", "direction"),
    "squeeze": ("bytes_per_s", "direction"),
    "reset": (),
    "refuse": (),
    "cut": ("direction",),
}
"""What the proxy takes with each kind; it refuses anything else."""
WORDS = tuple(FIELDS)
RATED = ("trickle", "squeeze")
"""They touch what has to wait for its turn: a connection counts as soon as it does."""
WITNESS = "the fault proxy"
CALL_LIMIT_S = 2.0
LONGEST_DELAY_MS = 600_000.0
SPEEDS_BYTES_PER_S = (1.0, 1e12)
LONGEST_LIFE_S = 86_400.0
LONGEST_TAG = 200
"""What the proxy takes, which nobody imports: told when planning, not when the harm is due."""
ANSWER_LIMIT = 16_000_000
"""Bytes: thousands of hops are told of in one answer."""
EXPIRY_GRACE_S = 10.0
"""The proxy drops a toxic by itself this long after its planned end: after the keeper would have."""


class Listed(Struct, frozen=True):
    """One toxic as the proxy tells of it."""

    tag: str
    connections: int = 0
    bytes: int = 0
    refused: int = 0


class Listening(Struct, frozen=True):
    """One hop as the proxy tells of it."""

    name: str
    listening: bool = True


_LISTED = msgspec.json.Decoder(list[Listed])
_ROUTES = msgspec.json.Decoder(list[Listening])


class Toxics:
    """All words of the proxy. Its own word on what is in force is the witness: it sees the bytes, the call doesn't."""

    permission = "talk to the run's own fault proxy"

    def __init__(
        self,
        control: Callable[[], str],
        known: Callable[[], frozenset[str]],
        container: Callable[[], tuple[str, str]] = lambda: ("", ""),
    ) -> None:
        """`container`: which one the proxy runs in, and its engine before it; empty: it is a process."""
        self._control = control
        self._known = known
        self._container = container

    def refusal(self, injection: Injection) -> str:
        toxic = _toxic(injection)
        missing = sorted(set(toxic.hops) - self._known())
        if missing:
            return f"no proxy of ours on {', '.join(missing)}; declare the hop under `dependencies` in the system file"
        return beyond(injection, toxic)

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        engine, container = self._container()
        return (Clear(address=self._control(), tag=injection.id, engine=engine, container=container),)

    def apply(self, injection: Injection) -> None:
        toxic = _toxic(injection)
        body = {
            "routes": list(toxic.hops),
            "kind": toxic.kind,
            "expires_in_s": injection.for_s + EXPIRY_GRACE_S,
            **{name: getattr(toxic, name) for name in FIELDS[toxic.kind]},
        }
        heard = self._ask("PUT", f"/toxics/{quote(injection.id, safe='')}", json.dumps(body))
        if heard.error or heard.status != 200:
            said = heard.error or heard.body[:200].decode("utf-8", "replace")
            raise Unreachable(f"the fault proxy at {self._control()} did not take {toxic.kind}: {said}")

    def observe(self, injection: Injection) -> Effect:
        heard = self._ask("GET", "/toxics", "")
        try:
            listed = _LISTED.decode(heard.body) if not heard.error and heard.status == 200 else None
        except msgspec.MsgspecError:
            listed = None
        if heard.error.endswith(REFUSED) and run_now(ended(*self._container())):
            return Effect(False, True, WITNESS, "nobody listens at its control: a proxy that is gone shapes nothing")
        if listed is None:
            return Effect(False, False, WITNESS, heard.error or f"it answered {heard.status}")
        found = next((one for one in listed if one.tag == injection.id), None)
        if found is None:
            return Effect(False, True, WITNESS, f"no {injection.mechanism} any more")
        where = f"{injection.mechanism} on {len(_toxic(injection).hops)} hops"
        if injection.mechanism == "refuse" and not found.refused:
            return self._deaf(injection, where)
        touched = f"touched {found.bytes} bytes of {found.connections} connections, reset {found.refused}"
        # in force where nothing passes, or nothing has to wait, it harms nobody: that is no effect
        slowed = injection.mechanism in RATED and found.connections > 0
        return Effect(found.bytes + found.refused > 0 or slowed, False, WITNESS, f"{where} {touched}")

    def _deaf(self, injection: Injection, where: str) -> Effect:
        """Who got ECONNREFUSED is known to the caller alone; that nobody listens can be seen."""
        heard = self._ask("GET", "/routes", "")
        try:
            routes = _ROUTES.decode(heard.body) if not heard.error and heard.status == 200 else []
        except msgspec.MsgspecError:
            routes = []
        hops = _toxic(injection).hops
        deaf = [route.name for route in routes if route.name in hops and not route.listening]
        return Effect(len(deaf) == len(hops), False, WITNESS, f"{where}: nobody listens on {len(deaf)}")

    def _ask(self, method: str, path: str, body: str) -> Heard:
        return request(method, f"http://{self._control()}{path}", body, CALL_LIMIT_S, body_limit=ANSWER_LIMIT)


def beyond(injection: Injection, toxic: Toxic) -> str:
    """What the proxy would answer with 400 when it is too late to say so."""
    lowest, highest = SPEEDS_BYTES_PER_S
    if toxic.delay_ms > LONGEST_DELAY_MS or toxic.jitter_ms > LONGEST_DELAY_MS:
        return f"the fault proxy takes a delay or jitter of {LONGEST_DELAY_MS / 1000:g}s at most; write less, or stall"
    if "bytes_per_s" in FIELDS[toxic.kind] and not lowest <= toxic.bytes_per_s <= highest:
        return f"the fault proxy takes {lowest:g}B/s to {highest / 1024**3:.0f}GB/s; write more, less, or stall"
    if injection.longest_s + EXPIRY_GRACE_S > LONGEST_LIFE_S:
        most_s = LONGEST_LIFE_S - EXPIRY_GRACE_S - (injection.longest_s - injection.for_s)
        return f"the fault proxy takes what lasts {most_s:g}s at most; make it shorter"
    if len(injection.id) > LONGEST_TAG:
        return f"the fault proxy takes tags of {LONGEST_TAG} characters at most, not {injection.id}; use shorter names"
    return ""


def _toxic(injection: Injection) -> Toxic:
    assert isinstance(injection.how, Toxic)
    return injection.how
