"""The front matter of a runbook: what it answers, who owns it, its parameters, its exit criterion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from stormdrill.model.runbook import Parameter
from stormdrill.spec.runbook_flow import nearest
from stormdrill.spec.yaml import Document, Listing, Node, Place, Scalar, Table

_TEXTS = ("title", "service", "owner", "escalation", "severity", "exit")
_KEYS = (*_TEXTS, "answers", "parameters", "proved_by")
_PARAMETER_KEYS = ("from", "choices", "default", "pattern", "type", "description")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FROM = re.compile(r"alert\.labels\.[A-Za-z_][A-Za-z0-9_]*|system\.[a-z][a-z0-9_]*")
RESERVED = ("captured", "self", "true", "false", "none", "and", "or", "not", "if", "else", "is", "in")
_START = Place(1, 1)
TYPES = ("text", "integer", "number")
LONGEST_PATTERN = 200


@dataclass(frozen=True, slots=True)
class Front:
    texts: dict[str, str]
    answers: tuple[str, ...]
    proved_by: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    exit_node: Scalar | None


def read_front(document: Document) -> Front:
    """Problems go into the document, all of them."""
    root = document.root or Table(_START)
    for key, (node, _) in root.entries.items():
        if key not in _KEYS and not node.broken:
            document.problem(node, f"unknown key {key}", nearest(key, _KEYS))
    texts = {key: _text(document, root, key) for key in _TEXTS}
    exit_node = root.get("exit")
    return Front(
        texts,
        _words(document, root, "answers", required=True),
        _words(document, root, "proved_by", required=False),
        _parameters(document, root.get("parameters")),
        exit_node if isinstance(exit_node, Scalar) and not exit_node.broken else None,
    )


def _scalar(document: Document, node: Node, what: str) -> str:
    if node.broken:
        return ""
    if not isinstance(node, Scalar):
        document.problem(node, f"{what} is one text", f"write {what}: some words")
        return ""
    if node.sense in {"null", "odd boolean"} or not node.text.strip():
        document.problem(node, f"{what} is empty or reads as a boolean", "put the text into quotes")
        return ""
    return node.text.strip()


def _text(document: Document, root: Table, key: str) -> str:
    node = root.get(key)
    if node is None:
        if not root.broken and document.root is not None:
            document.problem(_START, f"the front matter has no {key}", f"add {key}: …")
        return ""
    return _scalar(document, node, key)


def _words(document: Document, root: Table, key: str, *, required: bool) -> tuple[str, ...]:
    node = root.get(key)
    if node is None:
        if required and document.root is not None:
            document.problem(_START, f"the front matter has no {key}", f"add {key}: [RegionDown]")
        return ()
    if not isinstance(node, Listing):
        if not node.broken:
            document.problem(node, f"{key} is a list", f"write {key}: [one, two]")
        return ()
    if required and not node.items:
        document.problem(node, f"{key} is empty", f"name at least one: {key}: [RegionDown]")
    return tuple(text for item in node.items if (text := _scalar(document, item, f"an item of {key}")))


def _parameters(document: Document, node: Node | None) -> tuple[Parameter, ...]:
    if node is None or node.broken:
        return ()
    if not isinstance(node, Table):
        document.problem(node, "parameters is a table", "write name: {from: alert.labels.name}")
        return ()
    return tuple(
        parameter for key, value in node.entries.values() if (parameter := _parameter(document, key, value)) is not None
    )


def _parameter(document: Document, key: Scalar, node: Node) -> Parameter | None:
    name = key.text
    if not _NAME.fullmatch(name) or name in RESERVED:
        document.problem(key, f"{name!r} is no name for a parameter", "lower-case letters, digits and _")
        return None
    if not isinstance(node, Table):
        if not node.broken:
            document.problem(node, f"parameter {name} is a table", "write {default: …} or {from: alert.labels.…}")
        return None
    for inner, (place, _) in node.entries.items():
        if inner not in _PARAMETER_KEYS and not place.broken:
            document.problem(place, f"unknown key {inner}", nearest(inner, _PARAMETER_KEYS))
    texts = {
        inner: _scalar(document, value, inner)
        for inner in ("from", "default", "pattern", "type", "description")
        if (value := node.get(inner)) is not None
    }
    choices = _words(document, node, "choices", required=False)
    _check_source(document, node, texts)
    kind = texts.get("type", "text")
    if kind not in TYPES:
        document.problem(cast(Node, node.get("type")), f"unknown type {kind}", nearest(kind, TYPES))
        kind = "text"
    parameter = Parameter(
        name=name,
        source=texts.get("from", ""),
        choices=choices,
        default=texts.get("default"),
        pattern=_pattern(document, node, texts.get("pattern", "")),
        type=cast(Literal["text", "integer", "number"], kind),
        description=texts.get("description", ""),
    )
    if (default := node.get("default")) is not None and parameter.default and not default.broken:
        for wrong in wrong_with(parameter, parameter.default):
            document.problem(default, f"the default of {name}: {wrong}", "give a default that may be given")
    return parameter


def _check_source(document: Document, node: Table, texts: dict[str, str]) -> None:
    source = texts.get("from", "")
    if source and not _FROM.fullmatch(source):
        fix = "write from: alert.labels.region or from: system.admin"
        document.problem(cast(Node, node.get("from")), f"no source {source!r}", fix)


def _pattern(document: Document, node: Table, pattern: str) -> str:
    if not pattern:
        return ""
    where = cast(Node, node.get("pattern"))
    if len(pattern) > LONGEST_PATTERN or re.search(r"[*+}]\)?[*+{]|\)[*+{]", pattern):
        fix = "repeat single characters only, as in [a-z0-9-]{1,40}"
        document.problem(where, "a pattern that can take for ever to match", fix)
        return ""
    try:
        re.compile(pattern)
    except re.error as error:
        document.problem(where, f"not a regular expression: {error}", "write for example [a-z]{2}")
        return ""
    return pattern


LONGEST_PARAMETER = 200


def wrong_with(parameter: Parameter, value: str) -> list[str]:
    """Why `value` may not be given to `parameter`; empty when it may."""
    found: list[str] = []
    if len(value) > LONGEST_PARAMETER or any(ord(char) < 32 or ord(char) == 127 for char in value):
        found.append(f"longer than {LONGEST_PARAMETER} characters, or with a control character")
    elif parameter.choices and value not in parameter.choices:
        found.append(f"{value!r} is none of {', '.join(parameter.choices)}")
    elif parameter.pattern and not re.fullmatch(parameter.pattern, value):
        found.append(f"{value!r} does not match {parameter.pattern}")
    if parameter.type == "integer" and not re.fullmatch(r"-?\d{1,18}", value):
        found.append(f"{value!r} is no whole number")
    if parameter.type == "number" and not re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?", value):
        found.append(f"{value!r} is no number")
    return found
