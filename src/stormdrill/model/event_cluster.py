"""What a run writes down of a live cluster. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from stormdrill.model.event_base import Event
from stormdrill.model.event_base import event as _event


@_event("cluster-held", durable=True)
@dataclass(frozen=True, slots=True)
class ClusterHeld(Event):
    """The run has the cluster's Lease, its ledger is written, and its watchdog has said that it is there. Nothing was
    changed before."""

    cluster: str
    """By its name in the system file; empty for the only one."""
    suite: str
    """The namespace of what the suite itself keeps there."""
    ledger: str
    """Name of the ConfigMap in it."""
    lease: str
    """Name of the Lease in it."""
    watchdog: str
    """Name of the Job in it."""
    lease_s: float
    """After this long without a sign of the runner the watchdog reverts."""


@_event("pod-bound", durable=True)
@dataclass(frozen=True, slots=True)
class PodBound(Event):
    """An instance is this pod from now on: at the start of the run, or because the one before has gone."""

    instance: str
    service: str
    cluster: str
    namespace: str
    pod: str
    uid: str
    node: str
    """Where it runs; empty before it is scheduled."""
    instead_of: str
    """Uid of the pod that it was before; empty at the start of the run."""
    address: str = ""
    """The runner's own, from which connections are led to the instance; empty where it is reached directly."""
    port: int = 0
    """Where the instance listens in its pod."""


@_event("cluster-lost", durable=True)
@dataclass(frozen=True, slots=True)
class ClusterLost(Event):
    """The API server no longer answers. The run goes on as long as the Lease is young enough."""

    cluster: str
    detail: str


@_event("cluster-back", durable=True)
@dataclass(frozen=True, slots=True)
class ClusterBack(Event):
    """The API server answers again."""

    cluster: str
    away_ms: float
    detail: str
    """What became of the Lease meanwhile."""
