"""The reference platform for a cluster, as text: one stream for `kubectl apply`, or the files of a kustomize tree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from stormdrill.errors import Problem, Refused
from stormdrill.targets.kubernetes.manifests import Layout, Manifest, everything, kustomization

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
"""What may be part of an object's name."""
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
STORAGES = ("node", "claim", "none")


class _Plain(yaml.SafeDumper):
    """Every document says everything itself."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def manifests(layout: Layout) -> str:
    """Raises Refused with every problem."""
    _check(layout)
    return stream(everything(layout))


def write_kustomize(layout: Layout, folder: Path) -> tuple[Path, ...]:
    """Writes base and overlay below `folder`, and says which files. Raises Refused, also for a file that is there and
    says something else."""
    _check(layout)
    if len(layout.regions) < 2:
        raise Refused("a base and an overlay need two regions; write for instance --regions eu,us")
    texts = {folder / path: stream(documents) for path, documents in kustomization(layout).items()}
    foreign = [path for path, text in texts.items() if path.exists() and path.read_text() != text]
    if foreign:
        raise Refused(
            Problem(str(path), 0, 0, "is there and says something else", "remove it first") for path in foreign
        )
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tuple(texts)


def stream(documents: Sequence[Manifest]) -> str:
    return "---\n".join(yaml.dump(one, Dumper=_Plain, sort_keys=False, width=120) for one in documents)


def _check(layout: Layout) -> None:
    problems = []
    if not layout.regions or len(set(layout.regions)) != len(layout.regions):
        problems.append(f"--regions {','.join(layout.regions)}: name each region once; write for instance eu,us")
    names = [("--regions", name) for name in layout.regions] + [("--namespace", layout.namespace)]
    problems += [
        f"{option} {name}: it becomes part of objects' names; write small letters, digits and -, at most 32"
        for option, name in names
        if not LABEL.fullmatch(name)
    ]
    if not LABEL_KEY.fullmatch(layout.region_label):
        problems.append(
            f"--region-label {layout.region_label}: no label's key; write for instance stormdrill.dev/region"
        )
    problems += [
        f"--queue-node {name}={node}: there is no region {name}; regions: {', '.join(layout.regions)}"
        for name, node in layout.queue_nodes.items()
        if name not in layout.regions
    ]
    if layout.queue_nodes and layout.storage != "node":
        problems.append(f"--queue-node goes with --storage node, and the storage is {layout.storage}; leave one out")
    if layout.namespace.startswith("kube-") or layout.namespace == "stormdrill":
        problems.append(f"--namespace {layout.namespace}: no drill is allowed there; take another")
    if problems:
        raise Refused(Problem("", 0, 0, text) for text in problems)
