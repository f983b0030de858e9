"""What a plan stands on, fact by fact, so that a later plan can be told from it, and how. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from stormdrill.model.plan import Plan

LENGTH = 12
SHOWN = 5


def facts(plan: Plan) -> dict[str, str]:
    """What is asked, who is there, who is hit, how and how long; not the seed, which changes nothing that is harmed.

    Of an instance in a container its image's id, or its own when it runs already, is part of it.
    """
    found = {"target": plan.target}
    for name in plan.experiment.__struct_fields__:
        found[f"experiment {name}"] = _text(getattr(plan.experiment, name))
    if plan.system.docker and plan.system.docker.resolved:
        found["compose file"] = plan.system.docker.resolved
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
    """Each fact that differs, the first few, in a stable order."""
    said = []
    for name in sorted({*before, *now}):
        was, then = before.get(name), now.get(name)
        if was is None:
            said.append(f"{name} is new: {_short(then)}")
        elif then is None:
            said.append(f"{name} is gone: it was {_short(was)}")
        elif was != then:
            said.append(f"{name} was {_short(was)} and is {_short(then)}")
    more = len(said) - SHOWN
    return said[:SHOWN] + ([f"and {more} more"] if more > 0 else [])


def _short(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= 160 else text[:157] + "…"
