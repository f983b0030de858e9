"""A region's durable memory: accepted jobs, completions as append-only rows, claims, settings.

SQLite in WAL mode with synchronous=NORMAL: every commit survives the death of any process (not a power loss).
One writer a region, its gateway. Times: `_at_ms` is the wall clock since the epoch in UTC, `_mono_s` CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from stormdrill.platform.control import Register
from stormdrill.platform.jobs import Kind

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, tier INTEGER NOT NULL, deadline_ms REAL NOT NULL, wait INTEGER NOT NULL,
  home TEXT NOT NULL, accepted_at_ms REAL NOT NULL, accepted_mono_s REAL NOT NULL, expires_at_ms REAL NOT NULL,
  state TEXT NOT NULL, steps INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
  took_ms REAL, result BLOB, residency TEXT, key TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (state) WHERE state = 'queued';
CREATE TABLE IF NOT EXISTS completions (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL, what TEXT NOT NULL CHECK (what IN ('done', 'void')),
  at_ms REAL NOT NULL, token TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS completions_id ON completions (id);
CREATE TABLE IF NOT EXISTS claims_out (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, against TEXT NOT NULL,
  at_ms REAL NOT NULL, delivered INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS claims_open ON claims_out (against, seq) WHERE delivered = 0;
CREATE TABLE IF NOT EXISTS claims_in (id TEXT PRIMARY KEY, owner TEXT NOT NULL, at_ms REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS control (key TEXT PRIMARY KEY, counter INTEGER NOT NULL, writer TEXT NOT NULL,
  value INTEGER NOT NULL) WITHOUT ROWID;
"""
BUSY_LIMIT_S = 2.0


class StoredJob(Struct):
    id: str
    kind: Kind
    tier: int
    deadline_ms: float
    wait: bool
    home: str
    accepted_at_ms: float
    accepted_mono_s: float
    expires_at_ms: float
    """Wall clock after which nobody waits for a synchronous job any more."""
    state: str = "queued"
    """queued, done, refused or superseded; leases are kept in memory only, fenced by the epoch."""
    steps: int = 0
    reason: str = ""
    took_ms: float | None = None
    result: bytes | None = None
    residency: str | None = None
    """The region that it may not leave."""
    key: str = ""


class Claim(Struct, frozen=True):
    """A job that its claimant has taken over from the region that this is sent to."""

    sequence: int
    """In the claimant's outbox."""
    id: str
    done: bool
    """The claimant has completed it: final, whatever the other side has done."""


class LedgerRow(Struct, frozen=True):
    """What this region knows of one job that it accepted."""

    id: str
    state: str
    done: int
    """Completions that are not void: at most one over all regions, or the work was done twice."""
    took_ms: float | None
    """The platform's own duration, acceptance to completion."""
    region: str
    residency: str | None = None


_COLUMNS = (
    "id, kind, tier, deadline_ms, wait, home, accepted_at_ms, accepted_mono_s, expires_at_ms, "
    "state, steps, reason, took_ms, result, residency, key"
)


class Store:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=BUSY_LIMIT_S, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All of it or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def meta(self, key: str, default: str = "") -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else default

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # jobs

    def put(self, job: StoredJob) -> None:
        """Insert, or take a refused job up again."""
        row = (
            job.id, job.kind, job.tier, job.deadline_ms, job.wait, job.home, job.accepted_at_ms, job.accepted_mono_s,
            job.expires_at_ms, job.state, job.steps, job.reason, job.took_ms, job.result, job.residency,
            job.key,
        )  # fmt: skip
        self._db.execute(f"INSERT OR REPLACE INTO jobs ({_COLUMNS}) VALUES ({','.join('?' * len(row))})", row)  # noqa: S608

    def job(self, job_id: str) -> StoredJob | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
        return _job(row) if row else None

    def open_jobs(self) -> list[StoredJob]:
        """Accepted and not ended, in the order of their acceptance."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE state = 'queued' ORDER BY accepted_at_ms, id")  # noqa: S608
        return [_job(row) for row in rows]

    def rebase(self, now_mono_s: float, now_ms: float) -> None:
        """After a boot the monotonic clock starts anew: reckon when open jobs were accepted from the wall clock."""
        self._db.execute(
            "UPDATE jobs SET accepted_mono_s = ? - (? - accepted_at_ms) / 1000.0 WHERE state = 'queued'",
            (now_mono_s, now_ms),
        )

    def save_steps(self, job_id: str, steps: int) -> None:
        self._db.execute("UPDATE jobs SET steps = ? WHERE id = ? AND state = 'queued'", (steps, job_id))

    def end(self, job_id: str, state: str, reason: str) -> None:
        """Refused or superseded: it ends without a completion."""
        self._db.execute("UPDATE jobs SET state = ?, reason = ? WHERE id = ?", (state, reason, job_id))

    def complete(self, job_id: str, token: str, at_ms: float, took_ms: float, result: bytes) -> None:
        """Call inside `together`: the row that counts, and the job's end, are one commit."""
        self._db.execute(
            "INSERT INTO completions (id, what, at_ms, token) VALUES (?, 'done', ?, ?)", (job_id, at_ms, token)
        )
        self._db.execute(
            "UPDATE jobs SET state = 'done', took_ms = ?, result = ? WHERE id = ?", (took_ms, result, job_id)
        )

    def supersede(self, job_id: str, owner: str, at_ms: float) -> None:
        """Another region has taken the job: remember it for ever, end ours, void what we had completed.

        Call inside `together`. Hearing it twice changes nothing.
        """
        self._db.execute("INSERT OR IGNORE INTO claims_in VALUES (?, ?, ?)", (job_id, owner, at_ms))
        for _ in range(self.done(job_id)):
            self._db.execute(
                "INSERT INTO completions (id, what, at_ms, token) VALUES (?, 'void', ?, ?)", (job_id, at_ms, owner)
            )
        self.end(job_id, "superseded", f"taken over by {owner}")

    def done(self, job_id: str) -> int:
        """Completions that are not void."""
        query = "SELECT COALESCE(SUM(CASE what WHEN 'done' THEN 1 ELSE -1 END), 0) FROM completions WHERE id = ?"
        return int(self._db.execute(query, (job_id,)).fetchone()[0])

    def ledger(self, region: str) -> list[LedgerRow]:
        rows = self._db.execute(
            "SELECT jobs.id, state, COALESCE(n, 0), took_ms, residency FROM jobs LEFT JOIN (SELECT id, "
            "SUM(CASE what WHEN 'done' THEN 1 ELSE -1 END) AS n FROM completions GROUP BY id) AS c ON c.id = jobs.id "
            "ORDER BY accepted_at_ms, jobs.id"
        )
        return [LedgerRow(row[0], row[1], row[2], row[3], region, row[4]) for row in rows]

    # claims

    def owner_elsewhere(self, job_id: str) -> str | None:
        """The region that has taken this job from us."""
        row = self._db.execute("SELECT owner FROM claims_in WHERE id = ?", (job_id,)).fetchone()
        return str(row[0]) if row else None

    def claim(self, job_id: str, against: str, at_ms: float) -> None:
        self._db.execute("INSERT INTO claims_out (id, against, at_ms) VALUES (?, ?, ?)", (job_id, against, at_ms))

    def claims_against(self, region: str, limit: int) -> list[Claim]:
        """What that region has not confirmed yet, oldest first."""
        rows = self._db.execute(
            "SELECT seq, id, EXISTS (SELECT 1 FROM jobs WHERE jobs.id = claims_out.id AND state = 'done') "
            "FROM claims_out WHERE against = ? AND delivered = 0 ORDER BY seq LIMIT ?",
            (region, limit),
        )
        return [Claim(row[0], row[1], bool(row[2])) for row in rows]

    def confirm_claims(self, sequences: Iterable[int]) -> None:
        with self.together():
            self._db.executemany(
                "UPDATE claims_out SET delivered = 1 WHERE seq = ?", [(sequence,) for sequence in sequences]
            )

    def claims_outstanding(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM claims_out WHERE delivered = 0").fetchone()[0])

    # settings

    def registers(self) -> list[Register]:
        return [Register(*row) for row in self._db.execute("SELECT key, counter, writer, value FROM control")]

    def save_register(self, register: Register) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO control VALUES (?, ?, ?, ?)",
            (register.key, register.counter, register.writer, register.value),
        )


def _job(row: tuple[object, ...]) -> StoredJob:
    job = StoredJob(*row)  # type: ignore[arg-type]
    job.wait = bool(job.wait)
    return job
