"""What runbooks and people may ask of a gateway, for the whole platform: drain, shed, capacity, scale, replay."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from msgspec import Struct

from stormdrill.platform.control import RELEASES, SHED, SHED_LEVELS, Register, Release
from stormdrill.platform.jobs import POOLS
from stormdrill.platform.messages import Refusal
from stormdrill.platform.peers import Peers
from stormdrill.platform.region import Region
from stormdrill.platform.service import Handler, answer, log, read


class RegionView(Struct, frozen=True):
    region: str
    healthy: bool
    """It has answered its last health check, and said that it can serve."""
    draining: bool
    """No new work enters; what was accepted there stays in its queue."""
    seen_by: str
    elsewhere: bool
    """Another region is healthy, and not drained."""
    queue_depth: int | None = None
    """As of its last answer."""


class Drained(Struct, frozen=True):
    region: str
    draining: bool
    draining_before: bool


class ShedLevel(Struct, frozen=True):
    level: int


class ShedLevelSet(Struct, frozen=True):
    level: int
    level_before: int


class Capacity(Struct, frozen=True):
    headroom: float
    """Jobs a second left; negative: something must be shed."""
    seen_by: str


class Scale(Struct, frozen=True):
    slots: int | None
    """None: back to the autoscaler."""


class Scaled(Struct, frozen=True):
    pool: str
    slots: int
    slots_before: int
    pinned: bool
    quota: int


class RollOut(Struct, frozen=True):
    version: str


class Replayed(Struct, frozen=True):
    queued: int
    epoch: int


class Admin:
    def __init__(self, region: Region, peers: Peers) -> None:
        self._region = region
        self._peers = peers

    def routes(self) -> Mapping[str, Handler]:
        return {
            "GET /regions/{region}": self.region,
            "POST /regions/{region}/drain": self.drain,
            "POST /regions/{region}/admit": self.admit,
            "GET /shed-level": self.shed_level,
            "POST /shed-level": self.set_shed_level,
            "GET /capacity": self.capacity,
            "GET /pools/{pool}": self.pool,
            "POST /pools/{pool}/scale": self.scale,
            "GET /releases/{pool}": self.release,
            "POST /releases/{pool}": self.roll_out,
            "GET /regions/{region}/releases/{pool}": self.release,
            "POST /regions/{region}/releases/{pool}": self.roll_out,
            "POST /replay": self.replay,
            "POST /control": self.merge,
        }

    async def region(self, request: web.Request) -> web.StreamResponse:
        name, drained = self._named(request), self._region.control.drained
        well = {name: view.healthy for name, view in self._peers.views.items()} | {self._region.name: self._ready()}
        view = self._peers.views.get(name)
        depth = self._region.depth if view is None else view.health.queue_depth if view.health else None
        elsewhere = any(well[other] and not drained(other) for other in well if other != name)
        return answer(RegionView(name, well[name], drained(name), self._region.name, elsewhere, depth))

    def _ready(self) -> bool:
        return self._region.active and self._region.pool_health()["cpu"].ready

    async def drain(self, request: web.Request) -> web.StreamResponse:
        return await self._drain(request, drained=True)

    async def admit(self, request: web.Request) -> web.StreamResponse:
        return await self._drain(request, drained=False)

    async def _drain(self, request: web.Request, drained: bool) -> web.StreamResponse:
        name = self._named(request)
        self._serving()
        before = self._region.control.drain(name, drained, self._region.name)
        log.info("region %s %s", name, "drained" if drained else "admitted")
        await self._peers.push_settings()
        return answer(Drained(name, drained, before))

    async def shed_level(self, request: web.Request) -> web.StreamResponse:
        return answer(ShedLevel(self._region.control.shed_level))

    async def set_shed_level(self, request: web.Request) -> web.StreamResponse:
        level = (await read(request, ShedLevel)).level
        if level not in SHED_LEVELS:
            return answer(Refusal(f"`level` is {level}; write 0 (nothing) to 3 (all but tier 1)"), 400)
        self._serving()
        before = self._region.control.set(SHED, level, self._region.name)
        log.info("shed level %d, was %d", level, before)
        await self._peers.push_settings()
        return answer(ShedLevelSet(level, before))

    async def capacity(self, request: web.Request) -> web.StreamResponse:
        return answer(Capacity(round(self._peers.headroom_per_s(), 2), self._region.name))

    async def pool(self, request: web.Request) -> web.StreamResponse:
        return answer(self._scaled(request.match_info["pool"], None))

    async def scale(self, request: web.Request) -> web.StreamResponse:
        wanted = (await read(request, Scale)).slots
        name = request.match_info["pool"]
        state = self._scaled(name, None)
        if wanted is not None and not 0 <= wanted <= state.quota:
            return answer(Refusal(f"`slots` is {wanted}; the quota of {name} is {state.quota}"), 409)
        before = self._region.pools[name].pin(wanted)  # type: ignore[index]
        return answer(self._scaled(name, before))

    def _scaled(self, name: str, before: int | None) -> Scaled:
        if name not in POOLS:
            raise _not_found(f"no pool {name}; there are {', '.join(POOLS)}")
        state = self._region.pools[name]
        slots = state.slots
        return Scaled(name, slots, slots if before is None else before, state.pinned, state.quota)

    async def release(self, request: web.Request) -> web.StreamResponse:
        return answer(self._release(request))

    async def roll_out(self, request: web.Request) -> web.StreamResponse:
        """To a region's workers of the pool, this one's unless it is named; they hear it with their next question for
        work, and start anew."""
        name = self._named(request)
        was = self._release(request)
        version = (await read(request, RollOut)).version
        if version not in RELEASES:
            return answer(Refusal(f"`version` is {version!r}; write one of {', '.join(RELEASES)}"), 400)
        self._serving()
        now = self._region.control.roll_out(name, was.pool, version, self._region.name)
        log.warning("release %s on %s of %s, was %s", now.version, now.pool, name, was.version)
        await self._peers.push_settings()
        for pool in POOLS:
            self._region.on_work(pool)
        return answer(now)

    def _release(self, request: web.Request) -> Release:
        pool = request.match_info["pool"]
        if pool not in POOLS:
            raise _not_found(f"no pool {pool}; there are {', '.join(POOLS)}")
        return self._region.control.release(self._named(request), pool)

    async def replay(self, request: web.Request) -> web.StreamResponse:
        """Fence all leases and queue again whatever is on disk and not done."""
        self._serving()
        self._region.begin_rejoin()
        return answer(Replayed(self._region.depth, self._region.epoch))

    async def merge(self, request: web.Request) -> web.StreamResponse:
        self._region.control.merge(await read(request, tuple[Register, ...]))
        return answer(ShedLevel(self._region.control.shed_level))

    def _named(self, request: web.Request) -> str:
        name = request.match_info.get("region", self._region.name)
        if name not in self._region.regions:
            raise _not_found(f"no region {name}; there are {', '.join(self._region.regions)}")
        return name

    def _serving(self) -> None:
        """A region that was away doesn't know yet what people have set: nothing may be set through it."""
        self._region.pulse()
        if not self._region.active:
            raise web.HTTPServiceUnavailable(text='{"error":"rejoining; ask another gateway, or again in 1 s"}')


def _not_found(what: str) -> web.HTTPNotFound:
    return web.HTTPNotFound(text=f'{{"error":"{what}"}}', content_type="application/json")
