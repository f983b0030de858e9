"""A container cut from the network: from all of it by disconnecting, from some by packet rules in its own namespace."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from typing import cast

from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Sever
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Engine as EngineCall
from stormdrill.model.undo import Exec, Undo
from stormdrill.ports import Effect
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.fleet import Fleet
from stormdrill.targets.docker.halting import PERMISSION

# Fixed scripts; chain and addresses are their arguments. Nothing is ever flushed but the chain that is our own: the
# engine's rules for names live in that namespace too. -w waits for whoever holds the lock of the tables.
_CUT = (
    'chain=$1 way=$2; shift 2; iptables -w -N "$chain"; for ip; do '
    '[ "$way" = up ] || iptables -w -A "$chain" -s "$ip" -j DROP; '
    '[ "$way" = down ] || iptables -w -A "$chain" -d "$ip" -j DROP; done; '
    '[ "$way" = up ] || iptables -w -I INPUT -j "$chain"; [ "$way" = down ] || iptables -w -I OUTPUT -j "$chain"'
)
_JOIN = (
    'for from in INPUT OUTPUT; do while iptables -w -D "$from" -j "$1" 2>/dev/null; do :; done; done; '
    'iptables -w -F "$1" 2>/dev/null; iptables -w -X "$1" 2>/dev/null; ! iptables -w -n -L "$1" >/dev/null 2>&1'
)
NO_CHAIN = 1
"""What iptables ends with when the chain isn't there; it says so in other words in each of its variants."""
CUT = ("sh", "-ec", _CUT, "sh")
JOIN = ("sh", "-c", _JOIN, "sh")

NO_HELPER = (
    "packet rules need a helper beside each container, which stormdrill starts for its own containers only; "
    "cut one instance from everybody instead, or pause it"
)
MADE_BY_THE_ENGINE = "02:42:"
"""How the hardware addresses begin that an engine derives from the address it has given."""


class Severing:
    """Witness: the container's networks as the engine tells them; with peers, the packets that the rules dropped."""

    permission = f"{PERMISSION}; change packet rules inside a container's own network namespace"

    def __init__(
        self,
        engine: Engine,
        fleet: Fleet,
        address: Callable[[str], str],
        without_rules: Callable[[], str],
        loses: Callable[[str], str],
    ) -> None:
        self._engine = engine
        self._fleet = fleet
        self._address = address
        self._without_rules = without_rules
        self._loses = loses
        self._left: dict[str, tuple[str, ...]] = {}

    def refusal(self, injection: Injection) -> str:
        how = _sever(injection)
        if not how.peers and how.direction != "both":
            return "a disconnected container is cut both ways; name whom it is cut from, or let direction be both"
        return self._without_rules() if how.peers else ""

    def loses(self, injection: Injection) -> str:
        """What connecting it again does not bring back; the plan says so."""
        return "" if _sever(injection).peers else self._loses(injection.instance)

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        one, where = self._fleet.of(injection.instance), self._engine.where
        if _sever(injection).peers:
            helper = self._fleet.of(helper_of(injection.instance))
            argv = (*JOIN, chain_of(injection))
            return (Exec(engine=where, container=helper.id, argv=argv, with_the_run=one.owned),)
        ends = self._endpoints(one.id)
        self._left[injection.id] = tuple(ends)
        return tuple(
            EngineCall(
                engine=where,
                method="POST",
                path=f"/networks/{network}/connect",
                body=json.dumps({"Container": one.id, "EndpointConfig": endpoint}),
                moot=(304, 403, 404, 409),
                with_the_run=one.owned,
            )
            for network, endpoint in ends.items()
        )

    def apply(self, injection: Injection) -> None:
        one, how = self._fleet.of(injection.instance), _sever(injection)
        if how.peers:
            helper = self._fleet.of(helper_of(injection.instance))
            if self._engine.state(one.id).life == "gone":
                raise Unreachable(f"{injection.instance} does not run, and has no network to be cut from")
            if self._stands_outside(injection.instance):
                self._fleet.expect(helper.instance, "kill", "kill", "die", "stop", "start")
                self._engine.act("POST", f"/containers/{helper.id}/restart?t=0")
            addresses = [self._address(peer) for peer in how.peers]
            addresses += self._gateways(one.id) if how.users else []
            code, said = self._engine.run(helper.id, (*CUT, chain_of(injection), how.direction, *addresses))
            if code:
                raise Unreachable(f"the packet rules of {injection.instance}: {said.strip()[-200:]}")
            return
        for network in self._left[injection.id]:
            self._fleet.expect(injection.instance, "network-disconnect", "network-connect")
            self._engine.act("POST", f"/networks/{network}/disconnect", {"Container": one.id})

    def observe(self, injection: Injection) -> Effect:
        if _sever(injection).peers:
            return self._look_at_rules(injection)
        joined = self._endpoints(self._fleet.of(injection.instance).id)
        missing = [network for network in self._left.get(injection.id, ()) if network not in joined]
        said = f"{injection.instance} is on {len(joined)} networks, {len(missing)} taken from it"
        return Effect(bool(missing), not missing, "container state", said)

    def _look_at_rules(self, injection: Injection) -> Effect:
        chain, helper = chain_of(injection), self._fleet.of(helper_of(injection.instance))
        if self._stands_outside(injection.instance):
            said = f"{injection.instance} was started again, and the rules ended with its network before"
            return Effect(False, True, "container state", said)
        code, said = self._engine.run(helper.id, ("iptables", "-w", "-nvx", "-L", chain))
        if code == NO_CHAIN:
            return Effect(False, True, "its packet rules", f"no rules of ours in {injection.instance}")
        if code:
            return Effect(False, False, "its packet rules", f"they can't be read: {said.strip()[-200:]}")
        dropped = sum(int(found) for found in re.findall(r"^\s*(\d+)\s+\d+\s+DROP", said, re.MULTILINE))
        return Effect(dropped > 0, False, "its packet rules", f"{dropped} packets of {injection.instance} dropped")

    def _stands_outside(self, instance: str) -> bool:
        """Whether the instance was started after its helper, which is still in the network that the instance had.
        Raises Unreachable."""
        known = [self._fleet.of(name) for name in (instance, helper_of(instance))]
        one, helper = (self._engine.state(member.id) for member in known)
        if "unknown" in (one.status, helper.status):
            raise Unreachable(f"the engine does not tell when {instance} was started")
        return bool(helper.started_at) and one.started_at.rstrip("Z") > helper.started_at.rstrip("Z")

    def _gateways(self, container: str) -> list[str]:
        """Where all comes from that enters by a published port."""
        found = self._engine.inspect(container)
        settings = cast("dict[str, dict[str, dict[str, object]]]", found["NetworkSettings"]) if found else {}
        ends = (settings.get("Networks") or {}).values()
        return [str(end["Gateway"]) for end in ends if end.get("Gateway")]

    def _endpoints(self, container: str) -> dict[str, dict[str, object]]:
        """Network → what it takes to join it again as before: all that was asked for when it joined."""
        found = self._engine.inspect(container) or {}
        settings = cast("dict[str, dict[str, dict[str, object]]]", found.get("NetworkSettings") or {})
        given = cast("dict[str, object]", found.get("Config") or {}).get("MacAddress")
        ends = (settings.get("Networks") or {}).items()
        return {name: _asked(end, container, str(given or "")) for name, end in ends}


def _asked(end: dict[str, object], container: str, mac: str) -> dict[str, object]:
    """How a container asked to join a network. `mac`: what it was given as a whole, as older engines tell it."""
    kept = {name: end[name] for name in ("IPAMConfig", "Links", "DriverOpts") if end.get(name)}
    own = str(end.get("MacAddress") or "")
    if own and (own == mac or not own.startswith(MADE_BY_THE_ENGINE)):
        kept["MacAddress"] = own
    aliases = [item for item in cast("list[str]", end.get("Aliases") or []) if item != container[:12]]
    return {**kept, "Aliases": aliases}


def helper_of(instance: str) -> str:
    return f"{instance}.net"


def chain_of(injection: Injection) -> str:
    """A name of at most 28 letters, the injection's own."""
    return f"STORMDRILL-{zlib.crc32(injection.id.encode()):08x}"


def _sever(injection: Injection) -> Sever:
    assert isinstance(injection.how, Sever)
    return injection.how
