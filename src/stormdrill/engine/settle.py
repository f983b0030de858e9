"""After the last arrival: follow every accepted job to its end, and write down what the system says of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stormdrill.errors import Unreachable
from stormdrill.model.event import Event, RecordClosed, Warned
from stormdrill.ports import Instance, LedgerRow, ReadLedger
from stormdrill.store.records import Outcome, read_records

FILE = "load/jobs.ndjson"
LIMIT_S = 5.0
EVERY_S = 0.25
SETTLED = frozenset({"done", "refused"})


class Settling:
    """Asks every instance of the ledger's service until nothing accepted is open, or its deadline has passed."""

    def __init__(
        self,
        run_dir: Path,
        files: Callable[[], Sequence[str]],
        inventory: Callable[[], Sequence[Instance]],
        service: str,
        path: str,
        read: ReadLedger,
        stop: Callable[[], bool],
    ) -> None:
        self._run_dir = run_dir
        self._files = files
        self._inventory = inventory
        self._service = service
        self._path = path
        self._read = read
        self._stop = stop

    def __call__(self) -> Sequence[Event]:
        acknowledged, last_deadline_ms = self._acknowledged()
        rows, silent = self._ask()
        while self._open(acknowledged, rows) and time.monotonic() * 1000 < last_deadline_ms and not self._stop():
            time.sleep(EVERY_S)
            rows, silent = self._ask()
        events: list[Event] = [
            Warned(f"{name} did not give its ledger ({why}); what it alone knows counts as lost")
            for name, why in silent
        ]
        return [*events, self._write(rows)]

    def _acknowledged(self) -> tuple[set[int], float]:
        """Jobs that a 2xx answered, and when (monotonic ms) the last one's deadline passes."""
        import numpy as np

        jobs: set[int] = set()
        last_ms = 0.0
        for path in self._files():
            try:
                header, rows = read_records(path)
            except (OSError, ValueError):
                continue
            good = rows[(rows["outcome"] == Outcome.ANSWERED) & (rows["status"] // 100 == 2)]
            if not len(good):
                continue
            jobs.update(int(job) for job in good["job"])
            deadlines_ms = np.array([item["deadline_ms"] for item in header["labels"]])
            ends = header["epoch_mono_ns"] / 1e6 + good["intended_us"] / 1000.0 + deadlines_ms[good["labels"]]
            last_ms = max(last_ms, float(ends.max()))
        return jobs, last_ms

    def _ask(self) -> tuple[list[LedgerRow], list[tuple[str, str]]]:
        rows: list[LedgerRow] = []
        silent: list[tuple[str, str]] = []
        for instance in self._inventory():
            if instance.service != self._service:
                continue
            try:
                rows.extend(self._read(f"http://{instance.address}{self._path}", LIMIT_S))
            except Unreachable as error:
                silent.append((instance.name, str(error)))
        return rows, silent

    @staticmethod
    def _open(acknowledged: set[int], rows: Sequence[LedgerRow]) -> bool:
        ended = {row.job for row in rows if row.state in SETTLED}
        still = {row.job for row in rows if row.state not in SETTLED and row.state != "superseded"}
        return bool((acknowledged & still) - ended)

    def _write(self, rows: Sequence[LedgerRow]) -> RecordClosed:
        lines = [
            json.dumps(
                {"job": row.job, "state": row.state, "done": row.done, "took_ms": row.took_ms, "region": row.region}
            )
            for row in sorted(rows, key=lambda row: (row.job, row.region))
        ]
        data = "".join(f"{line}\n" for line in lines).encode()
        target = self._run_dir / FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return RecordClosed(FILE, hashlib.sha256(data).hexdigest(), len(data), complete=True)
