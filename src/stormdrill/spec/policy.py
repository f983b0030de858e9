"""Reads policy.yaml: what is allowed here."""

from __future__ import annotations

from pathlib import Path

from stormdrill.errors import Refused
from stormdrill.model.policy import Policy
from stormdrill.model.units import parse_rate
from stormdrill.spec.files import PolicyFile
from stormdrill.spec.scalars import megabytes, percent, seconds
from stormdrill.spec.walk import Walker
from stormdrill.spec.yaml import Document, ordered, parse, read_text


def read_policy(path: Path) -> Policy:
    """The policy in `path`. Raises Refused with every problem."""
    document = parse(str(path), read_text(path))
    policy = resolve_policy(document)
    if document.problems:
        raise Refused(ordered(document.problems))
    return policy


def resolve_policy(document: Document) -> Policy:
    """The policy, as far as it could be read: look at the document's problems before using it."""
    if document.root is None:
        return Policy()
    file = Walker(document).table(document.root, PolicyFile, "the policy")
    _check_windows(document, file)
    if document.problems:
        return Policy()
    return Policy(
        faults=tuple(file.faults),
        targets=tuple(file.targets),
        max_share=percent(file.max_share) / 100,
        max_instances=file.max_instances,
        max_nodes=file.max_nodes,
        max_pods=file.max_pods,
        disruption_budgets=file.disruption_budgets,
        max_memory_mb=megabytes(file.max_memory),
        max_fault_s=seconds(file.max_fault),
        max_rate_per_s=parse_rate(file.max_rate),
        windows=tuple(file.windows),
        freeze=tuple(file.freeze),
        min_memory_mb=round(megabytes(file.min_memory)),
        min_disk_mb=round(megabytes(file.min_disk)),
    )


def _check_windows(document: Document, file: PolicyFile) -> None:
    for index, window in enumerate(file.windows):
        if not window:
            continue
        from zoneinfo import ZoneInfo

        _, hours, zone = window.split(" ")
        begin, end = hours.split("-")
        place = document.place("windows", index)
        if begin >= end:
            document.problem(
                place, f"{hours} ends before it begins", "write two windows: one up to 24:00, one from 00:00"
            )
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            document.problem(place, f"unknown time zone {zone}", "write for instance Europe/Berlin or UTC")
    for index, freeze in enumerate(file.freeze):
        if not freeze:
            continue
        from datetime import date

        place = document.place("freeze", index)
        try:
            first, last = (date.fromisoformat(day) for day in freeze.split("/"))
        except ValueError:
            document.problem(place, f"{freeze} holds a day that does not exist", "write 2026-12-20/2027-01-03")
            continue
        if first > last:
            document.problem(place, f"{freeze} ends before it begins", f"write {last}/{first}")
