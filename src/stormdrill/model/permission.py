"""One thing that somebody must be allowed at an API server."""

from __future__ import annotations

from msgspec import Struct


class Need(Struct, frozen=True, order=True):
    """`verb` on one resource, as RBAC has it."""

    verb: str
    """get, list, watch, create, patch, update, delete."""
    group: str
    """apps; empty for the core."""
    resource: str
    """pods"""
    namespace: str = ""
    """Empty: cluster-scoped, or in all namespaces."""
    name: str = ""
    """Empty: any."""
    subresource: str = ""
    """eviction"""
    cluster: str = ""
    why: str = ""
    """In people's words: to take the taint away again."""
