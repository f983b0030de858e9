"""Reading the feed: its last word within a limit, how old that is, and whether the feed is late."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aiohttp import ClientSession, ClientTimeout
from msgspec.json import decode

from stormdrill.platform.jobs import STALE_AGE_S
from stormdrill.platform.messages import Report
from stormdrill.platform.service import CALL_ERRORS, repeat
from stormdrill.platform.wiring import Peer

EVERY_S = 1.0
SLOW_S = 0.2
READS_TO_BE_LATE = 2


async def read_feed(feeds: Sequence[Peer], session: ClientSession, limit_s: float) -> Report | None:
    """None when it doesn't answer in time."""
    for feed in feeds:
        try:
            async with session.get(f"{feed.url}/latest", timeout=ClientTimeout(total=limit_s)) as response:
                if response.status == 200:
                    return decode(await response.read(), type=Report)
        except CALL_ERRORS:
            continue
    return None


def age_s(report: Report) -> float:
    return max(0.0, time.time() - report.as_of_ms / 1000.0)


class FeedCopy:
    """A gateway's own copy, for reports when the feed is late."""

    def __init__(self, feeds: Sequence[Peer], session: ClientSession) -> None:
        self._feeds = feeds
        self._session = session
        self.report: Report | None = None
        self._bad_reads = 0

    @property
    def late(self) -> bool:
        """Slow, silent or with old data, more than once in a row."""
        return self._bad_reads >= READS_TO_BE_LATE

    async def follow(self) -> None:
        if self._feeds:
            await repeat(EVERY_S, self._refresh)

    async def _refresh(self) -> None:
        began_s = time.monotonic()
        report = await read_feed(self._feeds, self._session, EVERY_S)
        bad = report is None or time.monotonic() - began_s > SLOW_S or age_s(report) > STALE_AGE_S
        self._bad_reads = self._bad_reads + 1 if bad else 0
        self.report = report or self.report
