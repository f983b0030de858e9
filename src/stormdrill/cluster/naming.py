"""Names of what a run leaves in a cluster. Pure."""

from __future__ import annotations

import hashlib
import json
import re

PREFIX = "stormdrill.dev/"
LABEL = "stormdrill"
"""Label of everything of ours; its value is the run."""
STOP = f"{PREFIX}stop"
"""Annotation on the ledger by which a person stops the run; its value is the reason."""
PART = f"{PREFIX}part"
"""Label that tells what an object of ours is for: ledger, anchor, watchdog."""
OPTED_IN = (f"{PREFIX}drill", "allowed")
"""The label by which a namespace lets itself be drilled."""
SYSTEM = f"{PREFIX}system"
"""Label of a ledger: the system under test."""
LONGEST_LABEL = 63
_MARKER = re.compile(r"stormdrill\.dev/[0-9a-f]{12}")


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def marker(run: str, injection: str) -> str:
    """Name of the annotation that says whose change an object carries."""
    return f"{PREFIX}{short(f'{run}/{injection}')}"


def marking(run: str, injection: str, suite: str = "") -> str:
    """Its value. `suite`: the namespace in which the run has its ledger."""
    return json.dumps({"run": run, "injection": injection} | ({"suite": suite} if suite else {}))


def run_of(marking: object) -> str:
    """Of a marker's value; empty where it names none."""
    return _told(marking, "run")


def suite_of(marking: object) -> str:
    """The same of the suite, which markers of older versions don't name."""
    return _told(marking, "suite")


def _told(marking: object, what: str) -> str:
    try:
        return str(json.loads(str(marking))[what])
    except (ValueError, KeyError, TypeError):
        return ""


def is_marker(annotation: str) -> bool:
    return _MARKER.fullmatch(annotation) is not None


def fence(marker_name: str) -> str:
    """Annotation that is set and removed to move an object's version on."""
    return f"{PREFIX}fence-{marker_name.removeprefix(PREFIX)}"


def manager(marker_name: str) -> str:
    """By which the API server tells who wrote a field: of one injection's changes."""
    return f"stormdrill-{marker_name.removeprefix(PREFIX)}"


def maker(run: str) -> str:
    """The same of what a run creates."""
    return f"stormdrill-{short(run)}"


def ledger(run: str) -> str:
    """Name of the ledger in the suite's namespace, and of the run's anchors in others."""
    return f"stormdrill-{run.lower()}"


def watchdog(run: str) -> str:
    """A Job's name becomes a label of its pods."""
    name = f"{ledger(run)}-watchdog"
    return name if len(name) <= LONGEST_LABEL else f"stormdrill-{short(run)}-watchdog"


def lease(system: str) -> str:
    return f"stormdrill-{label(system)}"


def label(text: str) -> str:
    """As a label's value and as part of a name: lower case letters, digits, hyphens; told apart where that loses
    something."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
    return plain if plain == text else f"{plain or 'x'}-{short(text)[:6]}".strip("-")


def key(injection: str) -> str:
    """Of an injection among the ledger's data."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", ".", injection)[:120]
    return plain if plain == injection else f"{plain}.{short(injection)[:6]}"
