"""Who wrote a field, as the API server keeps account of it (managedFields): a second witness where a marker is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from stormdrill.cluster.asking import text, under


def is_sole(there: Mapping[str, object], manager: str, path: Sequence[str]) -> bool:
    """Whether what stands there was written by that manager, and nobody else has laid claim to it."""
    entries = under(there, "metadata").get("managedFields")
    owners = {
        text(entry, "manager")
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and _owns(under(entry, "fieldsV1"), path)
    }
    return owners == {manager}


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
