"""Everything of ours on this machine, with its owner and expiry; and the removal of what is stale.

A thing is *stale* when its run is over: neither runner nor keeper lives. A run that was killed is recovered first, so
that its faults are reverted by what its journal says, and only then is removed what still bears its name. Nothing that
belongs to a living run is touched, also when that run's state is kept in another user's home. An engine can be shared
with a machine or a container whose processes are not seen here: what it has of a run that nobody here knows is left
until it expires, or until somebody names that run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from stormdrill.errors import Refused
from stormdrill.keeper import actions, procfs
from stormdrill.keeper.claims import LABEL, Claims, base_name, is_named
from stormdrill.keeper.engine import ask, local_engine
from stormdrill.keeper.loop import run_now
from stormdrill.keeper.undo import DONE, SUPERSEDED
from stormdrill.model.event import Armed, ContainerStarted, ProcessSpawned, ResourcesClaimed, Reverted
from stormdrill.store import holds
from stormdrill.store.journal import salvage

RUN = re.compile(r"\d{8}T\d{6}Z-[a-z0-9-]+")
"""A run's id; whatever else somebody writes as a label is not ours."""
KILL_LIMIT_S = 5.0
_ENGINE_S = 5.0
_CONTROL_S = 0.5
_CGROUP_DEPTH = 4
LIVING, KILLED, DIRTY, OVER, UNKNOWN = "living", "killed", "dirty", "over", "unknown"
_ENGINE_KINDS = ("container", "network", "volume")


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing of ours."""

    kind: str
    """run, fault, toxic, process, container, network, volume, cgroup"""
    name: str
    run: str
    owner: str
    """living: its run goes on; killed or dirty: `recover` mends it; over: nobody knows of it any more;
    unknown: it may be of a run that goes on where its processes are not seen from here"""
    expires: str
    """When its undo is due, or what its label says; UTC with offset, or empty."""
    outcome: str = ""
    """removed (a Lease: released, a fault of a cluster: reverted); left and why; empty: it was not touched."""

    @property
    def stale(self) -> bool:
        return self.owner not in (LIVING, UNKNOWN)

    @property
    def left(self) -> bool:
        return self.outcome.startswith("left")


@dataclass(frozen=True, slots=True)
class Swept:
    things: tuple[Thing, ...]
    notes: tuple[str, ...]
    """What could not be looked at, and what is left to its expiry."""
    dry_run: bool

    @property
    def left(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.left)


def sweep(
    run: str = "", *, dry_run: bool = False, engine: str = "", hands_for: actions.HandsFor = lambda _: None
) -> Swept:
    """List everything, of every run or the one named, and remove what is stale. `hands_for`: as for `recover`. Raises
    Refused for no run's id."""
    if run and not RUN.fullmatch(run):
        raise Refused(f"{run!r} is no run's id; stormdrill runs lists them, and without RUN all are swept")
    engine = engine or local_engine()
    things, notes = _look(run, engine)
    if dry_run:
        return Swept(things, notes, True)
    trouble = _remove(things, engine, hands_for)
    again, _ = _look(run, engine)
    there = {(thing.kind, thing.name, thing.run) for thing in again if thing.stale}
    return Swept(tuple(_with_outcome(thing, there, trouble) for thing in things), notes, False)


def _with_outcome(thing: Thing, there: set[tuple[str, str, str]], trouble: dict[str, str]) -> Thing:
    if not thing.stale:
        return thing
    if (thing.kind, thing.name, thing.run) not in there:
        return replace(thing, outcome="removed")
    return replace(thing, outcome=f"left: {trouble.get(thing.run) or 'it is still there'}")


def _look(run: str, engine: str) -> tuple[tuple[Thing, ...], tuple[str, ...]]:
    """The things first, and then who lives: what appears in between belongs to a run that is then seen alive."""
    notes: list[str] = []
    found = [*_processes(), *_cgroups(), *_on_the_engine(engine, notes)]
    open_ = {hold.run: hold for hold in holds.open_runs()}
    keepers = _kept_runs()
    owners = {name: _owner(hold, name in keepers) for name, hold in open_.items()}
    owners |= dict.fromkeys(keepers, LIVING)
    for name, hold in open_.items():
        found.append(Thing("run", f"{hold.system} on {hold.target}", name, owners[name], ""))
        found += _faults(hold, owners[name])
    found = [replace(thing, owner=owners.get(thing.run, OVER)) for thing in found if run in ("", thing.run)]
    if not run:
        found = _left_to_their_expiry(found, notes)
    return tuple(sorted(found, key=lambda thing: (thing.run, _KINDS.index(thing.kind), thing.name))), tuple(notes)


_KINDS = ("run", "fault", "toxic", "process", "container", "network", "volume", "cgroup")


def _left_to_their_expiry(found: list[Thing], notes: list[str]) -> list[Thing]:
    """What an engine has of runs that nobody here knows is not stale before the last of it expires."""
    lasting = {thing.run for thing in found if thing.owner == OVER and _lasts(thing)}
    for run in sorted(lasting):
        notes.append(f"{run} is not known here and has not expired; if it is over: stormdrill sweep {run}")
    return [
        replace(thing, owner=UNKNOWN) if thing.run in lasting and thing.kind in _ENGINE_KINDS else thing
        for thing in found
    ]


def _lasts(thing: Thing) -> bool:
    try:
        return thing.kind in _ENGINE_KINDS and datetime.fromisoformat(thing.expires) > datetime.now(UTC)
    except (ValueError, TypeError):  # no label, or no time with its offset
        return False


def _owner(hold: holds.Hold, kept: bool) -> str:
    if hold.left:
        return DIRTY
    return LIVING if hold.alive or kept else KILLED


def _kept_runs() -> set[str]:
    """Runs whose keeper lives, whoever's they are."""
    found = set()
    for _, argv, _ in _all_processes(environment=False):
        if "stormdrill.keeper" in argv[:-1]:
            found.add(argv[argv.index("stormdrill.keeper") + 1])
    return found


def _processes() -> Iterator[Thing]:
    for who, argv, environment in _all_processes(environment=True):
        run = environment.get(procfs.MARK, "")
        if RUN.fullmatch(run):
            kind = environment.get(procfs.MARK_INSTANCE, "") or (argv[0] if argv else "")
            yield Thing("process", f"{kind} (pid {who.pid})", run, OVER, "")


def _all_processes(*, environment: bool) -> Iterator[tuple[procfs.Identity, list[str], dict[str, str]]]:
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            argv = [part.decode("utf-8", "replace") for part in _parts(f"/proc/{name}/cmdline")]
            read = _parts(f"/proc/{name}/environ") if environment else []
            values = dict(part.decode("utf-8", "replace").partition("=")[::2] for part in read if b"=" in part)
            who = procfs.identity_of(int(name))
            if who is not None and who.lives:
                yield who, argv, values


def _parts(path: str) -> list[bytes]:
    return Path(path).read_bytes().rstrip(b"\0").split(b"\0")


def _cgroups(root: Path = Path("/sys/fs/cgroup")) -> Iterator[Thing]:
    for folder, below, _ in os.walk(root):  # unlike glob it bears that a group goes while it is looked at
        for name in sorted(below):
            if name.startswith("stormdrill") and (found := RUN.search(name)):
                yield Thing("cgroup", str(Path(folder, name)), found[0], OVER, "")
        if len(Path(folder).relative_to(root).parts) >= _CGROUP_DEPTH - 1:
            below.clear()


def _on_the_engine(engine: str, notes: list[str]) -> Iterator[Thing]:
    wanted = quote(json.dumps({"label": [LABEL]}), safe="")
    for kind, path in (
        ("container", f"/containers/json?all=1&filters={wanted}"),
        ("network", f"/networks?filters={wanted}"),
        ("volume", f"/volumes?filters={wanted}"),
    ):
        heard = ask(engine, "GET", path, timeout_s=_ENGINE_S)
        if heard.status != 200 or heard.error:
            if not _absent(engine):
                notes.append(f"{engine} was not looked at: {heard.error or heard.status}")
            return
        try:
            listed = json.loads(heard.body)
        except ValueError:
            notes.append(f"{engine} was not looked at: its list of {kind}s is not JSON")
            return
        for one in (listed.get("Volumes") or []) if isinstance(listed, dict) else listed:
            labels = one.get("Labels") or {}
            name = str((one.get("Names") or [one.get("Name")])[0]).lstrip("/")
            if RUN.fullmatch(str(labels.get(LABEL, ""))) and is_named(name, base_name(labels[LABEL])):
                yield Thing(kind, name, labels[LABEL], OVER, str(labels.get(f"{LABEL}.expires", "")))


def _absent(engine: str) -> bool:
    return engine.startswith("unix://") and not Path(engine.removeprefix("unix://")).exists()


def _faults(hold: holds.Hold, owner: str) -> Iterator[Thing]:
    """What is armed according to the journal, and toxics that are in force without being armed."""
    armed: dict[str, Armed] = {}
    proxies: set[str] = set()
    try:
        events = [recorded.event for recorded in salvage(hold.journal).events]
    except OSError:
        return
    for event in events:
        if isinstance(event, Armed):
            armed[event.injection] = event
        elif isinstance(event, Reverted) and event.outcome in (DONE, SUPERSEDED):
            armed.pop(event.injection, None)
        elif isinstance(event, ProcessSpawned | ContainerStarted) and event.role == "proxy" and event.address:
            proxies.add(event.address)
    for one in armed.values():
        yield Thing("fault", one.injection, hold.run, owner, one.expires_at)
    for address in sorted(proxies):
        heard = ask(f"http://{address}", "GET", "/toxics", timeout_s=_CONTROL_S)
        with contextlib.suppress(ValueError, TypeError, KeyError):
            for toxic in json.loads(heard.body or b"[]"):
                if toxic["tag"] not in armed:
                    yield Thing("toxic", f"{toxic['tag']} at {address}", hold.run, owner, "")


def _remove(things: Iterable[Thing], engine: str, hands_for: actions.HandsFor) -> dict[str, str]:
    """Run → why something of it may be left."""
    stale = [thing for thing in things if thing.stale]
    trouble: dict[str, str] = {}
    for run in dict.fromkeys(thing.run for thing in stale if thing.kind == "run"):
        try:
            left = [text for result in actions.recover(run, hands_for=hands_for) for text in result.left]
        except Refused as refused:
            left = [str(refused)]
        if left:
            trouble[run] = "; ".join(left)
    for run in dict.fromkeys(thing.run for thing in stale):
        if run in {hold.run for hold in holds.open_runs()} | _kept_runs():
            continue
        if left := _remove_all_of(run, [thing for thing in stale if thing.run == run], engine):
            trouble[run] = "; ".join(left)
    return trouble


def _remove_all_of(run: str, things: list[Thing], engine: str) -> list[str]:
    left = [f"pid {who.pid} is still alive" for who in procfs.kill_until_gone(procfs.marked(run), KILL_LIMIT_S)]
    if any(thing.kind in _ENGINE_KINDS for thing in things):
        claims = Claims(run, base=base_name(run))
        claims.note(ResourcesClaimed(engine, [], [], []))
        left += run_now(claims.remove(settle=False)).left
    for thing in things:
        if thing.kind == "cgroup":
            try:
                Path(thing.name).rmdir()
            except OSError as error:
                left.append(f"{thing.name}: {error.strerror}")
    return left
