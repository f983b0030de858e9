"""After the last arrival: follow every accepted job to its end, and write down what the system says of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stormdrill.errors import Unreachable
from stormdrill.model.event import Event, Reading, RecordClosed
from stormdrill.ports import Instance, LedgerRow, ReadLedger
from stormdrill.redact import Redactor
from stormdrill.store.records import Outcome, read_records

FILE = "load/jobs.ndjson"
LEDGER = "ledger"
"""Journalled with 1 for each instance that gave its ledger, without a value for one that didn't."""
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
        redactor: Redactor,
    ) -> None:
        self._redactor = redactor
        self._run_dir = run_dir
        self._files = files
        self._inventory = inventory
        self._service = service
        self._path = path
        self._read = read
        self._stop = stop

    def __call__(self) -> Sequence[tuple[Event, float]]:
        """Returns what was seen, each with the monotonic time (ms) at which it was asked for."""
        acknowledged, last_deadline_ms = self._acknowledged()
        while True:
            asked_ms = time.monotonic() * 1000
            rows, answers = self._ask()
            # an ask that began after the last deadline is the last one
            if not self._open(acknowledged, rows) or asked_ms >= last_deadline_ms or self._stop():
                break
            time.sleep(EVERY_S)
        seen: list[tuple[Event, float]] = [
            (Reading(LEDGER, name, None if why else 1.0, {}, why), asked_ms) for name, why in sorted(answers.items())
        ]
        return [*seen, (self._write(rows), time.monotonic() * 1000)]

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

    def _ask(self) -> tuple[list[LedgerRow], dict[str, str]]:
        """All rows; and of each instance why it did not answer, empty where it did."""
        rows: list[LedgerRow] = []
        answers: dict[str, str] = {}
        for instance in self._inventory():
            if instance.service != self._service:
                continue
            try:
                rows.extend(self._read(f"http://{instance.address}{self._path}", LIMIT_S, self._run_dir.name))
                answers[instance.name] = ""
            except Unreachable as error:
                answers[instance.name] = str(error) or "no answer"
        return rows, answers

    @staticmethod
    def _open(acknowledged: set[int], rows: Sequence[LedgerRow]) -> bool:
        ended = {row.job for row in rows if row.state in SETTLED}
        still = {row.job for row in rows if row.state not in SETTLED and row.state != "superseded"}
        return bool((acknowledged & still) - ended)

    def _write(self, rows: Sequence[LedgerRow]) -> RecordClosed:
        clean = self._redactor.text  # the one file that is written from the system's own answers
        lines = [
            json.dumps(
                {
                    "job": row.job,
                    "state": clean(row.state),
                    "done": row.done,
                    "took_ms": row.took_ms,
                    "region": clean(row.region),
                }
            )
            for row in sorted(rows, key=lambda row: (row.job, row.region))
        ]
        data = "".join(f"{line}\n" for line in lines).encode()
        target = self._run_dir / FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return RecordClosed(FILE, hashlib.sha256(data).hexdigest(), len(data), complete=True)
