"""What a run has claimed on container engines: remembered from its journal, removed when the run ends.

A container or network is ours when it carries the label `stormdrill=<run>`. A claimed name tells where to look before
anything was made; what bears such a name without the label was made by somebody else and is left.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import NamedTuple, cast
from urllib.parse import quote

from stormdrill.keeper.exchange import exchange
from stormdrill.keeper.heard import Heard
from stormdrill.keeper.loop import Steps, Wait, together
from stormdrill.model.event_base import Event
from stormdrill.model.event_engine import ContainerStarted, ResourcesClaimed

LABEL = "stormdrill"
LIMIT_S = 20.0
"""The longest that removing takes: an engine that restarts needs some seconds to answer again."""
SETTLE_S = 1.5
"""How long a claimed name that was never seen is waited for: the engine may still be making it, for a runner that died
or gave it up."""
_CALL_S = 10.0
_ROUND_S = 0.1
Objects = list[dict[str, object]]


def base_name(run: str) -> str:
    """The name of a run's network, with which the names of all that it makes on an engine begin."""
    return f"stormdrill-{run}"


def is_named(name: str, base: str) -> bool:
    """Whether somebody has named it so; a label alone can be inherited, by way of a committed image for instance."""
    return name == base or name.startswith(f"{base}-")


class Removed(NamedTuple):
    names: tuple[str, ...]
    left: tuple[str, ...]
    """Each with what a person can do."""
    foreign: tuple[str, ...]
    """What bears a claimed name and is not ours."""


@dataclass(slots=True)
class _Claim:
    containers: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    """Claimed names that are known to have been made."""


@dataclass(slots=True)
class Claims:
    """Of one run."""

    run: str
    open: bool = False
    """Something may be there: claimed, and not removed since."""
    base: str = ""
    """Only what is named so is removed; empty: whatever bears the label."""
    _engines: dict[str, _Claim] = field(default_factory=dict)
    _owned: dict[str, str] = field(default_factory=dict)
    """Id or name of a container that the run made → where it answers."""

    def note(self, event: Event) -> None:
        """Whatever is written down; most of it claims nothing."""
        if isinstance(event, ResourcesClaimed):
            claim = self._engines.setdefault(event.engine, _Claim())
            claim.containers |= set(event.containers)
            claim.networks |= set(event.networks)
            self.open = True
        elif isinstance(event, ContainerStarted) and event.owned:
            self._owned |= {event.container: event.address, event.name: event.address}
            self.open = True
            for claim in self._engines.values():
                if event.name in claim.containers:
                    claim.seen |= {event.name, *claim.networks}  # a container starts after its networks

    def addresses(self) -> list[str]:
        """Where containers of the run answer."""
        return [address for address in self._owned.values() if address]

    def owns(self, container: str) -> bool:
        """Whether this container, by id or name, is removed with the run."""
        return container in self._owned

    def remove(self, *, settle: bool) -> Steps[Removed]:
        """Everything of this run on every engine that it claimed; looked at again until nothing is left.

        `settle`: whoever made it died or gave it up, so that an engine may still be making something.
        """
        clearing = [_Clearing(engine, self.run, claim, settle, self.base) for engine, claim in self._engines.items()]
        each = yield from together([one.clear() for one in clearing])
        left = tuple(text for removed in each for text in removed.left)
        self.open = bool(left)
        return Removed(
            tuple(name for removed in each for name in removed.names),
            left,
            tuple(text for removed in each for text in removed.foreign),
        )


class _Clearing:
    """Removes one run's things from one engine."""

    def __init__(self, engine: str, run: str, claim: _Claim, settle: bool, base: str) -> None:
        self._engine, self._run, self._claim, self._base = engine, run, claim, base
        self._until_s = time.monotonic() + LIMIT_S
        self._settled_s = time.monotonic() + (SETTLE_S if settle else 0.0)
        self._removed: dict[str, str] = {}
        """Id → name."""
        self._trouble = ""

    def clear(self) -> Steps[Removed]:
        while True:
            there = yield from self._look()
            if there is not None:
                if not any(there) and not self._may_be_coming():
                    return Removed(tuple(self._removed.values()), (), (yield from self._foreign()))
                self._trouble = ""
                yield from self._remove(*there)
            if time.monotonic() >= self._until_s:
                return Removed(tuple(self._removed.values()), self._left(there), ())
            if self._trouble or there is None or not any(there):
                yield Wait(lambda: False, _ROUND_S)

    def _may_be_coming(self) -> bool:
        names = self._claim.containers | self._claim.networks
        unseen = names - self._claim.seen - set(self._removed.values())
        return bool(unseen) and time.monotonic() < self._settled_s

    def _look(self) -> Steps[tuple[Objects, Objects, Objects] | None]:
        """Containers, networks and volumes with our label; None when the engine doesn't tell."""
        wanted = quote(json.dumps({"label": [f"{LABEL}={self._run}"]}), safe="")
        lists = ("/containers/json?all=1&", "/networks?", "/volumes?")
        heard = yield from together([self._ask("GET", f"{path}filters={wanted}") for path in lists])
        found = [self._wanted(_listed(one)) for one in heard]
        if any(one is None for one in found):
            bad = heard[next(number for number, one in enumerate(found) if one is None)]
            self._trouble = bad.error or f"it answered {bad.status}"
            return None
        containers, networks, volumes = cast("list[Objects]", found)
        return containers, networks, volumes

    def _wanted(self, found: Objects | None) -> Objects | None:
        return [one for one in found if is_named(_name_of(one), self._base)] if found and self._base else found

    def _remove(self, containers: Objects, networks: Objects, volumes: Objects) -> Steps[None]:
        yield from together([self._remove_container(one) for one in containers])
        yield from together([self._remove_network(one) for one in networks])
        yield from together([self._remove_volume(one) for one in volumes])

    def _remove_container(self, found: dict[str, object]) -> Steps[None]:
        number = str(found.get("Id"))
        if found.get("State") == "paused":  # an engine may refuse to kill what is paused
            yield from self._ask("POST", f"/containers/{number}/unpause")
        heard = yield from self._ask("DELETE", f"/containers/{number}?force=1&v=1")
        self._took(heard, number, _name_of(found))

    def _remove_network(self, found: dict[str, object]) -> Steps[None]:
        number = str(found.get("Id"))
        heard = yield from self._ask("DELETE", f"/networks/{number}")
        if heard.status == 403:  # it has endpoints left
            inspected = yield from self._ask("GET", f"/networks/{number}")
            for container in cast("dict[str, object]", _object(inspected).get("Containers") or {}):
                body = json.dumps({"Container": container, "Force": True})
                yield from self._ask("POST", f"/networks/{number}/disconnect", body)
            heard = yield from self._ask("DELETE", f"/networks/{number}")
        self._took(heard, number, _name_of(found))

    def _remove_volume(self, found: dict[str, object]) -> Steps[None]:
        name = str(found.get("Name"))
        heard = yield from self._ask("DELETE", f"/volumes/{quote(name, safe='')}?force=1")
        self._took(heard, f"volume {name}", name)

    def _took(self, heard: Heard, number: str, name: str) -> None:
        if heard.status in (200, 204, 404):
            self._removed[number] = name
        else:
            self._trouble = heard.error or f"it answered {heard.status}: {_object(heard).get('message', '')}"

    def _foreign(self) -> Steps[tuple[str, ...]]:
        names = [("containers", "container", name) for name in sorted(self._claim.containers)]
        names += [("networks", "network", name) for name in sorted(self._claim.networks)]
        suffix = {"containers": "/json", "networks": ""}
        asked = [self._ask("GET", f"/{room}/{quote(name, safe='')}{suffix[room]}") for room, _, name in names]
        heard = yield from together(asked)
        return tuple(
            f"a {kind} that is not of this run bears the claimed name {name}; it was left"
            for (_, kind, name), one in zip(names, heard, strict=True)
            if one.status == 200 and not one.error
        )

    def _left(self, there: tuple[Objects, Objects, Objects] | None) -> tuple[str, ...]:
        host = "" if self._engine.startswith("unix:///var/run/docker.sock") else f" -H {self._engine}"
        if there is None:
            silent = (
                f"{self._engine} did not answer for {LIMIT_S:g} s ({self._trouble}), so that containers and networks "
            )
            mend = f"start it again, then: stormdrill recover {self._run}"
            return (f"{silent}with the label {LABEL}={self._run} may be left; {mend}",)
        verbs = (("container", "rm -f -v"), ("network", "network rm"), ("volume", "volume rm -f"))
        left = []
        for (kind, verb), found in zip(verbs, there, strict=True):
            for name in map(_name_of, found):
                left.append(
                    f"{kind} {name} could not be removed ({self._trouble or 'it came back'}); "
                    f"remove it: docker{host} {verb} {name}, then: stormdrill recover {self._run}"
                )
        return tuple(left)

    def _ask(self, method: str, path: str, body: str = "") -> Steps[Heard]:
        return exchange(self._engine, method, path, body, max(0.2, min(_CALL_S, self._until_s - time.monotonic())))


def _listed(heard: Heard) -> Objects | None:
    """The objects of a list; an engine without volumes or networks has none; None when it can't be told."""
    if heard.error or heard.status not in (200, 404, 501):
        return None
    if heard.status != 200:
        return []
    try:
        found = json.loads(heard.body)
    except ValueError:
        return None
    if isinstance(found, dict):
        found = found.get("Volumes") or []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else None


def _object(heard: Heard) -> dict[str, object]:
    try:
        found = json.loads(heard.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _name_of(found: dict[str, object]) -> str:
    names = found.get("Names")
    name = names[0] if isinstance(names, list) and names else found.get("Name") or found.get("Id")
    return str(name).lstrip("/")
