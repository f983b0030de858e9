"""Undoes what was done to containers and fault proxies. Each word is a generator of steps with one limit: no fork and
no thread, so that a keeper can lift many harms at once, and a process without a loop can do the same with `run_now`.

A call that fails is repeated until its limit; one that was answered too late is *doubtful*, and looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast
from urllib.parse import quote

from stormdrill.keeper import procfs
from stormdrill.keeper.exchange import exchange
from stormdrill.keeper.heard import Heard
from stormdrill.keeper.loop import Steps, Wait
from stormdrill.keeper.outcome import DONE, FAILED, SUPERSEDED, Outcome
from stormdrill.model.undo import Clear, EndExec, Engine, Exec

Remote = Clear | Engine | EndExec | Exec
Alive = Callable[[str], bool]
"""Whether a process that is known to answer at this address lives."""
REFUSED = "connection refused"
ENGINE, PROXY = "the engine", "the fault proxy"
_AGAIN_S = 0.05
_AGAIN_AT_MOST_S = 1.0
_LOOK_S = 0.005
_INSPECT_S = 2.0
_RUNS_ALREADY = 304
_RUNS_OR_RAN = 409
_STAYS_S, _UNSEEN_STAYS_S = 0.4, 1.5
"""How long it must be seen to run; longer where this machine's /proc doesn't show its process, or no longer does."""
_TOO_LONG = 408
"""Stands for: it was started and did not end; starting it again would not help."""
_KILL_TAGGED = (
    'for d in /proc/[0-9]*; do p=${d#/proc/}; [ "$p" = "$$" ] && continue; [ "$p" = 1 ] && continue; '
    'grep -qzxF -e "$1" "$d/cmdline" 2>/dev/null && { kill -9 "-$p"; kill -9 "$p"; } 2>/dev/null; done; exit 0'
)
"""Fixed; the tag is its argument. For an engine whose processes this machine's /proc doesn't show."""


def limit_s(undo: Remote) -> float:
    """The longest that its steps take when nothing shortens them: a call, and time to repeat it."""
    return undo.timeout_s if isinstance(undo, Clear) else 2 * undo.timeout_s


def steps(undo: Remote, alive: Alive, within_s: float | None = None) -> Steps[Outcome]:
    """Carry it out. Raises nothing that an engine or proxy can cause."""
    until = _Until(limit_s(undo) if within_s is None else within_s)
    if isinstance(undo, Clear):
        return _clear(undo, alive, until)
    if isinstance(undo, Engine):
        return _engine(undo, until)
    return _end_exec(undo, until) if isinstance(undo, EndExec) else _exec(undo, until)


class _Until:
    """One limit, and growing pauses between attempts within it."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._at_s = time.monotonic() + limit_s
        self._pause_s = _AGAIN_S

    def left_s(self, at_most_s: float = float("inf")) -> float:
        return max(0.0, min(at_most_s, self._at_s - time.monotonic()))

    def again(self) -> Steps[bool]:
        """Pause; False when the time is up."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _AGAIN_AT_MOST_S)
        if self.left_s() <= 0:
            return False
        yield Wait(lambda: False, self.left_s(pause_s))
        return self.left_s() > 0


def _clear(undo: Clear, alive: Alive, until: _Until) -> Steps[Outcome]:
    what = f"toxics of {undo.tag} at {undo.address}"
    path = f"/toxics/{quote(undo.tag, safe='')}"
    while True:
        heard = yield from exchange(undo.address, "DELETE", path, timeout_s=until.left_s(undo.timeout_s))
        if heard.status == 200:
            left = yield from _toxics_left(undo, until)
            if left is not True:
                return Outcome(DONE, f"{what}: cleared", PROXY if left is False else "")
        elif 400 <= heard.status < 500:
            return Outcome(FAILED, f"{what}: {said(heard)}")
        elif not heard.sent and heard.error.endswith(REFUSED) and (yield from _is_gone(undo, alive, until)):
            return Outcome(SUPERSEDED, f"{what}: the proxy is gone, and a dead proxy shapes nothing", PROXY)
        if not (yield from until.again()):
            why = said(heard) if heard.status != 200 else "still there after it was cleared"
            return Outcome(FAILED, f"{what}: {why}, for {until.limit_s:g} s")


def _is_gone(undo: Clear, alive: Alive, until: _Until) -> Steps[bool]:
    """The control port is open from a proxy's first moment to its last: refused means that no process is there."""
    return not alive(undo.address) and (yield from ended(undo.engine, undo.container, until.left_s(_INSPECT_S)))


def ended(engine: str, container: str, limit_s: float = _INSPECT_S) -> Steps[bool]:
    """Whether the engine says that it doesn't run: the ports of containers close with the engine too. No container:
    nobody has to be asked."""
    if not container:
        return True
    heard = yield from exchange(engine, "GET", f"/containers/{quote(container, safe='')}/json", timeout_s=limit_s)
    found = _object(heard.body) if heard.status == 200 and not heard.error else {}
    gone = heard.status == 404 and not heard.error
    return gone or (bool(found) and not _part(found, "State").get("Running"))


def _toxics_left(undo: Clear, until: _Until) -> Steps[bool | None]:
    heard = yield from exchange(undo.address, "GET", "/toxics", timeout_s=until.left_s(undo.timeout_s))
    try:
        listed = json.loads(heard.body) if heard.status == 200 and not heard.error else None
        return None if listed is None else any(item.get("tag") == undo.tag for item in listed)
    except (ValueError, AttributeError, TypeError):
        return None


def _engine(undo: Engine, until: _Until) -> Steps[Outcome]:
    what = f"{undo.method} {undo.path}"
    doubtful = False
    while True:
        ours = (yield from _is_ours(undo, until)) if undo.ours else True
        if ours is False:
            word = DONE if doubtful else SUPERSEDED
            return Outcome(word, f"{what}: its limits are not those of the fault (any more)", ENGINE)
        heard = Heard(error="the engine does not tell its limits")
        if ours:
            heard = yield from exchange(undo.engine, undo.method, undo.path, undo.body, until.left_s(undo.timeout_s))
        undone = yield from _looks_undone(undo, until)
        if heard.status in undo.moot and undone is not False:  # the status alone may speak of something else
            undone = yield from _stays(undo, heard.status, until)
            if undone:
                word = DONE if doubtful else SUPERSEDED
                return Outcome(word, f"{what}: {said(heard)}", ENGINE)
        if heard.status in undo.done and undone is not False:
            return Outcome(DONE, f"{what}: {heard.status}", ENGINE if undone else "")
        if undone:
            doubtful = doubtful or (heard.sent and not heard.status)
            return Outcome(DONE if doubtful else SUPERSEDED, f"{what}: {said(heard)}; seen to be undone", ENGINE)
        if 400 <= heard.status < 500 and heard.status not in undo.moot:
            return Outcome(FAILED, f"{what}: {said(heard)}")
        doubtful = doubtful or (heard.sent and not heard.status)
        if not (yield from until.again()):
            return Outcome(FAILED, f"{what}: {said(heard)}, for {until.limit_s:g} s")


def _is_ours(undo: Engine, until: _Until) -> Steps[bool | None]:
    """Whether the container's limits are what the fault has left; None where the engine doesn't tell."""
    container = undo.path.strip("/").split("/")[1]
    heard = yield from exchange(undo.engine, "GET", f"/containers/{container}/json", timeout_s=until.left_s(_INSPECT_S))
    if heard.error or heard.status not in (200, 404):
        return None
    limits = _part(_object(heard.body), "HostConfig")
    return heard.status == 404 or all(limits.get(key) == value for key, value in _object(undo.ours).items())


def _looks_undone(undo: Engine, until: _Until) -> Steps[bool | None]:
    """What the engine itself says of the state that the call was to bring about; None where nobody can tell."""
    room, name, verb = [*undo.path.partition("?")[0].strip("/").split("/"), "", "", ""][:3]
    wanted = _object(undo.body)
    container = str(wanted.get("Container", "")) if room == "networks" else name
    if (room, verb) not in _SEEN_AT or not container:
        return None
    heard = yield from exchange(
        undo.engine, "GET", f"/containers/{quote(container, safe='')}/json", timeout_s=until.left_s(_INSPECT_S)
    )
    if heard.status == 404 and not heard.error and "o such container" in said(heard):
        return True
    found = _object(heard.body) if heard.status == 200 and not heard.error else {}
    if not found:
        return None
    state = _part(found, "State")
    if verb == "unpause":
        return not state.get("Paused")
    if verb == "start":
        return bool(state.get("Running"))
    if verb == "update":
        limits = _part(found, "HostConfig")
        return True if wanted and all(limits.get(key) == value for key, value in wanted.items()) else None
    networks = _part(_part(found, "NetworkSettings"), "Networks")
    if any(name in (key, _part(networks, key).get("NetworkID")) for key in networks):
        return True
    network = yield from exchange(undo.engine, "GET", f"/networks/{name}", timeout_s=until.left_s(_INSPECT_S))
    return None if network.status == 404 and not network.error else False


def _stays(undo: Engine, status: int, until: _Until) -> Steps[bool]:
    """Whether what the engine calls running goes on running: of a kill it learns some 0.1 s later than its victim, and
    one that was asked for by somebody who died meanwhile may still be to come."""
    if status != _RUNS_ALREADY or not undo.path.partition("?")[0].endswith("/start"):
        return True
    container = undo.path.strip("/").split("/")[1]
    began_s, told = time.monotonic(), False
    while True:
        heard = yield from exchange(
            undo.engine, "GET", f"/containers/{container}/json", timeout_s=until.left_s(_INSPECT_S)
        )
        found = _object(heard.body) if heard.status == 200 and not heard.error else {}
        state = _part(found, "State")
        pid = state.get("Pid")
        if found and not state.get("Running"):
            return False
        lives = isinstance(pid, int) and pid > 1 and _is_in(pid, str(found.get("Id", "")))
        seen_s = time.monotonic() - began_s
        if heard.status == 404 or (found and seen_s >= (_STAYS_S if lives else _UNSEEN_STAYS_S)):
            return True
        told = told or bool(found)
        if until.left_s() <= 0:
            return told
        yield Wait(lambda: False, until.left_s(_LOOK_S * 2))


_SEEN_AT = {("containers", "unpause"), ("containers", "start"), ("containers", "update"), ("networks", "connect")}


def _exec(undo: Exec, until: _Until) -> Steps[Outcome]:
    what = f"{' '.join(undo.argv)} in {undo.container[:12]}"
    while True:
        ran = yield from _run(undo, until)
        if isinstance(ran, int):
            word = DONE if ran == 0 else SUPERSEDED if ran in undo.moot else FAILED
            return Outcome(word, f"{what}: exit {ran}", "its exit code" if word != FAILED else "")
        if 400 <= ran.status < 500:
            return Outcome(FAILED, f"{what}: {said(ran)}")
        if not (yield from until.again()):
            return Outcome(FAILED, f"{what}: {said(ran)}, for {until.limit_s:g} s")


def _run(undo: Exec, until: _Until) -> Steps[int | Heard]:
    """Create, start, and look until it has ended: its exit code, or what came instead of one."""
    ends_s = time.monotonic() + until.left_s(undo.timeout_s)
    made = yield from exchange(
        undo.engine,
        "POST",
        f"/containers/{quote(undo.container, safe='')}/exec",
        json.dumps({"Cmd": list(undo.argv), "AttachStdout": False, "AttachStderr": False}),
        until.left_s(undo.timeout_s),
    )
    number = str(_object(made.body).get("Id", ""))
    if made.status != 201 or not number:
        return made._replace(error=made.error or said(made))
    started = yield from _start(undo, number, until)
    if started.status not in (0, 200, 204):
        return started
    running: dict[str, object] = {}
    while True:
        heard = yield from exchange(undo.engine, "GET", f"/exec/{number}/json", timeout_s=until.left_s(_INSPECT_S))
        found = _object(heard.body) if heard.status == 200 else {}
        if isinstance(code := found.get("ExitCode"), int) and found.get("Running") is False:
            return code
        running = found or running
        if time.monotonic() >= ends_s:
            _kill(_pids_of(running, undo.container))
            return Heard(_TOO_LONG, error=f"no end after {undo.timeout_s:g} s", sent=True)
        if heard.status != 200:  # a start whose answer was lost shows here too
            return Heard(error=said(heard), sent=True)
        yield Wait(lambda: False, until.left_s(_LOOK_S))


def _start(undo: Exec, number: str, until: _Until) -> Steps[Heard]:
    """The same one again where the engine was in trouble: a new one would meet the same trouble, or run twice."""
    refused = False
    while True:
        heard = yield from exchange(
            undo.engine, "POST", f"/exec/{number}/start", '{"Detach":true}', until.left_s(undo.timeout_s)
        )
        if refused and heard.status == _RUNS_OR_RAN:
            return heard._replace(status=0)  # it was started in spite of what was said: what came of it is looked at
        if heard.status < 500 or not (yield from until.again()):
            return heard
        refused = True


def _end_exec(undo: EndExec, until: _Until) -> Steps[Outcome]:
    what = f"what was started as {undo.tag} in {undo.container[:12]}"
    ended = 0
    while True:
        box = yield from exchange(
            undo.engine, "GET", f"/containers/{quote(undo.container, safe='')}/json", timeout_s=until.left_s(_INSPECT_S)
        )
        if box.status == 404 and not box.error:
            return Outcome(SUPERSEDED, f"{what}: the container is gone", ENGINE)
        found = _object(box.body)
        state = _part(found, "State")
        if box.status == 200 and not state.get("Running"):
            return Outcome(SUPERSEDED, f"{what}: the container has ended", ENGINE)
        if box.status == 200:
            left = yield from _end_tagged(undo, str(found.get("Id", "")), state.get("Pid"), until)
            ended += max(left, 0)
            if left == 0:
                return Outcome(DONE if ended else SUPERSEDED, f"{what}: {ended} ended, none left", ENGINE)
        if not (yield from until.again()):
            why = "still there" if box.status == 200 else said(box)
            return Outcome(FAILED, f"{what}: {why}, for {until.limit_s:g} s")


def _end_tagged(undo: EndExec, container: str, first: object, until: _Until) -> Steps[int]:
    """End them; how many there were, 0 when none is left, -1 when nobody can tell."""
    path = f"/exec/{quote(undo.exec_id, safe='')}/json"
    heard = yield from exchange(undo.engine, "GET", path, timeout_s=until.left_s(_INSPECT_S))
    if heard.status not in (200, 404) or heard.error:
        return -1
    running = _object(heard.body) if heard.status == 200 else {}
    if isinstance(first, int) and _is_in(first, container):  # the engine's processes are this machine's
        victims = _tagged(container, undo.tag) | set(_pids_of(running, container))
        victims = {who for who in victims if who.pid != first}  # the instance itself is never what was started in it
        below = {procfs.Identity(s.pid, s.start_ticks, procfs.boot_id()) for s in procfs.descendants(_numbers(victims))}
        _kill(victims | below)
        yield Wait(lambda: not any(who.lives for who in victims), until.left_s(0.5))
        return len(victims) or (1 if running.get("Running") else 0)
    # The exec that looks for the tag carries it as an argument of its own: it is not the one that is ended.
    script = Exec(undo.engine, undo.container, ("sh", "-c", _KILL_TAGGED, "sh", undo.tag), timeout_s=undo.timeout_s)
    ran = yield from _run(replace(script, timeout_s=until.left_s(undo.timeout_s)), until)
    if ran != 0:
        return -1
    again = yield from exchange(undo.engine, "GET", path, timeout_s=until.left_s(_INSPECT_S))
    return 1 if running.get("Running") or (again.status == 200 and _object(again.body).get("Running")) else 0


def _tagged(container: str, tag: str) -> set[procfs.Identity]:
    """Processes of this container with the tag among their arguments, as this machine's /proc shows them."""
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if tag.encode() in Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0") and _is_in(int(name), container):
                who = procfs.identity_of(int(name))
                if who and who.lives:
                    found.add(who)
    return found


def _pids_of(running: dict[str, object], container: str) -> list[procfs.Identity]:
    """The process of a running exec, if this machine shows it in that container."""
    pid = running.get("Pid")
    container = str(running.get("ContainerID") or container)
    if not running.get("Running") or not isinstance(pid, int) or pid <= 1 or not _is_in(pid, container):
        return []
    who = procfs.identity_of(pid)
    return [who] if who and who.lives else []


def _is_in(pid: int, container: str) -> bool:
    """Whether this machine's process is one of that container: its control group carries the container's id."""
    if len(container) < 12:
        return False
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _kill(victims: set[procfs.Identity] | list[procfs.Identity]) -> None:
    for who in victims:
        with contextlib.suppress(PermissionError):
            procfs.send(who, signal.SIGKILL)


def _numbers(who: set[procfs.Identity]) -> list[int]:
    return [item.pid for item in who]


def said(heard: Heard) -> str:
    """What came back, in a few words."""
    if heard.error:
        return heard.error
    message = _object(heard.body).get("message")
    return f"{heard.status}, {str(message)[:300]}" if message else str(heard.status)


def _object(text: bytes | str) -> dict[str, object]:
    """A JSON object, or nothing."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _part(values: dict[str, object], name: str) -> dict[str, object]:
    part = values.get(name)
    return cast("dict[str, object]", part) if isinstance(part, dict) else {}
