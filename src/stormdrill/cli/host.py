"""What this machine offers to a drill, and what a missing part costs. Looks only; nothing is left changed."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from stormdrill.cli.defect import state_home

State = Literal["ok", "weak", "missing"]
PR_GET_PDEATHSIG = 2
PR_GET_CHILD_SUBREAPER = 37
FILES_WANTED = 4096
MEMORY_WANTED_MB = 1024
DISK_WANTED_MB = 500
CORES_WANTED = 2
MIB = 1024 * 1024


class Finding(NamedTuple):
    """One part of the machine."""

    part: str
    state: State
    seen: str
    cost: str = ""
    """What its lack costs, or what to do about it; empty when there is nothing to say."""
    target: str = ""
    """The target whose mechanism it is; empty: the machine, or a target as a whole."""


def findings(runs: Path) -> list[Finding]:
    """All of them, in the order in which a drill depends on them."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _kernel,
        _pidfd,
        _death_signal,
        _subreaper,
        _run_delay,
        _abstract_sockets,
        _loopback,
        _open_files,
        _cores,
        _memory,
    )
    return [*(check() for check in checks), _writable("runs", runs), _writable("state", state_home()), *targets()]


def targets() -> list[Finding]:
    """Where a system can run from here, mechanism by mechanism, and what would be needed elsewhere."""
    from stormdrill.targets.docker import look as docker
    from stormdrill.targets.process import look as process

    linux = sys.platform == "linux"
    found = [
        Finding("processes", "ok", "the embedded default")
        if linux
        else Finding("processes", "missing", sys.platform, "needs Linux: /proc, signals to stopped processes")
    ]
    found += [Finding(one.mechanism, one.state, one.seen, one.cost, "process") for one in process.findings()]
    seen = list(docker.findings())
    found.append(_containers([one.mechanism for one in seen if one.state == "missing"]))
    found += [Finding(one.mechanism, one.state, one.seen, one.cost, "docker") for one in seen]
    found.append(_kubernetes())
    return found


def _kubernetes() -> Finding:
    """Whether there is what speaks to a cluster; no cluster is asked."""
    from importlib.util import find_spec

    if find_spec("kubernetes") is None:
        cost = "--target kubernetes is refused, but for a run in a pod: pip install 'stormdrill[kubernetes]'"
        return Finding("Kubernetes", "missing", "no client that reads kubeconfigs", cost)
    return Finding("Kubernetes", "ok", "--target kubernetes; what a cluster offers, plan says")


def of_cluster(context: str, suite: str) -> list[Finding]:
    """What the cluster of that context offers. Asks it."""
    from stormdrill.errors import Refused
    from stormdrill.targets.kubernetes.look import findings

    try:
        return [Finding(one.part, one.state, one.seen, one.cost, "kubernetes") for one in findings(context, suite)]
    except Refused as refused:
        return [Finding("kubeconfig", "missing", str(refused), "--target kubernetes is refused", "kubernetes")]


def _containers(lacking: Sequence[str]) -> Finding:
    what = f"no {', no '.join(lacking)}"
    refused = "--target docker is refused until then"
    if "engine" in lacking:
        return Finding("containers", "missing", f"nothing can run: {what}", refused)
    if not STARTS.isdisjoint(lacking):
        cost = f"{refused}, but for containers that run already"
        return Finding("containers", "missing", f"nothing can be started: {what}", cost)
    if lacking:
        return Finding("containers", "weak", f"in part: {what}", "faults that need it are refused")
    return Finding("containers", "ok", "--target docker")


STARTS = frozenset({"testcontainers", "base image"})
"""Without which no container is made."""


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} {platform.python_implementation()}")


def _kernel() -> Finding:
    if sys.platform != "linux":
        return Finding("kernel", "missing", platform.platform(terse=True), "Linux is what drills are proven on")
    return Finding("kernel", "ok", f"Linux {platform.release()}")


def _pidfd() -> Finding:
    try:
        handle = os.pidfd_open(os.getpid())
    except (AttributeError, OSError) as error:
        cost = "a signal could reach a stranger that took over a pid; start times are compared instead, a little later"
        return Finding("pidfd", "weak", str(error), cost)
    os.close(handle)
    return Finding("pidfd", "ok", "signals reach exactly the process that is meant")


def _death_signal() -> Finding:
    if _prctl(PR_GET_PDEATHSIG):
        return Finding("death signal", "ok", "children end with the keeper")
    cost = "runner and keeper killed at once leave the system running until `stormdrill recover`"
    return Finding("death signal", "missing", "PR_SET_PDEATHSIG is refused", cost)


def _subreaper() -> Finding:
    if _prctl(PR_GET_CHILD_SUBREAPER):
        return Finding("subreaper", "ok", "the keeper sees orphans of what it spawned")
    cost = "a service that forks and leaves its parent may outlive the tear-down"
    return Finding("subreaper", "missing", "PR_SET_CHILD_SUBREAPER is refused", cost)


def _prctl(word: int) -> bool:
    value = ctypes.c_int(0)
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(word, ctypes.byref(value), 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _run_delay() -> Finding:
    try:
        fields = Path("/proc/self/schedstat").read_text(encoding="ascii").split()
    except OSError:
        fields = []
    if len(fields) >= 2:
        return Finding("run delay", "ok", "a host starved by strangers is seen in /proc/PID/schedstat")
    cost = "starvation is judged by foreign CPU alone: more runs end INVALID, or late"
    return Finding("run delay", "weak", "no /proc/PID/schedstat", cost)


def _abstract_sockets() -> Finding:
    name = f"\0stormdrill-doctor-{os.getpid()}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(name)
    except (AttributeError, OSError) as error:
        return Finding(
            "sockets", "weak", str(error), "locks and the keeper's socket are files, which a crash leaves behind"
        )
    return Finding("sockets", "ok", "abstract ones, gone with their process")


def _loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            pass
    except OSError as error:
        return Finding("loopback", "missing", str(error), "no system can listen here: nothing can be drilled")
    return Finding("loopback", "ok", "127.0.0.1 gives free ports")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen = f"{soft:,} at once (limit {hard:,})"
    if soft >= FILES_WANTED:
        return Finding("open files", "ok", seen)
    return Finding("open files", "weak", seen, f"high rates run short of connections; ulimit -n {FILES_WANTED}")


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load1 = os.getloadavg()[0]
    seen = f"{cores}, load {load1:.1f}"
    if cores < CORES_WANTED:
        return Finding("cores", "weak", seen, "generator and system share one core: expect INVALID at high rates")
    if load1 > cores:
        return Finding("cores", "weak", seen, "others are using this machine: expect INVALID while they do")
    return Finding("cores", "ok", seen)


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free_mb = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return Finding("memory", "weak", "unknown", "the machine's protection cannot see memory running out")
    seen = f"{free_mb:,} MiB available"
    if free_mb < MEMORY_WANTED_MB:
        return Finding(
            "memory", "weak", seen, f"runs abort to protect the machine; {MEMORY_WANTED_MB:,} MiB are comfortable"
        )
    return Finding("memory", "ok", seen)


def _writable(part: str, place: Path) -> Finding:
    """Can a folder be made and written there? Looks at what exists, and makes nothing."""
    there = place.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Finding(part, "missing", f"{there} cannot be written", "every run is refused before anything is touched")
    free_mb = shutil.disk_usage(there).free // MIB
    seen = f"{place}, {free_mb:,} MiB free"
    if free_mb < DISK_WANTED_MB:
        return Finding(
            part, "weak", seen, "a record may not fit; a run that fills the disk reverts and is judged on what it has"
        )
    return Finding(part, "ok", seen)
