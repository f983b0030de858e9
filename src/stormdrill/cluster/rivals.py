"""Whether another system's run drills the same namespace: a Lease keeps off only those of the same system's name."""

from __future__ import annotations

from collections.abc import Iterable

from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.ledger import CLOSED
from stormdrill.cluster.setting import books
from stormdrill.errors import Refused

LIMIT_S = 10.0
DRILLED = "drilled"
"""In a ledger's run.json: the namespaces of the system."""


def refuse(api: Api, suite: str, run: str, namespaces: Iterable[str]) -> None:
    """Given that our own ledger stands there already: of two that begin at once, one at least sees the other. Raises
    Refused, Unreachable."""
    mine = set(namespaces)
    for other in books(api, suite, Until(LIMIT_S)):
        drilled = other.about.get(DRILLED)
        both = sorted(mine & set(map(str, drilled))) if isinstance(drilled, list) else []
        if other.run != run and other.state != CLOSED and both:
            raise Refused(
                f"run {other.run} of system {other.about.get('system')} drills namespace {', '.join(both)} "
                f"({other.state}), and two runs would not know of each other's harm: wait for its end; where its "
                f"runner is gone: `stormdrill recover {other.run}`"
            )
