"""Whose an object is that a run has created. And who wrote a field, as the API server keeps account of it
(managedFields): a second witness where a marker is gone, and the only one of what somebody wrote into an object of
ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from stormdrill.cluster import naming
from stormdrill.cluster.asking import text, under


def is_ours(there: Mapping[str, object], run: str) -> bool:
    """Whether that run created it: by its label, or where somebody took that off by its owner, with which it goes, or
    because nobody else has ever written what it says."""
    if text(there, "metadata", "labels", naming.LABEL) == run:
        return True
    listed = under(there, "metadata").get("ownerReferences")
    for one in listed if isinstance(listed, list) else ():
        if (text(one, "kind"), text(one, "name")) == ("ConfigMap", naming.ledger(run)):
            return True
    writers = {name for name, fields in _account(there) if fields.keys() - {"f:metadata", "f:status"}}
    return writers == {naming.maker(run)}


def traces(there: Mapping[str, object], run: str) -> list[str]:
    """Markers of that run which it carries."""
    annotations = under(there, "metadata", "annotations").items()
    return [name for name, value in annotations if naming.is_marker(name) and naming.run_of(value) == run]


def is_sole(there: Mapping[str, object], manager: str, path: Sequence[str]) -> bool:
    """Whether what stands there was written by that manager, and nobody else has laid claim to it."""
    return owners(there, path) == {manager}


def owners(there: Mapping[str, object], path: Sequence[str]) -> set[str]:
    """Who wrote what stands there, or lays claim to it; nobody where no account is kept."""
    return {manager for manager, fields in _account(there) if _owns(fields, path)}


def holds(there: Mapping[str, object], manager: str) -> list[str]:
    """Where something stands that this manager wrote, outside of the metadata."""
    mine = [fields for name, fields in _account(there) if name == manager]
    found = [leaf for own in mine for top in own if top != "f:metadata" for leaf in _leaves(under(own, top), (top,))]
    return list(dict.fromkeys(".".join(map(_plain, leaf)) for leaf in found))


def kept(there: Mapping[str, object]) -> bool:
    """Whether there is an account at all."""
    return any(True for _ in _account(there))


def beside(there: Mapping[str, object], manager: str, part: str) -> list[tuple[tuple[str, ...], str]]:
    """What others wrote in a part of the object where that manager wrote nothing: where, and who."""
    mine = [fields for name, fields in _account(there) if name == manager]
    found = []
    for name, fields in _account(there):
        top = f"f:{part}"
        leaves = _leaves(under(fields, top), (top,)) if name != manager and top in fields else ()
        found += [(leaf, name) for leaf in leaves if not any(_has(own, leaf) for own in mine)]
    return [(tuple(map(_plain, leaf)), name) for leaf, name in found]


def _account(there: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    entries = under(there, "metadata").get("managedFields")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            yield text(entry, "manager"), under(entry, "fieldsV1")


def _leaves(fields: Mapping[str, object], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    below = {name: inner for name, inner in fields.items() if name != "." and isinstance(inner, dict)}
    if not below:
        yield path
    for name, inner in below.items():
        yield from _leaves(inner, (*path, name))


def _plain(piece: str) -> str:
    return piece.partition(":")[2]


def _has(fields: Mapping[str, object], path: Sequence[str]) -> bool:
    """By the account's own names."""
    here = fields
    for name in path:
        below = here.get(name)
        if not isinstance(below, dict):
            return False
        if not below:
            return True
        here = below
    return True


def _owns(fields: Mapping[str, object], path: Sequence[str]) -> bool:
    here = fields
    for piece in path:
        below = here.get(_item(here, piece) if piece.startswith("[") else f"f:{piece}")
        if not isinstance(below, dict):
            return False
        if not below:  # a leaf, or a map that is owned whole
            return True
        here = below
    return True


def _item(fields: Mapping[str, object], piece: str) -> str:
    """`k:{"name":"web"}` of `[name=web]`; empty where there is none."""
    field, _, wanted = piece[1:-1].partition("=")
    for name in fields:
        if name.startswith("k:"):
            try:
                keys = json.loads(name[2:])
            except ValueError:
                continue
            if isinstance(keys, dict) and keys.get(field) == wanted:
                return name
    return ""
