"""What became of every job that was accepted: counted one by one, without an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core.evidence import Requests
from stormdrill.ports import LedgerRow

ALIVE = ("queued", "leased")


class Jobs(Struct, frozen=True):
    """One entry an accepted job (a request that was answered with 2xx)."""

    kind: NDArray[np.uint16]
    """Index into the requests' kinds."""
    accepted_ms: NDArray[np.float64]
    took_ms: NDArray[np.float64]
    """To the first completion; infinite when it is not done."""
    lost: NDArray[np.bool_]
    """Neither done nor refused by the later of its deadline and the end of the run."""
    refused: NDArray[np.bool_]
    open: NDArray[np.bool_]
    """Still in the system when it was asked, and its deadline had not passed or the run was stopped: nobody knows."""
    unknown: NDArray[np.bool_]
    """Not settled by what was told, and an instance that may know better did not tell."""
    doubled: NDArray[np.bool_]
    """Done more than once. For every request, accepted or not: `doubled_kind` has its kind."""
    doubled_kind: NDArray[np.uint16]
    strayed: NDArray[np.bool_]
    """Done in another region than its label `residency` names. For every request, as `doubled`."""
    placeless: NDArray[np.bool_]
    """Bound to a region, and done in one that the ledger doesn't name. For every request."""


def jobs_of(
    requests: Requests,
    ledger: Sequence[LedgerRow],
    asked_ms: float,
    *,
    finished: bool = True,
    silent: bool = False,
    residencies: tuple[str, ...] = (),
) -> Jobs:
    """`asked_ms`: when the system was asked, on the journal's clock. Several instances may know one job.

    `finished`: the run came to its end; one that was stopped did not wait for its jobs. `silent`: an instance gave no
    ledger. Rows of jobs that no request was made for are somebody else's. `residencies`: for each kind of request the
    region in which its jobs must be done, or nothing.
    """
    count = int(requests.job.max(initial=0)) + 1
    done = np.zeros(count, np.int64)
    took_ms = np.full(count, np.inf)
    refused = np.zeros(count, np.bool_)
    alive = np.zeros(count, np.bool_)
    bound = _bound(requests, residencies, count)
    strayed = np.zeros(count, np.bool_)
    placeless = np.zeros(count, np.bool_)
    for row in ledger:
        if not 0 <= row.job < count:
            continue
        done[row.job] += row.done
        if row.done and row.took_ms is not None:
            took_ms[row.job] = min(took_ms[row.job], row.took_ms)
        refused[row.job] |= row.state == "refused"
        alive[row.job] |= row.state in ALIVE
        if row.done and bound[row.job] >= 0:
            strayed[row.job] |= row.region not in ("", residencies[bound[row.job]])
            placeless[row.job] |= not row.region
    accepted = requests.where(requests.acknowledged)
    job = accepted.job
    due_ms = accepted.at_ms + accepted.deadline_us / 1000
    unsettled = (done[job] == 0) & ~refused[job]
    undecided = unsettled & alive[job]
    if finished:
        undecided &= due_ms > asked_ms
    unknown = unsettled & ~undecided if silent else np.zeros(len(job), np.bool_)
    return Jobs(
        kind=accepted.kind,
        accepted_ms=accepted.at_ms + accepted.latency_us / 1000.0,
        took_ms=took_ms[job],
        lost=unsettled & ~undecided & ~unknown,
        refused=refused[job] & (done[job] == 0),
        open=undecided,
        unknown=unknown,
        doubled=done[requests.job] > 1,
        doubled_kind=requests.kind,
        strayed=strayed[requests.job],
        placeless=placeless[requests.job],
    )


def _bound(requests: Requests, residencies: tuple[str, ...], count: int) -> NDArray[np.int64]:
    """The kind of each job that must stay where `residencies` says; -1 for one that may go anywhere."""
    found = np.full(count, -1, np.int64)
    stays = np.array([bool(region) for region in residencies], np.bool_)
    if stays.any():
        mine = stays[requests.kind]
        found[requests.job[mine]] = requests.kind[mine]
    return found
