"""What a plan stands on, fact by fact, so that a later plan can be told from it, and how. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import msgspec

from stormdrill.model.plan import Plan

LENGTH = 12
SHOWN = 8
LONGEST, BEFORE = 160, 60
"""Letters of a fact that are shown, and of them those before the first that differs."""
NAMES = ("name", "word", "source", "id")
_NONE = object()
APART = {("system", "instances"), ("system", "docker")}
"""Whose facts are named one by one; where an image is built says less than its id."""


def facts(plan: Plan) -> dict[str, str]:
    """What is asked, who is there and how they hang together, who is hit, how and how long, what is sent, what answers
    it; not the seed, which changes nothing that is harmed.

    Of an instance in a container its image's id, or its own when it runs already, is part of it.
    """
    found = {"target": plan.target, **plan.files}
    for what, part in (("experiment", plan.experiment), ("system", plan.system), ("profile", plan.profile)):
        for name in part.__struct_fields__ if part is not None else ():
            if (what, name) not in APART:
                found[f"{what} {name}"] = _text(getattr(part, name))
    if plan.system.docker and plan.system.docker.resolved:
        found["compose file"] = plan.system.docker.resolved
    for at in plan.clusters:
        found[f"cluster {at.name}".rstrip()] = _text([at.context, at.server, at.namespace])
    for item in plan.system.instances:
        told = [item.service, item.labels, item.command, item.env, item.devices, item.memory_mb, item.cpus]
        found[f"instance {item.name}"] = _text([*told, item.image, item.select])
    for one in plan.injections:
        # where the undo's limits lie is no part of the harm
        kept = [one.instance, one.mechanism, one.start_s, one.for_s, one.how, one.undo]
        found[f"injection {one.id}"] = _text(kept)
    return found


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def digest(found: Mapping[str, str]) -> str:
    return hashlib.sha256(_text(dict(found)).encode()).hexdigest()[:LENGTH]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Each fact that differs, the first few, in a stable order; of one that has parts, the part."""
    said = []
    for name in sorted({*before, *now}):
        was, then = before.get(name), now.get(name)
        if was is None or then is None:
            said.append(_one(name, _value(was), _value(then)))
        elif was != then:
            said += [_one(place, one, other) for place, one, other in _apart(name, _value(was), _value(then))]
    more = len(said) - SHOWN
    return said[:SHOWN] + ([f"and {more} more"] if more > 0 else [])


def _value(fact: str | None) -> object:
    """What `_text` was given; a fact that is plain text is itself."""
    if fact is None:
        return _NONE
    try:
        value: object = msgspec.json.decode(fact)
    except msgspec.DecodeError:
        return fact
    return value if isinstance(value, dict | list | str) else fact


def _apart(place: str, one: object, other: object) -> Iterator[tuple[str, object, object]]:
    """The smallest parts in which two facts differ, each with its place."""
    if isinstance(one, dict) and isinstance(other, dict) and {*one} & {*other}:
        for key in sorted({*one, *other}):
            if one.get(key, _NONE) != other.get(key, _NONE):
                yield from _apart(f"{place} {key}", one.get(key, _NONE), other.get(key, _NONE))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other, strict=True), 1):
            if first != second:
                yield from _apart(f"{place} {_named(first, second) or number}", first, second)
    else:
        yield place, one, other


def _named(one: object, other: object) -> str:
    """By which an item of a list is known; a number says less."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return ""
    return next((str(one[key]) for key in NAMES if key in one and one[key] == other.get(key)), "")


def _one(place: str, was: object, then: object) -> str:
    one, other = _said(was), _said(then)
    if was is _NONE:
        return f"{place} is new: {_short(other)}"
    if then is _NONE:
        return f"{place} is gone: it was {_short(one)}"
    return f"{place} was {_short(one, _same(one, other))} and is {_short(other, _same(one, other))}"


def _said(value: object) -> str:
    return value if isinstance(value, str) and value else _text(value) if value is not _NONE else ""


def _same(one: str, two: str) -> int:
    """How many letters both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _short(text: str, same: int = 0) -> str:
    """Of a long one what begins a little before the letter in which it differs."""
    if len(text) <= LONGEST:
        return text
    begin = max(0, same - BEFORE)
    return f"{'…' if begin else ''}{text[begin : begin + LONGEST]}{'…' if begin + LONGEST < len(text) else ''}"
