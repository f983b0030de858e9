"""What is looked at from inside of pods: programs of ours, by their text, in whatever container is there.

With python3 in the container it runs the programs of `stormdrill.beside`; else a fixed script for a shell, whose words
are its arguments. A container with neither can't be looked into, and that is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import stormdrill
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.exec import Exec, Ran, Refusal
from stormdrill.errors import Unreachable
from stormdrill.targets.kubernetes.mechanism import Object, at, objects, says_ready
from stormdrill.targets.kubernetes.reach import Bound

TEXTS = Path(stormdrill.__file__).parent / "beside"
TRY_S = 1.0
"""One connection that is tried; what is cut off says nothing for as long as it is waited for."""
EXEC_LIMIT_S = 5.0
NOT_THERE = b"executable file"
OPEN = "open"
IN_THE_WAY = ("silent", "refused", "unreachable")
REACH_IN_SH = (
    "h=${1:-$KUBERNETES_SERVICE_HOST}; p=${2:-$KUBERNETES_SERVICE_PORT}; has() { command -v $1 >/dev/null 2>&1; }; "
    'if has nc; then said=$(nc -z -w "$3" "$h" "$p" 2>&1 </dev/null) && said=open; '
    'case "$said" in *nvalid*|*nrecognized*) said=$(nc -w "$3" "$h" "$p" 2>&1 </dev/null) && said=open;; esac; '
    'elif has wget; then said=$(wget -T "$3" -O /dev/null "http://$h:$p/" 2>&1) && said=open; '
    'case "$said" in *HTTP/1*|*"HTTP request sent"*) said=open;; esac; '
    "elif has bash && has timeout; then "
    r'said=$(timeout "$3" bash -c "</dev/tcp/\$0/\$1" "$h" "$p" 2>&1) && said=open; '
    "else exit 127; fi; "
    'case "$said" in open) echo open;; *efused*) echo refused;; *nreachable*) echo unreachable;; '
    '*resolv*|*"bad address"*|*"not known"*) echo unnamed;; *) echo silent;; esac'
)
TAGGED_IN_SH = (
    'n=0; kb=0; for d in /proc/[0-9]*; do [ "$d" = "/proc/$$" ] && continue; '
    'grep -qF -- "$1" "$d/cmdline" || continue; n=$((n + 1)); '
    "while read -r word value _; do case $word in VmRSS:) kb=$((kb + value));; esac; done <$d/status; "
    r'done 2>/dev/null; echo "{\"count\": $n, \"cpu_s\": 0, \"mb\": $((kb / 1024))}"'
)
WHILE_STDIN = "exec 3<&0; (cat <&3 >/dev/null 2>&1; kill -9 $$ 2>/dev/null) & "
"""Before a script that is to end when nobody can write to it any more."""


class Slot(NamedTuple):
    """A container of a pod, which is looked into."""

    cluster: str
    namespace: str
    pod: str
    uid: str
    container: str
    node: str


WhichPod = Callable[[str], Bound | None]
"""Instance → its pod; None while it has none."""


class Blind(Unreachable):
    """Nothing that could look runs in that container."""


class Counted(NamedTuple):
    """What the kernel counts for what bears a tag."""

    processes: int
    cpu_s: float
    mb: float


def inside(api: Api, slot: Slot, program: str, words: tuple[str, ...], in_sh: tuple[str, ...]) -> str:
    """What the program says: `python3 -c TEXT WORDS`, or `sh -c` the first of `in_sh` with the others. Raises Blind,
    Unreachable."""
    ran = run(api, slot, ("python3", "-c", (TEXTS / f"{program}.py").read_text(), *words))
    if ran is None:
        ran = run(api, slot, ("sh", "-c", in_sh[0], "sh", *in_sh[1:]))
    if ran is None or ran.code == 127:
        raise Blind(f"in {slot.pod} there is no program that could look")
    if ran.code:
        raise Unreachable(f"exec in {slot.pod}: {ran.err.decode('utf-8', 'replace').strip()[-200:]}")
    return ran.out.decode("utf-8", "replace").strip()


def run(api: Api, slot: Slot, argv: tuple[str, ...]) -> Ran | None:
    """None when there is no such program in the container. Raises Unreachable."""
    try:
        ran = Exec(api).run(slot.namespace, slot.pod, slot.container, argv, limit_s=EXEC_LIMIT_S)
        # some runtimes tell it as the program's own end
        return None if ran.code in (126, 127) and NOT_THERE in ran.out + ran.err else ran
    except Refusal as refusal:
        if "not found" in str(refusal) and "executable file" in str(refusal):
            return None
        if "no such file or directory" in str(refusal):
            return None
        raise Unreachable(f"exec in {slot.pod}: {refusal}") from refusal
    except Lost as lost:
        raise Unreachable(str(lost)) from lost


def reached(api: Api, slot: Slot, host: str, port: int) -> str:
    """What becomes of one connection from there: open, refused, silent, unreachable, unnamed. Without a host it is the
    API server. Raises Blind, Unreachable."""
    words = (*(("--host", host, "--port", str(port)) if host else ()), "--limit-s", f"{TRY_S:g}")
    return inside(api, slot, "reach", words, (REACH_IN_SH, host, str(port) if host else "", f"{TRY_S:.0f}"))


def tagged(api: Api, slot: Slot, tag: str) -> Counted:
    """Raises Blind, Unreachable."""
    said = inside(api, slot, "tagged", (tag,), (TAGGED_IN_SH, tag))
    try:
        read = json.loads(said)
        return Counted(int(read["count"]), float(read["cpu_s"]), float(read["mb"]))
    except (ValueError, KeyError, TypeError):
        raise Unreachable(f"exec in {slot.pod} said {said[:100]!r}") from None


def slot_of(cluster: str, pod: Object, port: int = 0) -> Slot:
    """Of any pod; the container that says it listens on the port, or the first."""
    containers = sorted(objects(at(pod, "spec", "containers")), key=lambda one: not _listens(one, port))
    return Slot(
        cluster,
        str(at(pod, "metadata", "namespace")),
        str(at(pod, "metadata", "name")),
        str(at(pod, "metadata", "uid")),
        str(containers[0].get("name")) if containers else "",
        str(at(pod, "spec", "nodeName") or ""),
    )


def _listens(container: Object, port: int) -> bool:
    return any(one.get("containerPort") == port for one in objects(container.get("ports")))


def is_ready(pod: Object | None) -> bool:
    """And stays so: nobody is ending it."""
    return says_ready(pod) and not at(pod, "metadata", "deletionTimestamp")
