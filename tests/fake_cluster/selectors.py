"""Label and field selectors, with the words that a server refuses bad ones with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from fake_cluster.problems import bad_request

Labels = Mapping[str, str]
Match = Callable[[Labels], bool]
TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|<|>|[^\s=!(),<>]+)")


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


@lru_cache(maxsize=512)
def label_selector(text: str) -> tuple[Match, ...]:
    """All must hold. Raises Problem 400."""
    tokens = [*_tokens(text), ""]
    found: list[Match] = []
    place = 0
    while tokens[place]:
        match, place = _requirement(tokens, place)
        found.append(match)
        if tokens[place] == ",":
            place += 1
        elif tokens[place]:
            raise bad_request(f"found '{tokens[place]}', expected: ',' or 'end of string'")
    return tuple(found)


def _requirement(tokens: list[str], place: int) -> tuple[Match, int]:
    key = tokens[place]
    if key == "!":
        absent = tokens[place + 1]
        return (lambda labels: absent not in labels), place + 2
    word = tokens[place + 1]
    if word in ("", ","):
        return (lambda labels: key in labels), place + 1
    if word in ("=", "=="):
        value, after = _value(tokens, place + 2)
        return (lambda labels: labels.get(key) == value), after
    if word == "!=":
        value, after = _value(tokens, place + 2)
        return (lambda labels: labels.get(key) != value), after
    if word in ("in", "notin"):
        values, after = _values(tokens, place + 2)
        if word == "in":
            return (lambda labels: labels.get(key) in values), after
        return (lambda labels: labels.get(key) not in values), after
    if word in ("<", ">"):
        value, after = _value(tokens, place + 2)
        return _compared(key, word, value), after
    raise bad_request(
        f"unable to parse requirement: found '{word}', expected: in, notin, =, ==, !=, gt, lt"
        if word not in ("(", ")")
        else f"found '{word}', expected: ',' or 'end of string'"
    )


def _compared(key: str, word: str, value: str) -> Match:
    try:
        limit = int(value)
    except ValueError:
        raise bad_request(
            f"unable to parse requirement: values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, "
            "the value must be an integer"
        ) from None

    def match(labels: Labels) -> bool:
        try:
            number = int(labels.get(key, ""))
        except ValueError:
            return False
        return number > limit if word == ">" else number < limit

    return match


def _value(tokens: list[str], place: int) -> tuple[str, int]:
    if tokens[place] in ("", ","):
        return "", place
    return tokens[place], place + 1


def _values(tokens: list[str], place: int) -> tuple[set[str], int]:
    if tokens[place] != "(":
        raise bad_request(f"unable to parse requirement: found '{tokens[place]}' expected: '('")
    values: set[str] = set()
    place += 1
    while tokens[place] and tokens[place] != ")":
        if tokens[place] != ",":
            values.add(tokens[place])
        place += 1
    return values, place + 1


def matches(selector: tuple[Match, ...], labels: Labels) -> bool:
    return all(match(labels) for match in selector)


def spec_selector(selector: Mapping[str, Any] | None) -> Match:
    """A LabelSelector of a spec (matchLabels, matchExpressions). An empty one matches all, none matches nothing."""
    if selector is None:
        return lambda labels: False
    wanted = dict(selector.get("matchLabels") or {})
    parts: list[Match] = []
    for one in selector.get("matchExpressions") or []:
        parts.append(_expression(one["key"], one["operator"], set(one.get("values") or ())))
    return lambda labels: all(labels.get(k) == v for k, v in wanted.items()) and all(part(labels) for part in parts)


def _expression(key: str, operator: str, values: set[str]) -> Match:
    if operator == "In":
        return lambda labels: labels.get(key) in values
    if operator == "NotIn":
        return lambda labels: labels.get(key) not in values
    if operator == "Exists":
        return lambda labels: key in labels
    return lambda labels: key not in labels


FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "replicasets": ("status.replicas",),
    "jobs": ("status.successful",),
    "secrets": ("type",),
    "events": (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "reason",
        "reportingComponent", "source", "type",
    ),
}  # fmt: skip


def field_selector(text: str, plural: str, namespaced: bool = True) -> tuple[tuple[str, bool, str], ...]:
    """(path, equal, value); all must hold. Raises Problem 400."""
    found = []
    for part in filter(None, text.split(",")):
        split = re.split(r"(!=|==|=)", part, maxsplit=1)
        if len(split) != 3:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, operator, value = split
        found.append((path, operator != "!=", value))
        known = ("metadata.name", "metadata.namespace", *FIELDS.get(plural, ()))
        if path not in known:
            if plural in FIELDS:
                raise bad_request(f"field label not supported: {path}")
            only = '"metadata.name", "metadata.namespace"' if namespaced else '"metadata.name"'
            raise bad_request(f'"{path}" is not a known field selector: only {only}')
    return tuple(found)


def fields_match(selector: tuple[tuple[str, bool, str], ...], obj: Mapping[str, Any]) -> bool:
    return all((_at(obj, path) == value) is equal for path, equal, value in selector)


def _at(obj: Mapping[str, Any], path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else ""
    return str(value).lower() if isinstance(value, bool) else str(value)
