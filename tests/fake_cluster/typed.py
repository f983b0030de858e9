"""Objects as a typed server reads them: unknown fields fall away, wrong types are refused, what is empty is left out.

fields.json holds the fields of the served kinds and their types.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from fake_cluster.kinds import Kind
from fake_cluster.store import Object

POINTERS = {
    "holderIdentity",
    "storageClassName",
    "appProtocol",
    "runtimeClassName",
    "hostUsers",
    "effect",
    "operator",
    "imageID",
}
"""Strings that are kept when they are empty."""
ZERO_DROPPED = {
    "unschedulable", "hostNetwork", "hostPID", "hostIPC", "paused", "minReadySeconds", "stdin", "stdinOnce", "tty",
    "readOnly", "publishNotReadyAddresses", "nodePort", "hostPort", "initialDelaySeconds", "globalDefault",
    "readyReplicas", "updatedReplicas", "availableReplicas", "unavailableReplicas", "fullyLabeledReplicas",
    "active", "succeeded", "failed", "numberUnavailable", "numberAvailable", "observedGeneration", "generation",
}  # fmt: skip
"""Numbers and booleans that are left out when they are 0 or false; others are kept."""
KEPT_EMPTY = {"rules", "limits:LimitRangeSpec", "podSelector", "emptyDir"}
OFF = {"LeaseSpec": {"preferredHolder", "strategy"}}
"""Fields whose feature is off: dropped without a word."""
NULLED = {"PodCondition": ("lastProbeTime", "lastTransitionTime")}
"""Fields that are null when they are absent."""
TIME = "2006-01-02T15:04:05Z07:00"
MICRO = "2006-01-02T15:04:05.000000Z07:00"


class WrongType(Exception):
    """Said as the server says it."""


@cache
def types() -> dict[str, dict[str, str]]:
    read = json.loads((Path(__file__).parent / "fields.json").read_text(encoding="utf-8"))
    assert isinstance(read, dict)
    return read


@dataclass(slots=True)
class Decoding:
    unknown: list[str] = field(default_factory=list)
    """Paths of unknown fields."""
    lenient: bool = False
    """Wrong types are let through: objects that tests make."""

    def read(self, kind: Kind, obj: Object) -> Object:
        """Raises WrongType. Custom kinds pass as they are."""
        if kind.custom:
            return {key: value for key, value in obj.items() if value is not None}
        name = kind.kind
        if name not in types():
            return _bare(obj)
        return self._struct(name, obj, "")

    def _struct(self, name: str, value: Any, where: str) -> Object:
        if not isinstance(value, dict):
            if self.lenient:
                return {}
            raise self._wrong(value, name, where, f"v1.{name}")
        known = types()[name]
        read: Object = {}
        for key, item in value.items():
            path = f"{where}.{key}" if where else key
            kind = known.get(key)
            if kind is None:
                self.unknown.append(path)
                continue
            if item is None or key in OFF.get(name, ()):
                continue
            made = self._value(kind, item, path, name, key)
            if not _empty(made, key, kind, name):
                read[key] = made
        for key in NULLED.get(name, ()):
            read.setdefault(key, None)
        return read

    def _value(self, kind: str, item: Any, where: str, owner: str, key: str) -> Any:
        if kind == "any":
            return item
        if kind[0] == "[":
            if not isinstance(item, list):
                raise self._wrong(item, owner, where, _go_type(kind))
            inner = kind[1:-1]
            return [self._value(inner, one, f"{where}[{place}]", owner, key) for place, one in enumerate(item)]
        if kind[0] == "{":
            if not isinstance(item, dict):
                raise self._wrong(item, owner, where, _go_type(kind))
            inner = kind[1:-1]
            return {name: self._mapped(inner, one, where, owner, key) for name, one in item.items()}
        if kind in types():
            return self._struct(kind, item, where)
        return self._plain(kind, item, where, owner)

    def _mapped(self, kind: str, item: Any, where: str, owner: str, key: str) -> Any:
        if item is None and kind == "string":
            return ""  # null in a map of strings
        return self._value(kind, item, where, owner, key)

    def _plain(self, kind: str, item: Any, where: str, owner: str) -> Any:
        if self.lenient or item is None:
            return item
        if kind in ("time", "microtime"):
            if not isinstance(item, str):
                raise self._wrong(item, owner, where, "string")
            return read_time(item, micro=kind == "microtime")
        if kind == "quantity":
            return str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item
        wanted = {"string": str, "int": int, "bool": bool, "float": (int, float)}[kind]
        if not isinstance(item, wanted) or (isinstance(item, bool) and kind != "bool"):
            raise self._wrong(item, owner, where, {"int": "int32", "float": "float64"}.get(kind, kind))
        return item

    def _wrong(self, item: Any, owner: str, where: str, wanted: str) -> WrongType:
        path = re.sub(r"\[\d+\]", "", where)
        return WrongType(
            f"json: cannot unmarshal {_json_type(item)} into Go struct field {owner}.{path} of type {wanted}"
        )


def _go_type(kind: str) -> str:
    if kind[0] == "[":
        return "[]" + _go_type(kind[1:-1])
    if kind[0] == "{":
        return "map[string]" + _go_type(kind[1:-1])
    return f"v1.{kind}" if kind[0].isupper() else {"int": "int32", "time": "string"}.get(kind, kind)


def _json_type(item: Any) -> str:
    for kind, name in ((bool, "bool"), (str, "string"), (dict, "object"), (list, "array")):
        if isinstance(item, kind):
            return name
    return "number"


def _empty(made: Any, key: str, kind: str, owner: str) -> bool:
    """Whether the server leaves it out."""
    if key in KEPT_EMPTY or f"{key}:{owner}" in KEPT_EMPTY:
        return False
    if made == [] or (made == {} and kind[0] == "{"):
        return True
    if made == "" and kind == "string":
        return key not in POINTERS
    return (made is False or (made == 0 and kind == "int")) and key in ZERO_DROPPED


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if item is not None}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def read_time(text: str, micro: bool) -> str:
    """A time as it is stored: in Z, with six decimals or with none. Raises WrongType with Go's words."""
    layout = MICRO if micro else TIME
    rest = _after_prefix(text, layout)
    if micro:
        fraction = re.match(r"\.\d{6}", rest)
        if fraction is None:
            raise _unparsed(text, layout, rest, ".000000")
        rest = rest[7:]
    else:
        rest = re.sub(r"^[.,]\d+", "", rest)
    if re.fullmatch(r"Z|[+-]\d\d:\d\d", rest) is None:
        raise _unparsed(text, layout, rest, "Z07:00")
    parsed = datetime.fromisoformat(text).astimezone(UTC)
    return parsed.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _after_prefix(text: str, layout: str) -> str:
    rest = text
    for part, wanted in (
        (r"\d{4}", "2006"), ("-", "-"), (r"\d\d", "01"), ("-", "-"), (r"\d\d", "02"), ("T", "T"), (r"\d\d", "15"),
        (":", ":"), (r"\d\d", "04"), (":", ":"), (r"\d\d", "05"),
    ):  # fmt: skip
        found = re.match(part, rest)
        if found is None:
            raise _unparsed(text, layout, rest, wanted)
        rest = rest[found.end() :]
    return rest


def _unparsed(text: str, layout: str, rest: str, wanted: str) -> WrongType:
    return WrongType(f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{wanted}"')
