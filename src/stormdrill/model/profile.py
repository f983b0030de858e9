"""Demand as a function of time: λ(t), and who asks for what."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stormdrill.model.experiment import Scalar


class Piece(Struct, frozen=True):
    """At `at_s` the rate is `factor` × the asked one, and moves in a straight line to the next piece's."""

    at_s: float
    factor: float


class Stream(Struct, frozen=True):
    """One kind of request; shares add up to 1."""

    name: str
    share: float
    labels: dict[str, str]
    deadline_s: float
    parameters: dict[str, Scalar] = {}


class Profile(Struct, frozen=True):
    name: str
    user: str
    """The locustfile in loadgen/ whose open-loop user serves these arrivals."""
    arrivals: Literal["constant", "poisson"]
    shape: tuple[Piece, ...]
    """Empty: the rate stays as asked, as it does before the first piece. The last piece's factor goes on for ever."""
    streams: tuple[Stream, ...]
    description: str = ""
