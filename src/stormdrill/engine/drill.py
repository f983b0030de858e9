"""A runbook inside an experiment: started by its alert, cancelled with the run, its actions undone in reverse."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stormdrill.engine.runbook import RunbookExecutor, Terms
from stormdrill.errors import KeeperGone, Refused
from stormdrill.model.event import RunbookFinished
from stormdrill.model.experiment import RunbookUse
from stormdrill.model.runbook import Runbook
from stormdrill.ports import Caller, Keeper, Sight
from stormdrill.redact import Redactor
from stormdrill.spec.runbook_parameters import resolve

CANCEL_LIMIT_S = 15.0


class DrilledRunbook:
    """Satisfies `conductor.Runbook`. It sees the alert and its own checks, never the experiment's parameters."""

    def __init__(
        self,
        runbook: Runbook,
        use: RunbookUse,
        *,
        keeper: Keeper,
        caller: Caller,
        sight: Sight,
        admin: Callable[[], str],
        horizon_s: float,
        redactor: Redactor,
    ) -> None:
        self._redactor = redactor
        self._runbook = runbook
        self._use = use
        self._keeper = keeper
        self._caller = caller
        self._sight = sight
        self._admin = admin
        self._horizon_s = horizon_s
        self._executor: RunbookExecutor | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    def start(self, trigger: str, labels: dict[str, str]) -> None:
        try:
            parameters = resolve(self._runbook, {}, alert_labels=labels, system={"admin": self._admin()})
        except Refused as refused:
            self._keeper.record(RunbookFinished(self._runbook.name, "not-started", str(refused), 0.0))
            return
        with self._lock:
            if self._cancelled:
                self._keeper.record(RunbookFinished(self._runbook.name, "cancelled", "the run was stopped", 0.0))
                return
            self._executor = RunbookExecutor(
                self._runbook,
                parameters,
                keeper=self._keeper,
                caller=self._caller,
                sight=self._sight,
                terms=Terms(
                    trigger=trigger,
                    redactor=self._redactor,
                    approved=frozenset(self._use.approve),
                    undo_until_s=time.monotonic() + self._horizon_s,
                    exit_within_s=self._horizon_s,  # the run's end cancels it: an exit never met is a FAIL
                ),
            )
        outcome = self._executor.run()
        if self._executor.defect is not None:
            raise self._executor.defect
        if outcome.record_lost:
            raise KeeperGone("the runbook's steps could not be written down")

    def cancel(self) -> None:
        """Returns when it has ended; a call under way is waited for to its own limit, no longer."""
        with self._lock:
            self._cancelled = True
            executor = self._executor
        if executor is not None:
            executor.cancel()
            deadline_s = time.monotonic() + CANCEL_LIMIT_S
            while executor.outcome is None and time.monotonic() < deadline_s:
                time.sleep(0.01)
