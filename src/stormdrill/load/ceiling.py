"""How much one generator can send on time. Beyond it the latency would be the generator's own, so it is refused.

CEILING_PER_S was measured with `calibrate.measure_ceiling` (docs/decisions/0004-load.md) and is kept well below what
was seen, because the machine that runs an experiment also runs the system under test.
"""

from __future__ import annotations

from stormdrill.errors import Refused
from stormdrill.load.arrivals import Demand
from stormdrill.model.profile import Profile

CEILING_PER_S = 1500.0
"""Arrivals a second of one generator process."""


def refuse_beyond_ceiling(profile: Profile, rate_per_s: float, ceiling_per_s: float = CEILING_PER_S) -> None:
    """Raises Refused when the profile's highest rate is more than one generator can send on time."""
    try:
        peak = Demand(profile, rate_per_s).peak_rate()
    except ValueError as error:
        raise Refused(str(error)) from error
    if peak > ceiling_per_s:
        raise Refused(
            f"profile {profile.name} at {rate_per_s:g}/s reaches {peak:g}/s, and one generator sends at most "
            f"{ceiling_per_s:g}/s on time; ask for at most {ceiling_per_s * rate_per_s / peak:g}/s"
        )
