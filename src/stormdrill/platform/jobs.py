"""What the platform works on: kinds, tiers, service times, and where a job belongs."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Literal

from msgspec import DecodeError, Struct, ValidationError
from msgspec.json import Decoder

Kind = Literal["api", "inference", "batch", "report", "training"]
Pool = Literal["cpu", "gpu"]
KINDS: tuple[Kind, ...] = ("api", "inference", "batch", "report", "training")
POOLS: tuple[Pool, ...] = ("cpu", "gpu")
TIERS = (1, 2, 3)
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
LONGEST_DEADLINE_MS = 3_600_000
PARTITIONS = 16
"""Of the data in each region."""
PARTITION_SLOTS = 2
"""Jobs that one partition's data can serve at once in a region, however many slots are free."""
STALE_AGE_S = 5.0
"""A report from older data must say so."""


class JobRequest(Struct, frozen=True):
    """What a user posts to the edge."""

    id: str
    """Chosen by the user, unique for each logical job: asking again with the same id never does it twice."""
    kind: Kind = "api"
    tier: int = 2
    deadline_ms: float = 1000.0
    """From the edge's receipt."""
    residency: str | None = None
    """A region that the job may not leave, whatever happens."""
    wait: bool = True
    """False: 202 once the job is on disk; the result is asked for later."""
    key: str = ""
    """Whose data it works on: all jobs of a key share a partition. Empty: none in particular."""


class BadJobError(Exception):
    """A posted job that can't be understood; the message names the field and what it may be."""


_decoder = Decoder(JobRequest)


def parse_job(body: bytes) -> JobRequest:
    """Raises BadJobError."""
    try:
        job = _decoder.decode(body)
    except (ValidationError, DecodeError) as error:
        raise BadJobError(f"not a job: {error}") from None
    if not NAME.fullmatch(job.id):
        raise BadJobError("`id` must be 1 to 128 letters, digits or one of _ . : -")
    if job.key and not NAME.fullmatch(job.key):
        raise BadJobError("`key` must be 1 to 128 letters, digits or one of _ . : -, or be left out")
    if job.tier not in TIERS:
        raise BadJobError(f"`tier` is {job.tier}; write 1, 2 or 3")
    if not 1 <= job.deadline_ms <= LONGEST_DEADLINE_MS:
        raise BadJobError(f"`deadline_ms` is {job.deadline_ms:g}; write 1 to {LONGEST_DEADLINE_MS}")
    return job


def partition_of(key: str) -> int:
    """-1: it belongs to none."""
    return zlib.crc32(key.encode()) % PARTITIONS if key else -1


class Placement(Struct, frozen=True):
    """Where a job may run: its home, and the one region that may take it over."""

    home: str
    fallback: str | None


def place(job_id: str, residency: str | None, regions: Sequence[str]) -> Placement | None:
    """Every edge and gateway places a job alike, whatever it sees of the world. None: the residency is unknown.

    A job has at most two possible owners, home and the next region in the ring, and moves at most once:
    that is what makes one claim enough to keep it from being done twice.
    """
    ring = sorted(regions)
    if residency is not None:
        return Placement(residency, None) if residency in ring else None
    at = zlib.crc32(job_id.encode()) % len(ring)
    return Placement(ring[at], ring[(at + 1) % len(ring)] if len(ring) > 1 else None)


class Work(Struct, frozen=True):
    """What a kind of job costs, in simulated slot time."""

    pool: Pool
    steps: int
    step_s: float
    checkpoint_every: int = 1
    """Steps after which the progress is saved, but for the last one."""

    def saves(self, steps_done: int) -> bool:
        return steps_done % self.checkpoint_every == 0

    @property
    def total_s(self) -> float:
        return self.steps * self.step_s


WORK: dict[Kind, Work] = {
    "api": Work("cpu", 1, 0.100),
    "report": Work("cpu", 1, 0.200),
    "batch": Work("cpu", 4, 0.140),
    "inference": Work("gpu", 1, 0.180),
    "training": Work("gpu", 6, 0.500, 2),
}
"""Inference: the time of a full batch; see `gpu_batch_s`."""

CPU_FALLBACK = Work("cpu", 1, 0.300)
"""Inference without the GPU pool: slower, but an answer."""

GPU_BATCH = 4
"""Requests that one GPU slot serves at once; training takes a slot for itself."""
GPU_DEVICES = 2
"""Of a GPU worker; its slots are spread over them evenly."""
MODEL_LOAD_S = 1.0
"""A started GPU worker serves nothing before its model is loaded."""


def gpu_batch_s(size: int) -> float:
    """How long one GPU slot needs for a batch."""
    return 0.060 + 0.030 * size


def places_of(kind: Kind, pool: Pool) -> int:
    """How much of a pool's room a leased job takes."""
    return GPU_BATCH if kind == "training" and pool == "gpu" else 1


def work_of(kind: Kind, gpu_ready: bool) -> Work:
    """Where and how long a job of this kind runs now."""
    return CPU_FALLBACK if kind == "inference" and not gpu_ready else WORK[kind]


def slot_cost_s(kind: Kind, gpu_ready: bool) -> float:
    """Slot time that one job takes from its pool, batching counted in."""
    if kind == "inference" and gpu_ready:
        return gpu_batch_s(GPU_BATCH) / GPU_BATCH
    return work_of(kind, gpu_ready).total_s
