"""What a runner could not revert at its end is left to the watchdog: the ledger says so, and its Job is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stormdrill.cluster.asking import Until, read, text, under
from stormdrill.cluster.ledger import REVERTING, Closed
from stormdrill.cluster.objects import being_deleted
from stormdrill.cluster.setting import Setting
from stormdrill.errors import Refused, StormdrillError

LIMIT_S = 10.0
"""So long a Job that is being deleted is waited for: another one can be made then."""


def to_watchdog(setting: Setting, left: Sequence[str], lease_s: float) -> list[str]:
    """Given that nobody else makes its Job meanwhile. Returns what is wrong with that. Never raises."""
    ledger, unsaid, readable = setting.ledger, list[str](), True
    try:
        ledger.turn(REVERTING, f"left to the watchdog: {'; '.join(left)}"[:2000])
    except StormdrillError as error:
        readable = not isinstance(error, Closed)
        unsaid.append(str(error))
    try:
        nobody = _nobody(setting, Until(LIMIT_S), anew=readable)
    except Refused as error:
        nobody = f"nobody is left to revert: {error}"
    except StormdrillError as error:
        nobody = f"whether anybody is left to revert is not known: {error}"
    if nobody:
        return [*unsaid, f"{nobody}; `stormdrill recover {ledger.run}` does"]
    return [f"the watchdog finds out by itself, after {lease_s:g} s: {error}" for error in unsaid]


def _nobody(setting: Setting, until: Until, *, anew: bool) -> str:
    """See that the Job is there, or make it. `anew`: one that begins now has a ledger to read. Returns why nobody is
    left; empty when somebody is. Raises Refused, StormdrillError."""
    while (job := read(setting.api, setting.job, until)) is not None:
        if not text(job, "metadata", "deletionTimestamp"):
            return f"nobody is left to revert: {setting.job} has ended" if _ended(job) else ""
        until.pause(being_deleted(setting.job, job))
    if not anew:
        return "nobody is left to revert: there is neither a ledger nor a watchdog any more"
    setting.make(until)
    setting.tell("somebody has removed the watchdog's Job; it is made again, for what is left")
    return ""


def _ended(job: Mapping[str, object]) -> bool:
    listed = under(job, "status").get("conditions")
    over = [one for one in (listed if isinstance(listed, list) else ()) if text(one, "status") == "True"]
    return any(text(one, "type") in ("Complete", "Failed") for one in over)
