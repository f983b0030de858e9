"""What is looked at after a kill, with eyes of its own: nothing is taken from what the product says of itself but the
journal, which is compared with what was seen and acknowledged before."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from killing_runs import ACKNOWLEDGED, LOG, MARK, Place

from stormdrill.errors import Refused
from stormdrill.keeper import procfs
from stormdrill.keeper.actions import list_runs, recover
from stormdrill.keeper.sweep import sweep
from stormdrill.model.event import Armed, RunEnded
from stormdrill.store import holds
from stormdrill.store.journal import NAME, salvage
from stormdrill.store.verify import verify

GONE_WITHIN_S = 30.0
CALM_S = 0.003


def alive(place: Place) -> list[procfs.Identity]:
    """Every living process that inherited this kill's mark, frozen ones too, this one not."""
    wanted = f"{MARK}={place.root.name}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                who = procfs.identity_of(int(name))
                if who and who.lives:
                    found.append(who)
    return found


def gone_after_s(place: Place, runner_pid: int, since_s: float, code: int | None = None) -> tuple[float, int | None]:
    """Seconds until nothing of the run was alive, and the runner's exit status (None: it had to be given up).

    `code`: with which it has ended already.
    """
    known = alive(place)
    until_s = since_s + GONE_WITHIN_S
    while time.monotonic() < until_s:
        if code is None:
            code = reap(runner_pid)
        known = [who for who in known if who.lives]
        # what is started while it is looked for is found by the next look, since its parent is alive until then
        if code is not None and not known and not (known := alive(place)) and not (known := alive(place)):
            break
        time.sleep(CALM_S)
    return time.monotonic() - since_s, code


def reap(runner_pid: int) -> int | None:
    """The runner's exit code, or minus its signal; None while it lives. Orphans that came to us are reaped too."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return code
            if pid == runner_pid:
                code = os.waitstatus_to_exitcode(status)
    return code


def left_behind(place: Place, seen: bytes) -> list[str]:
    """Everything that should not be; `seen`: the journal's lines as they were when the kill came."""
    found = [f"still alive: pid {who.pid}, {_told(who.pid)}" for who in alive(place)]
    for who in alive(place):
        procfs.send(who, 9)
    run_dir = place.run_dir
    found += [f"{hold.run} is still held" for hold in holds.open_runs()]
    if run_dir is None:
        return found
    found += _journal(place, run_dir, seen)
    found += _files(run_dir)
    found += _listening(run_dir) if place.target == "process" else []
    found += [f"a control group is left: {path}" for path in _cgroups(run_dir.name)]
    with contextlib.suppress(OSError):
        if text := (run_dir / "logs" / "keeper.log").read_text():
            found.append(f"the keeper wrote: {text[-2000:]}")
    found += [f"sweep finds {thing}" for thing in sweep(run_dir.name, dry_run=True).things]
    said = (place.root / LOG).read_text()
    if "Traceback" in said or "Exception" in said:
        found.append(f"the runner wrote: {said[-3000:]}")
    return found


def _journal(place: Place, run_dir: Path, seen: bytes) -> list[str]:
    path = run_dir / NAME
    if not path.exists() or not path.stat().st_size:
        return ["the journal is gone"] if seen else []
    found = [f"verify: {problem}" for problem in verify(run_dir)]
    data = path.read_bytes()
    if not data.startswith(seen):
        found.append("lines that were there before the kill are changed or gone")
    events = salvage(path).events
    there = {f"{item.seq} {item.event.type}" for item in events}
    there |= {f"armed {item.event.injection}" for item in events if isinstance(item.event, Armed)}
    with contextlib.suppress(FileNotFoundError):
        promised = (place.root / ACKNOWLEDGED).read_text().splitlines()
        found += [f"acknowledged and not in the journal: {line}" for line in promised if line not in there]
    ends = [item.event for item in events if isinstance(item.event, RunEnded)]
    if ends and ends[-1].status not in ("aborted", "completed"):
        found.append(f"it ended {ends[-1].status}: {ends[-1].reason}")
    return found


def _files(run_dir: Path) -> list[str]:
    """Every file that was to be restored says what it said, with the rights it had, and no half of it lies about."""
    found = []
    for item in salvage(run_dir / NAME).events if (run_dir / NAME).exists() else []:
        if not isinstance(item.event, Armed):
            continue
        for undo in item.event.undo:
            if undo["kind"] != "restore-file":
                continue
            path = Path(str(undo["path"]))
            try:
                if path.read_text() != undo["text"] or path.stat().st_mode & 0o7777 != undo["mode"]:
                    found.append(f"{path.name} isn't as it was: {path.read_text()!r}")
            except OSError as error:
                found.append(f"{path.name} isn't as it was: {error.strerror}")
            found += [f"half a file is left: {part.name}" for part in path.parent.glob(".*.restored")]
    return found


def _listening(run_dir: Path) -> list[str]:
    """Whoever listens where the proxy did, unless it is somebody else's by now."""
    try:
        config = json.loads((run_dir / "work" / "proxy.json").read_text())
    except (OSError, ValueError):
        return []
    found = []
    for port in [int(config["control"]), *(int(route["listen"]) for route in config["routes"])]:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0 and _owner_is_nobody_else(port, run_dir.name):
                found.append(f"somebody listens on {port}, where the proxy did")
    return found


def _owner_is_nobody_else(port: int, run: str) -> bool:
    wanted = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{line[9]}]" for line in lines if line[1] == wanted and line[3] == "0A"}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for fd in (folder / "fd").iterdir():
                if str(fd.readlink()) in inodes:
                    return f"={run}".encode() in (folder / "environ").read_bytes()
    return bool(inodes)


def _cgroups(run: str) -> Iterator[Path]:
    for folder, below, _ in os.walk("/sys/fs/cgroup"):  # unlike glob it bears that a group goes while it is looked at
        yield from (Path(folder, name) for name in below if run in name)


def refused_until_recovered(place: Place, interrupted: bool) -> list[str]:
    """Both are dead: the next command says so, a new run is refused, and `recover` mends it.

    `interrupted`: a recover was killed before; whatever it had done, the next one must end the same.
    """
    found: list[str] = []
    for hold in holds.open_runs():
        until_s = time.monotonic() + 5.0
        while hold.alive and time.monotonic() < until_s:
            time.sleep(0.002)
        if hold.spent:  # it had ended, or was killed before there was anything to undo
            continue
        states = [line.state for line in list_runs(place.runs) if line.run == hold.run]
        if states != ["killed"] and not interrupted:
            found.append(f"the killed run is listed as {states}")
        try:
            holds.acquire(hold.system, hold.target, "another", place.runs)
            found.append("a new run was allowed before recover")
        except Refused as refused:
            if f"stormdrill recover {hold.run}" not in str(refused):
                found.append(f"the refusal doesn't name recover: {refused}")
    for result in recover():
        if result.status not in ("aborted", "completed"):
            found.append(f"recovered with status {result.status}: {result.left}")
    return found


def accepts_a_new_run(place: Place) -> list[str]:
    target = "process" if place.target == "process" else "docker"
    try:
        holds.release(holds.acquire("small", target, "another", place.runs))
    except Refused as refused:
        return [f"a new run is refused: {refused}"]
    return []


def _told(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        words = ""
    return f"state {procfs.state(pid)}, {words[:60]} … {words[-60:]}"
