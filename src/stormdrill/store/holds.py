"""Who holds which system: one file a system (name and target) in $XDG_STATE_HOME/stormdrill/holds.

A hold is taken before a run touches anything and given back when the run has ended clean. It names the run's
processes for ever, so that a run whose runner and keeper were both killed is found, listed and refused until
`recover` has mended it. Standard library only: the keeper gives it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from stormdrill.errors import Refused
from stormdrill.model.event import RunEnded
from stormdrill.store.identity import Identity, boot_id, own_identity
from stormdrill.store.journal import NAME, salvage_bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """One system, held by one run."""

    system: str
    target: str
    run: str
    dir: str
    """The run directory, absolute."""
    runner: Identity
    since: str
    """UTC with offset."""
    boot_id: str
    keeper: Identity | None = None
    left: tuple[str, ...] = field(default_factory=tuple)
    """What the ended run could not mend (DIRTY); the hold stays until `recover` has."""

    @property
    def path(self) -> Path:
        return _file_of(self.system, self.target)

    @property
    def journal(self) -> Path:
        return Path(self.dir) / NAME

    @property
    def alive(self) -> bool:
        """Whether a process that can still revert lives: runner or keeper."""
        return self.runner.lives or (self.keeper is not None and self.keeper.lives)

    @property
    def spent(self) -> bool:
        """Whether its run only died before giving it back: it had ended clean, or had not even a keeper yet."""
        if self.left or self.alive:
            return False
        return self.keeper is None or self.ended() in ("completed", "aborted", "failed")

    def ended(self) -> str:
        """The status with which the journal says that the run ended; empty while it doesn't."""
        try:
            events = salvage_bytes(self.journal.read_bytes()).events
        except OSError:
            return ""
        last = events[-1].event if events else None
        return last.status if isinstance(last, RunEnded) else ""


def state_home() -> Path:
    """$XDG_STATE_HOME/stormdrill (~/.local/state/stormdrill), private to its user. Raises Refused."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    home = base / "stormdrill"
    try:
        base.mkdir(parents=True, exist_ok=True)
        for directory in (home, home / "holds"):
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"{home} cannot be written: {error.strerror}; set XDG_STATE_HOME to a place of your own"
        ) from error
    return home


def acquire(system: str, target: str, run: str, run_dir: Path) -> Hold:
    """Take the system for a run. Raises Refused, saying who holds it or that `recover` is needed."""
    hold = Hold(
        system=system,
        target=target,
        run=run,
        dir=str(run_dir.resolve()),
        runner=own_identity(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        boot_id=boot_id(),
    )
    with _locked():
        held = _load(hold.path)
        if held is not None and (reason := _reason_to_refuse(held)):
            raise Refused(reason)
        _store(hold)
    return hold


def refuse_held(system: str, target: str) -> None:
    """Raises Refused where `acquire` would, and takes nothing."""
    with _locked():
        held = _load(_file_of(system, target))
    if held is not None and (reason := _reason_to_refuse(held)):
        raise Refused(reason)


def set_keeper(hold: Hold, keeper: Identity) -> Hold:
    """Note the keeper's identity in the hold."""
    return _change(hold, replace(hold, keeper=keeper))


def release(hold: Hold) -> None:
    """Give the system back; does nothing when another run holds it."""
    with _locked():
        held = _load(hold.path)
        if held is not None and held.run == hold.run:
            hold.path.unlink(missing_ok=True)


def mark_dirty(hold: Hold, left: list[str]) -> None:
    """Keep the system held: the run has ended, and this could not be shown to be mended."""
    _change(hold, replace(hold, left=tuple(left) or ("something could not be shown to be reverted",)))


def open_runs() -> list[Hold]:
    """Every system that is held, oldest first: runs that go on, and runs that `recover` must mend."""
    found = []
    with _locked():
        for path in (state_home() / "holds").glob("*.json"):
            hold = _load(path)
            if hold is not None and hold.spent:
                path.unlink()
            elif hold is not None:
                found.append(hold)
    return sorted(found, key=lambda hold: hold.since)


def hold_of(run: str) -> Hold | None:
    """The hold of one run, given by its id."""
    return next((hold for hold in open_runs() if hold.run == run), None)


def _reason_to_refuse(held: Hold) -> str:
    """Empty when the hold is spent."""
    if held.spent:
        return ""
    name = f"{held.system} on {held.target}"
    if held.left:
        left = "; ".join(held.left)
        return f"{name} was left dirty by run {held.run}: {left}; mend it with: stormdrill recover {held.run}"
    if held.alive:
        return (
            f"{name} is held by run {held.run} (pid {held.runner.pid}, since {held.since}, in {held.dir}); "
            f"wait for it, or stop it with: stormdrill abort {held.run}"
        )
    return (
        f"run {held.run} on {name} was killed before it could revert everything (in {held.dir}); "
        f"mend it with: stormdrill recover {held.run}"
    )


def _file_of(system: str, target: str) -> Path:
    key = f"{target}\n{system}".encode()
    word = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{target}-{system}")[:80]
    return state_home() / "holds" / f"{word}-{hashlib.sha256(key).hexdigest()[:8]}.json"


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    fd = os.open(state_home() / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _change(old: Hold, new: Hold) -> Hold:
    with _locked():
        held = _load(old.path)
        if held is not None and held.run == old.run:
            _store(new)
    return new


def _store(hold: Hold) -> None:
    new = hold.path.with_suffix(".new")
    with new.open("w") as file:
        json.dump(asdict(hold), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.replace(hold.path)


def _load(path: Path) -> Hold | None:
    try:
        values = json.loads(path.read_text())
        values["runner"] = Identity(*values["runner"])
        values["keeper"] = Identity(*values["keeper"]) if values["keeper"] else None
        values["left"] = tuple(values["left"])
        return Hold(**values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise Refused(
            f"{path} is not readable as a hold ({error}); remove it when no run of stormdrill is alive"
        ) from error
