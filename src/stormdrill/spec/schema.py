"""The JSON Schema that editors check and complete by, made from the models that read the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.backpressure.registry import SETS, known
from stormdrill.spec.files import ExperimentFile, FaultTimes, PolicyFile
from stormdrill.spec.files_load import DEMAND, OBSERVED, ProfileFile
from stormdrill.spec.files_system import SystemFile
from stormdrill.spec.kinds import SecretFile

FILES: Mapping[str, type[Struct]] = {
    "experiment": ExperimentFile,
    "system": SystemFile,
    "policy": PolicyFile,
    "profile": ProfileFile,
}
_UNLOADED = "No generator: the system's own traffic is judged, from its metrics."
_LOADED: dict[str, Any] = {
    "oneOf": [
        {"required": ["profile"], "not": {"anyOf": [{"required": [key]} for key in ("users", "spawn", "deadline")]}},
        {"required": ["locustfile", "users", "deadline"], "not": {"required": ["rate"]}},
    ]
}
_REFERENCE = {"type": "string", "pattern": r"\$[A-Za-z_]", "description": "A parameter, $name."}


def schema(kind: str, faults: Mapping[str, type[Struct]] | None = None) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one kind of file: experiment, system, policy or profile.

    `faults`: the known words and their parameters; without them any word with any parameters passes.
    Raises KeyError for another kind.
    """
    made = msgspec.json.schema(FILES[kind])
    definitions = made["$defs"]
    root = definitions.pop(FILES[kind].__name__)
    if kind == "experiment":
        entry, checks = _fault_entry(faults, definitions), _check_entry(definitions)
        for table in (root, definitions["FastFile"]):
            table["properties"]["faults"] = _with_entry(table["properties"]["faults"], entry)
            table["properties"]["backpressure"] = _with_entry(table["properties"]["backpressure"], checks)
            load = table["properties"]["load"]
            load["anyOf"].append({"const": OBSERVED, "description": _UNLOADED})
            load["description"] = "Who asks, and how much."
        definitions["LoadFile"] |= _LOADED
        definitions["LoadFile"]["properties"]["profile"]["pattern"] = DEMAND
    if kind == "profile":
        root["anyOf"] = [{"required": ["like"]}, {"required": ["user", "streams"]}]
    if "ParameterFile" in definitions:
        definitions["ParameterFile"] = {"anyOf": [definitions["ParameterFile"], _secret()]}
    whole: dict[str, Any] = {**root, "$defs": definitions}
    whole = _tidied(whole)
    if kind in ("experiment", "system"):
        _open_to_parameters(whole, kind)
    whole["title"] = f"stormdrill {kind}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def _with_entry(faults: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in faults:
        return {**faults, "anyOf": [_with_entry(one, entry) for one in faults["anyOf"]]}
    return {**faults, "items": entry} if faults.get("type") == "array" else faults


def _fault_entry(faults: Mapping[str, type[Struct]] | None, definitions: dict[str, Any]) -> dict[str, Any]:
    """One fault: its word with its own parameters and the times that every fault understands."""
    entry: dict[str, Any] = {"type": "object", "minProperties": 1, "maxProperties": 1}
    entry["description"] = "One fault: its word, and its parameters."
    times = msgspec.json.schema(FaultTimes)["$defs"]["FaultTimes"]["properties"]
    if faults is None:
        return {**entry, "additionalProperties": {"type": "object", "properties": times}}
    words = {}
    for word, model in faults.items():
        made = msgspec.json.schema(model)
        parameters = made["$defs"].pop(model.__name__)
        definitions.update(made["$defs"])
        words[word] = {
            **parameters,
            "title": word,
            "properties": {**parameters["properties"], **times},
            "additionalProperties": False,
        }
    return {**entry, "properties": words, "additionalProperties": False}


def _check_entry(definitions: dict[str, Any]) -> dict[str, Any]:
    """One backpressure check: a word or a set, or a word with its thresholds."""
    words = {}
    for word in known():
        made = msgspec.json.schema(ASKED[word].parameters)
        thresholds = made["$defs"].pop(ASKED[word].parameters.__name__)
        definitions.update(made["$defs"])
        words[word] = {**thresholds, "title": word, "description": ASKED[word].summary}
    table = {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": words}
    return {"anyOf": [{"enum": [*SETS, *known()]}, {**table, "additionalProperties": False}]}


def _secret() -> dict[str, Any]:
    """A parameter that names one source; msgspec knows no union of two untagged tables."""
    made: dict[str, Any] = msgspec.json.schema(SecretFile)["$defs"]["SecretFile"]
    made["properties"]["secret"] = {"const": True}
    return {**made, "oneOf": [{"required": ["env"]}, {"required": ["file"]}]}


def _tidied(value: Any) -> Any:
    """Without what only concerns the reader: null for what may be left out, names of classes, empty defaults."""
    if isinstance(value, list):
        return [_tidied(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _tidied(item) for key, item in value.items()}
    kinds = made.get("anyOf", [])
    if {"type": "null"} in kinds and made.get("default", "") is None:
        rest = [kind for kind in kinds if kind != {"type": "null"}]
        del made["anyOf"], made["default"]
        made = {**(rest[0] if len(rest) == 1 else {"anyOf": rest}), **made}
    if made.get("default") in ({}, []):
        del made["default"]
    if isinstance(made.get("title"), str) and made.get("type") == "object":
        del made["title"]
    return made


_LEAVES = ("string", "integer", "number", "boolean")


def _open_to_parameters(value: Any, kind: str) -> None:
    """Lets `$name` stand for any single value, in a system for any list too; not in keys nor in declarations."""
    if isinstance(value, list):
        for item in value:
            _open_to_parameters(item, kind)
    if not isinstance(value, dict):
        return
    for key, item in list(value.items()):
        if key in ("parameters", "ParameterFile", "propertyNames"):
            continue
        if isinstance(item, dict) and (key not in ("properties", "$defs")) and _is_leaf(item, kind):
            value[key] = {"anyOf": [item, _REFERENCE]}
            if "description" in item:
                value[key]["description"] = item["description"]
        else:
            _open_to_parameters(item, kind)


def _is_leaf(item: dict[str, Any], kind: str) -> bool:
    if item.get("type") == "array":
        return False
    if "enum" in item or (item.get("type") in _LEAVES and item.get("type") != "string"):
        return True
    return item.get("type") == "string" and "pattern" in item
