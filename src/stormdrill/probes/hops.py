"""What passed each hop, as the run's own fault proxy counts it."""

from __future__ import annotations

import msgspec

from stormdrill.errors import Unreachable
from stormdrill.keeper.limited import request

ANSWER_LIMIT = 16_000_000
"""Bytes: thousands of hops are told of in one answer."""


class _Route(msgspec.Struct, frozen=True):
    name: str
    bytes_up: int
    bytes_down: int


_ROUTES = msgspec.json.Decoder(list[_Route])


def read_hops(control: str, timeout_s: float) -> dict[str, float]:
    """Hop → bytes that passed it, both ways, since the proxy started. Raises Unreachable."""
    heard = request("GET", f"http://{control}/routes", "", timeout_s, body_limit=ANSWER_LIMIT)
    if heard.error or heard.status != 200:
        raise Unreachable(f"the fault proxy at {control}: {heard.error or f'it answered {heard.status}'}")
    try:
        routes = _ROUTES.decode(heard.body)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"the fault proxy at {control} told no routes: {error}") from error
    return {route.name: float(route.bytes_up + route.bytes_down) for route in routes}
