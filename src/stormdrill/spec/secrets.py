"""Secrets at the start of a run: their values, read from where the files say, and refused where they can't be kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from stormdrill.errors import Problem, Refused
from stormdrill.model.plan import Plan
from stormdrill.model.system import Secret
from stormdrill.redact import SHORTEST, Redactor

LARGEST_BYTES = 16_384
_ORDINARY = re.compile(r"[a-z]{1,11}|[a-z]+(-[a-z]+)+|\d{1,7}|true|false")
"""Words of the record and small numbers: removing them by value would take the record's own words away."""


def values(plan: Plan, files: Mapping[str, str] | None = None) -> dict[str, str]:
    """The value of each secret of the plan, by its parameter's name; read now, to be kept in memory only.

    `files`: what is going to be copied into the run directory, by name; a value that stands there, or in the plan,
    is refused. Raises Refused with everything that is missing or unfit; no message holds a value.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for secret in plan.system.secrets:
        try:
            found[secret.name] = _fit(_read(secret))
        except ValueError as error:
            problems.append(_problem(secret, *error.args))
    written = {"plan.json": msgspec.json.encode(plan).decode(), **(files or {})}
    for secret in plan.system.secrets:
        if secret.name in found:
            problems += _standing(secret, found[secret.name], written)
    if problems:
        raise Refused(problems)
    return found


def redactor_of(found: Mapping[str, str]) -> Redactor:
    """What removes these values from text that this process writes itself."""
    redactor = Redactor()
    for value in found.values():
        redactor.register(value)
    return redactor


def _standing(secret: Secret, value: str, written: Mapping[str, str]) -> list[Problem]:
    redactor = redactor_of({secret.name: value})
    places = [name for name, text in written.items() if redactor.text(text) != text]
    fix = "remove it there and use another value: this one is no secret any more, or too ordinary to be one"
    return [_problem(secret, f"its value stands in {', '.join(places)}", fix)] if places else []


def _problem(secret: Secret, what: str, fix: str) -> Problem:
    return Problem(f"secret {secret.name} ({secret.source})", 0, 0, what, fix)


def _read(secret: Secret) -> str:
    kind, _, name = secret.source.partition(":")
    if kind == "env":
        value = os.environ.get(name)
        if value is None:
            raise ValueError(
                f"the variable {name} is not set", f"set it, or name another with --set {secret.name}=env:…"
            )
        return value
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        fix = f"write it, or name another with --set {secret.name}=file:…"
        raise ValueError(f"the file cannot be read ({error.strerror})", fix) from error
    if len(data) > LARGEST_BYTES:
        raise ValueError(f"the file is larger than {LARGEST_BYTES} bytes", "put the secret alone into it")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError("the file is not UTF-8 text", "put one line of text into it") from error


def _fit(value: str) -> str:
    if len(value) < SHORTEST:
        raise ValueError(
            f"its value is shorter than {SHORTEST} characters", "take a longer one: it is removed by value"
        )
    if not value.isprintable():
        raise ValueError(
            "its value has several lines or control characters",
            "take one line; give a key file to the system by its path",
        )
    if value != value.strip():
        raise ValueError("its value begins or ends with a space", "remove it")
    if _ORDINARY.fullmatch(value):
        raise ValueError(
            "its value is an ordinary word or number, which stands in any record", "take one that can't be guessed"
        )
    return value
