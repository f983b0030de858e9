"""A gateway's dealings with the other regions: claims out, claims in, health, settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

from aiohttp import ClientSession, ClientTimeout
from msgspec.json import decode, encode

from stormdrill.platform.broken import SplitBrain
from stormdrill.platform.messages import Claims, ClaimsAnswer, Health
from stormdrill.platform.region import Region
from stormdrill.platform.service import CALL_ERRORS, JSON, log, repeat
from stormdrill.platform.store import Claim
from stormdrill.platform.wiring import Peer

EVERYTHING = 1_000_000
CLAIMS_A_CALL = 500
OUTBOX_EVERY_S = 0.1
PROBE_EVERY_S = 0.5
ANSWER_LIMIT_S = 0.4
"""A peer that lives answers its health check well within this, also on a busy machine."""
CLAIMS_LIMIT_S = 1.0
REJOIN_LIMIT_S = 3.0
"""So long a region that was away waits for a peer that doesn't answer before it serves again without it."""
REJOIN_RETRY_S = 0.1
LAST_KNOWN_S = 15.0
"""So long the arrivals of a region that went silent are counted as still to come."""
MISSES_TO_LOSE = 2
"""Probes in a row without an answer."""
_HEADERS = {"Content-Type": JSON}


class PeerView:
    """What we know of another region, and since when."""

    def __init__(self) -> None:
        self.health: Health | None = None
        self.answered_s = float("-inf")
        self.silent = 0
        """Probes in a row without an answer."""

    @property
    def healthy(self) -> bool:
        """The last word was an answer, and it said ready; one missed probe is not yet a loss."""
        return self.health is not None and self.health.ready and self.silent < MISSES_TO_LOSE


class Peers:
    def __init__(self, region: Region, peers: Mapping[str, Peer], session: ClientSession) -> None:
        self._region = region
        self._peers = dict(peers)
        self._session = session
        self.views = {name: PeerView() for name in self._peers}

    def works(self) -> Sequence[Coroutine[None, None, None]]:
        return [
            self._rejoins(),
            *(self._outbox(name, peer) for name, peer in self._peers.items()),
            *(repeat(PROBE_EVERY_S, self._prober(name, peer)) for name, peer in self._peers.items()),
        ]

    @property
    def unseen(self) -> tuple[str, ...]:
        """Regions that don't answer from here, whatever others see of them."""
        return tuple(name for name, view in self.views.items() if view.silent >= MISSES_TO_LOSE)

    async def fetch_claims(self) -> bool:
        """Ask every peer what it has taken from us; True when all have answered."""
        asked = (self._fetch(peer) for peer in self._peers.values())
        return all(await asyncio.gather(*asked))

    async def push_settings(self) -> None:
        """Let the others know at once what a person has just set here; who misses it hears it with the next probe."""
        body = encode(self._region.control.snapshot())
        await asyncio.gather(*(self._post(peer, "/control", body, ANSWER_LIMIT_S) for peer in self._peers.values()))

    async def _fetch(self, peer: Peer) -> bool:
        url = f"{peer.url}/claims?against={self._region.name}"
        try:
            async with self._session.get(url, timeout=ClientTimeout(total=CLAIMS_LIMIT_S)) as response:
                held = decode(await response.read(), type=Claims)
        except CALL_ERRORS:
            return False
        self._region.supersede(held.owner, held.claims)
        self._region.control.merge(held.control)
        return True

    async def _rejoins(self) -> None:
        """Whenever the region was away: hear the others, then serve again."""
        while True:
            if not self._region.active:
                await self._rejoin()
            await asyncio.sleep(REJOIN_RETRY_S / 2)

    async def _rejoin(self) -> None:
        epoch, began_s = self._region.epoch, time.monotonic()
        while not await self.fetch_claims():
            if time.monotonic() - began_s > REJOIN_LIMIT_S:
                log.warning("a peer doesn't answer: rejoining without its claims, they void what they must later")
                break
            await asyncio.sleep(REJOIN_RETRY_S)
        if self._region.epoch == epoch:
            self._region.finish_rejoin()
            log.info("active as epoch %d after %.3f s", epoch, time.monotonic() - began_s)

    async def _outbox(self, name: str, peer: Peer) -> None:
        """Deliver claims until they are confirmed, in order, for ever if need be."""
        while True:
            held = self._region.store.claims_against(name, CLAIMS_A_CALL)
            if held:
                await self._deliver(name, peer, held)
            if len(held) < CLAIMS_A_CALL:
                await asyncio.sleep(OUTBOX_EVERY_S)

    async def _deliver(self, name: str, peer: Peer, held: Sequence[Claim]) -> None:
        body = await self._post(peer, "/claims", encode(Claims(self._region.name, tuple(held))), CLAIMS_LIMIT_S)
        if body is not None:
            self._region.settle(name, held, set(decode(body, type=ClaimsAnswer).done_here))

    async def _post(self, peer: Peer, path: str, body: bytes, limit_s: float) -> bytes | None:
        try:
            async with self._session.post(
                f"{peer.url}{path}", data=body, headers=_HEADERS, timeout=ClientTimeout(total=limit_s)
            ) as response:
                payload = await response.read()
                return payload if response.status == 200 else None
        except CALL_ERRORS:
            return None

    def _prober(self, name: str, peer: Peer) -> Callable[[], Awaitable[None]]:
        view = self.views[name]

        async def probe() -> None:
            try:
                async with self._session.get(
                    f"{peer.url}/healthz", timeout=ClientTimeout(total=ANSWER_LIMIT_S)
                ) as response:
                    health = decode(await response.read(), type=Health)
            except CALL_ERRORS:
                view.silent += 1
                if isinstance(self._region, SplitBrain) and view.silent == MISSES_TO_LOSE and view.health is not None:
                    self._region.adopt(view.health.open_jobs)
                return
            view.health, view.silent, view.answered_s = health, 0, time.monotonic()
            self._region.control.merge(health.control)

        return probe

    # capacity, as seen from here

    def headroom_per_s(self) -> float:
        """Jobs a second that the usable regions can carry beyond what arrives or is about to move here."""
        region = self._region
        own = 0.0 if region.control.drained(region.name) else region.capacity_per_s()
        capacity, demand, about_to_move = own, region.arrivals_per_s("own"), 0.0
        for name, view in self.views.items():
            if view.health is None:
                continue
            if view.healthy and not region.control.drained(name):
                capacity += view.health.capacity_per_s
                demand += view.health.own_arrivals_per_s
            elif time.monotonic() - view.answered_s < LAST_KNOWN_S or view.healthy:
                about_to_move += view.health.own_arrivals_per_s
        return capacity - demand - max(region.arrivals_per_s("foreign"), about_to_move)
