"""`tell`: requests to the system itself. Refused in a cluster, since nobody could take them back after the runner.

The request that takes one back would go over the runner's own forwarded port. The watchdog changes objects and ends
programs; it isn't in the system's network and holds none of its credentials.
"""

from __future__ import annotations

from stormdrill.model.mechanism import Tell
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Undo
from stormdrill.ports import Effect

WHY = "what is told to a system in a cluster could not be taken back once the runner is gone"


class NotTold:
    permission = ""

    def refusal(self, injection: Injection) -> str:
        how = injection.how
        if isinstance(how, Tell) and how.look.startswith(".version"):
            return (
                f"{WHY}; declare the release in the system file's kubernetes section: its template is changed instead"
            )
        return f"{WHY}; drill it on --target process or docker"

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        raise NotImplementedError(WHY)

    def apply(self, injection: Injection) -> None:
        raise NotImplementedError(WHY)

    def observe(self, injection: Injection) -> Effect:
        raise NotImplementedError(WHY)

    def needs(self, injection: Injection) -> tuple[Need, ...]:
        return ()

    def dry_run(self, injection: Injection) -> tuple[str, ...]:
        return ()

    def notes(self, injection: Injection) -> tuple[str, ...]:
        return ()
