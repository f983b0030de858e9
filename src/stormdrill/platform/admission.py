"""Who gets in: decided from the queue as it stands, before any work is spent. Pure."""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct

QUEUE_LIMIT = 64
QUEUE_SHARE = {1: 1.0, 2: 0.8, 3: 0.5}
"""Part of the queue that a tier may fill: the lower one leaves room for the higher."""
ACKNOWLEDGED_WAIT_SHARE = 0.5
"""A job that is to be acknowledged must be expected to start within this share of its deadline."""
RETRY_SPREAD_S = 3.0
WAIT_MARGIN = {1: 1.25, 2: 1.4, 3: 1.4}
"""By how much a prediction may be wrong, and what was admitted is answered in time all the same: more for those whom
more may overtake."""

Policy = Literal["tiers", "full-queue", "everything"]
"""tiers: as meant. full-queue: refuse only when full, whoever it is. everything: never refuse."""


class Outlook(Struct, frozen=True):
    """What a newcomer would meet."""

    depth: int
    wait_s: float
    """Predicted wait behind everything that runs before it."""
    service_s: float
    shed_level: int
    limit: int = QUEUE_LIMIT
    """Of the depth."""


def shed_reason(
    tier: int, remaining_s: float, waits: bool, outlook: Outlook, roll: float, policy: Policy
) -> str | None:
    """Why this job must be refused now; None: it may enter.

    `remaining_s` is the time until nobody waits for it (the deadline when it is to be acknowledged), `roll` a
    number in [0, 1) that spreads what is shed in part.
    """
    if policy == "everything":
        return None
    if policy == "full-queue":
        return "queue full" if outlook.depth >= outlook.limit else None
    if outlook.shed_level and _sheds(outlook.shed_level, tier, roll):
        return f"shed level {outlook.shed_level}"
    if outlook.depth >= outlook.limit * QUEUE_SHARE[tier]:
        return "queue full"
    if waits and outlook.wait_s * WAIT_MARGIN[tier] + outlook.service_s > remaining_s:
        return "deadline can't be met"
    if not waits and outlook.wait_s > ACKNOWLEDGED_WAIT_SHARE * remaining_s:
        return "deadline can't be met"
    return None


def _sheds(level: int, tier: int, roll: float) -> bool:
    if tier == 1:
        return False
    if tier == 2:
        return level >= 3 or (level == 2 and roll < 0.5)
    return True


def retry_after_s(wait_s: float, roll: float) -> int:
    """Whole seconds, grown with the queue and spread so that the refused don't come back together."""
    return max(1, math.ceil(min(wait_s, 10.0) + roll * RETRY_SPREAD_S))
