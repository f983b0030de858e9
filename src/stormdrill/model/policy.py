"""What is allowed here; experiments may only tighten it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Policy(Struct, frozen=True):
    faults: tuple[str, ...] = ()
    """Allowed fault words; empty: all."""
    targets: tuple[str, ...] = ("process",)
    max_share: float = 0.5
    """Of all instances, 0 to 1, that one experiment may hit at once."""
    max_instances: int = 20
    max_nodes: int = 5
    """Of a cluster, that may lose pods, cores or devices at once."""
    max_pods: int = 50
    """Of a cluster, that may be taken away at once, those of bystanders that opted in among them."""
    disruption_budgets: Literal["respect", "ignore"] = "respect"
    """Whether pods may go although a disruption budget allows fewer to be missing."""
    max_memory_mb: float = 2048.0
    """That allocators of ours may hold at once."""
    max_fault_s: float = 600.0
    max_rate_per_s: float = 500.0
    windows: tuple[str, ...] = ()
    """`mon-fri 09:00-17:00 Europe/Berlin`; empty: always."""
    freeze: tuple[str, ...] = ()
    """Freeze windows, `2026-12-20/2027-01-03`."""
    min_memory_mb: int = 256
    """Below this much available memory on this machine the run is aborted."""
    min_disk_mb: int = 100
