"""Whether another system's run drills the same namespace: a Lease keeps off only those of the same system's name.

Each run writes its ledger first and looks for others then: of two that begin at once, one at least sees the other, and
whoever sees one that may go on does not. Where both see each other, the ranks decide, which both can read: the one
whose run comes first by its name waits, for the other is refused and takes its ledger back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.ledger import CLOSED, OPEN, Book
from stormdrill.cluster.setting import books
from stormdrill.errors import Refused, Unreachable

LIMIT_S = 10.0
PATIENCE_S = 10.0
"""How long one that is just beginning is waited for: to be refused takes it a few requests. Where it has looked before
our ledger was there it goes on, and its watchdog soon says so."""
LOOK_S = 0.2
DRILLED = "drilled"
"""In a ledger's run.json: the namespaces that it harms; of older versions that of the system alone."""


def refuse(api: Api, suite: str, run: str, namespaces: Iterable[str], trouble: Callable[[], str] = lambda: "") -> None:
    """Given that our own ledger stands there already. `trouble`: why not to wait any longer. Raises Refused,
    Unreachable."""
    mine = set(namespaces)
    patience = Until(PATIENCE_S)
    while there := [one for one in books(api, suite, Until(LIMIT_S)) if one.run != run and _meets(one, mine)]:
        ahead = [one for one in there if not (_begins(one) and run < one.run)]
        if ahead or patience.left_s <= 0:
            raise Refused(_said((ahead or there)[0], mine))
        if why := trouble():
            raise Unreachable(f"while waiting for run {there[0].run}, which begins at the same time: {why}")
        patience.sleep(LOOK_S)


def _meets(other: Book, mine: set[str]) -> bool:
    return other.state != CLOSED and bool(_both(other, mine))


def _both(other: Book, mine: set[str]) -> list[str]:
    drilled = other.about.get(DRILLED)
    return sorted(mine & set(map(str, drilled))) if isinstance(drilled, list) else []


def _begins(other: Book) -> bool:
    """Whether it may be looking for others itself just now: nobody watches over it yet, and nothing is armed."""
    return other.state == OPEN and not (other.stop or other.watchdog or other.armed)


def _said(other: Book, mine: set[str]) -> str:
    said = (
        f"run {other.run} of system {other.about.get('system')} drills namespace {', '.join(_both(other, mine))} "
        f"({other.state}), and two runs would not know of each other's harm: wait for its end; where its "
        f"runner is gone: `stormdrill recover {other.run}`"
    )
    return f"{said}; it is only just beginning: where it is refused, too, try again" if _begins(other) else said
