"""What a toxic is: its kind, its numbers and the hops it is on, read from the body of a request and checked whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

DIRECTIONS = ("up", "down", "both")
"""`up`: from the caller to the callee."""
DISTRIBUTIONS = ("uniform", "normal", "pareto")
KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "delay": ("delay_ms", "jitter_ms", "distribution", "direction"),
        "stall": ("direction",),
        "trickle": ("bytes_per_s", "direction"),
        "squeeze": ("bytes_per_s", "direction"),
        "reset": (),
        "refuse": (),
        "cut": ("direction",),
    }
)
COMMON = ("routes", "kind", "seed", "expires_in_s")
LONGEST_DELAY_MS = 600_000
LONGEST_LIFE_S = 86_400
LONGEST_TAG = 200


class ToxicError(Exception):
    """The request can't be carried out; says every problem and what to write."""

    def __init__(self, status: int, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.status = status


@dataclass(frozen=True, slots=True)
class Toxic:
    """One disturbance of some hops, under one tag."""

    tag: str
    routes: tuple[str, ...]
    kind: str
    direction: str = "both"
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    distribution: str = "uniform"
    bytes_per_s: float = 0.0
    seed: str = ""
    """Of the jitter; the tag when none was given."""

    def touches(self, direction: str) -> bool:
        return self.direction in (direction, "both")

    def numbers(self) -> dict[str, object]:
        """The fields that its kind has."""
        shown: dict[str, object] = {name: getattr(self, name) for name in KINDS[self.kind]}
        if self.kind == "delay":
            shown["seed"] = self.seed
        return shown


def read(tag: str, body: bytes, known: Mapping[str, object]) -> tuple[Toxic, float | None]:
    """The toxic, and after how many seconds it ends by itself. Raises ToxicError."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ToxicError(400, [f'the body is not JSON ({error}); write {{"routes": [...], "kind": ...}}']) from None
    if not isinstance(asked, dict):
        raise ToxicError(400, ['the body is not an object; write {"routes": [...], "kind": ...}'])
    problems = [*_of_tag(tag), *_of_kind(asked), *_of_routes(asked), *_of_common(asked)]
    if problems:
        raise ToxicError(400, problems)
    routes = tuple(dict.fromkeys(asked["routes"]))
    strange = [name for name in routes if name not in known]
    if strange:
        raise ToxicError(404, [f"no route {', '.join(strange)}; there are {', '.join(sorted(known)) or 'none'}"])
    life_s = asked.get("expires_in_s")
    kind = asked["kind"]
    toxic = Toxic(
        tag=tag,
        routes=routes,
        kind=kind,
        direction=asked.get("direction", "down" if kind == "delay" else "both"),
        delay_ms=float(asked.get("delay_ms", 0)),
        jitter_ms=float(asked.get("jitter_ms", 0)),
        distribution=asked.get("distribution", "uniform"),
        bytes_per_s=float(asked.get("bytes_per_s", 0)),
        seed=str(asked.get("seed", tag)),
    )
    return toxic, None if life_s is None else float(life_s)


def _of_tag(tag: str) -> Iterator[str]:
    if not tag or len(tag) > LONGEST_TAG or not tag.isprintable():
        yield f"the tag is {tag[:40]!r}; write 1 to {LONGEST_TAG} printable characters after /toxics/, percent-encoded"


def _of_kind(asked: Mapping[str, object]) -> Iterator[str]:
    kind = asked.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        yield f"`kind` is {_said(kind)}; write one of {', '.join(KINDS)}"
        return
    fields = KINDS[kind]
    strange = [name for name in asked if name not in fields and name not in COMMON]
    if strange:
        yield f"{kind} has no {', '.join(f'`{name}`' for name in strange)}; it has {', '.join((*fields, *COMMON))}"
    if "direction" in fields:
        yield from _one_of(asked, "direction", DIRECTIONS)
    if "distribution" in fields:
        yield from _one_of(asked, "distribution", DISTRIBUTIONS)
    if "delay_ms" in fields:
        yield from _number(asked, "delay_ms", 0, LONGEST_DELAY_MS, needed=True)
        yield from _number(asked, "jitter_ms", 0, LONGEST_DELAY_MS)
    if "bytes_per_s" in fields:
        yield from _number(asked, "bytes_per_s", 1, 1e12, needed=True)


def _of_routes(asked: Mapping[str, object]) -> Iterator[str]:
    routes = asked.get("routes")
    if not isinstance(routes, list) or not routes or not all(isinstance(name, str) for name in routes):
        yield f'`routes` is {_said(routes)}; write a list of names such as ["edge-1>gateway-eu"]'


def _of_common(asked: Mapping[str, object]) -> Iterator[str]:
    yield from _number(asked, "expires_in_s", 0.001, LONGEST_LIFE_S)
    seed = asked.get("seed", "")
    if isinstance(seed, bool) or not isinstance(seed, int | str):
        yield f"`seed` is {_said(seed)}; write a whole number or a text"


def _one_of(asked: Mapping[str, object], name: str, words: tuple[str, ...]) -> Iterator[str]:
    if name in asked and asked[name] not in words:
        yield f"`{name}` is {_said(asked[name])}; write one of {', '.join(words)}"


def _number(
    asked: Mapping[str, object], name: str, lowest: float, highest: float, needed: bool = False
) -> Iterator[str]:
    value = asked.get(name)
    if value is None and not needed:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not _within(value, lowest, highest):
        yield f"`{name}` is {_said(value)}; write a number from {lowest:g} to {highest:g}"


def _within(value: float, lowest: float, highest: float) -> bool:
    return (
        math.isfinite(value) and lowest <= value <= highest if isinstance(value, float) else lowest <= value <= highest
    )


def _said(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
