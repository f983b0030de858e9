"""A drill that the cluster begins by itself: a CronJob with the files of one experiment, under the suite's account."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from stormdrill.cluster.confined import CONFINED, placed
from stormdrill.errors import Refused
from stormdrill.targets.kubernetes.rbac import Manifest, labels_of, role_name

LARGEST = 900_000
"""Bytes of the files together: a ConfigMap takes a little more."""
GRACE_S = 120
"""From SIGTERM, on which the run reverts and ends, to SIGKILL, after which its watchdog does."""
LATE_S = 300
"""A run that couldn't begin for so long is left out, until its next time."""
HERE = "/drill"
RUNS = "/runs"
SCRATCH = "/tmp"  # noqa: S108  (of a pod of its own)
_PART = re.compile(r"(?:\*|(?P<low>[0-9]+|[A-Za-z]{3})(?:-(?P<high>[0-9]+|[A-Za-z]{3}))?)(?:/(?P<step>[0-9]+))?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),  # a cluster takes no 7 for Sunday
)
"""What each field is of, its least and its greatest, and the names that stand for these numbers."""
_WORDS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")


class Scheduled(Struct, frozen=True):
    """What is run, when, and where its record goes."""

    experiment: str
    """Its name."""
    path: str
    """Of the experiment among the files: experiments/node-loss.yaml."""
    schedule: str
    """As cron has it: 0 3 * * 1."""
    files: Mapping[str, str]
    """Path → text, as in a repository of one's own."""
    image: str
    suite: str
    account: str
    lasts_s: float
    pull: str = ""
    pull_secret: str = ""
    settings: Mapping[str, str] = {}
    claim: str = ""
    """The PersistentVolumeClaim in the suite's namespace that keeps the runs; empty: only what the log says is kept."""
    nodes: Mapping[str, str] = {}
    """Labels of those that it may run on; empty: any."""
    avoid: Sequence[str] = ()
    """Nodes that its faults take now, and those on which nothing would run."""
    secrets: Sequence[str] = ()
    """Variables that the experiment's secrets are read from."""
    fast: bool = False


def manifests(wanted: Scheduled) -> list[Manifest]:
    """Raises Refused for a schedule that is none, and for files that no ConfigMap takes."""
    schedule = wanted.schedule.strip()
    if wrong := _wrong(schedule):
        raise Refused(
            f"--schedule {schedule!r} is no schedule: {wrong}; write five fields as cron has them: '0 3 * * 1'"
        )
    size = sum(len(text.encode()) for text in wanted.files.values())
    if size > LARGEST:
        raise Refused(f"the files of {wanted.experiment} are {size} bytes, and a ConfigMap takes {LARGEST}")
    name = f"stormdrill-{role_name(wanted.experiment)}"[:52].strip("-")  # a CronJob's Jobs bear it with a number behind
    meta: Manifest = {"name": name, "namespace": wanted.suite, "labels": labels_of(wanted.experiment)}
    keys = {_key(path): path for path in wanted.files}
    files: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {key: wanted.files[path] for key, path in keys.items()},
    }
    spec: Manifest = {
        "schedule": schedule,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": LATE_S,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "spec": {
                "backoffLimit": 0,  # a drill that failed is not tried again by anybody but people
                "activeDeadlineSeconds": math.ceil(2 * wanted.lasts_s + 600),
                "template": {"metadata": {"labels": meta["labels"]}, "spec": _pod(wanted, name, keys)},
            }
        },
    }
    return [files, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": spec}]


def _wrong(schedule: str) -> str:
    """Why a cluster would not take it; empty where it would."""
    if schedule in _WORDS:
        return ""
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        return f"it has {len(fields)} fields" if len(fields) != 1 else "it has one field"
    for field, (of, least, most, names) in zip(fields, _FIELDS, strict=True):
        allowed = f"{least}-{most}" + (f" or {names[0]}-{names[-1]}" if names else "")
        if not all(_part_holds(part, least, most, names) for part in field.split(",")):
            return f"{field} is no {of} ({allowed})"
    return ""


def _part_holds(part: str, least: int, most: int, names: Sequence[str]) -> bool:
    found = _PART.fullmatch(part)
    if found is None or (found["step"] is not None and int(found["step"]) == 0):
        return False
    ends = [_number(end, least, names) for end in (found["low"], found["high"]) if end is not None]
    return all(least <= end <= most for end in ends) and ends == sorted(ends)


def _number(said: str, least: int, names: Sequence[str]) -> int:
    """-1 for a name that isn't one of these."""
    if said.isdigit():
        return int(said)
    return names.index(said.lower()) + least if said.lower() in names else -1


def _pod(wanted: Scheduled, name: str, keys: Mapping[str, str]) -> Manifest:
    items = [{"key": key, "path": path} for key, path in keys.items()]
    kept: Manifest = {"persistentVolumeClaim": {"claimName": wanted.claim}} if wanted.claim else {"emptyDir": {}}
    container: Manifest = {
        "name": "drill",
        "image": wanted.image,
        "command": ["python3", "-m", "stormdrill"],
        "args": _arguments(wanted),
        "workingDir": SCRATCH,
        "env": [
            {"name": "HOME", "value": SCRATCH},
            {"name": "XDG_STATE_HOME", "value": f"{RUNS}/.state"},  # with the runs: what one left is found by the next
            *({"name": one, "valueFrom": {"secretKeyRef": {"name": name, "key": one}}} for one in wanted.secrets),
        ],
        "securityContext": CONFINED,
        "volumeMounts": [
            {"name": "files", "mountPath": HERE, "readOnly": True},
            {"name": "runs", "mountPath": RUNS},
            {"name": "scratch", "mountPath": SCRATCH},
        ],
    }
    if wanted.pull:
        container["imagePullPolicy"] = wanted.pull
    return {
        **placed(nodes=wanted.nodes, off=wanted.avoid, pull_secret=wanted.pull_secret),
        "serviceAccountName": wanted.account,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [container],
        "volumes": [
            {"name": "files", "configMap": {"name": name, "items": items}},
            {"name": "runs", **kept},
            {"name": "scratch", "emptyDir": {}},
        ],
    }


def _arguments(wanted: Scheduled) -> list[str]:
    said = ["run", f"{HERE}/{wanted.path}", "--target", "kubernetes", "--json", "--runs", RUNS]
    for key, value in wanted.settings.items():
        said += ["--set", f"{key}={value}"]
    return [*said, "--fast"] if wanted.fast else said


def _key(path: str) -> str:
    """A ConfigMap's keys have no folders."""
    return re.sub(r"[^-._a-zA-Z0-9]", "_", path.replace("/", "__"))
