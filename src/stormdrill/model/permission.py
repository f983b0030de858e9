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


def to_stream(
    subresource: str, namespace: str, name: str = "", *, cluster: str = "", why: str = ""
) -> tuple[Need, Need]:
    """What a websocket to a pod takes (`exec`, `portforward`). It is asked for by GET, hence `get`; Kubernetes 1.35 and
    later look besides whether `create` is allowed."""
    get = Need("get", "", "pods", namespace, name, subresource, cluster, why)
    return get, Need("create", "", "pods", namespace, name, subresource, cluster, why)
