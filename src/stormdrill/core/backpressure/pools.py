"""Requests of several windows judged together: their blocks of time, and what each of those has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core.evidence import Requests
from stormdrill.core.intervals import Ints, block_count, block_of
from stormdrill.core.windows import Span

MOST_BLOCKS = 1000
"""Of all windows that are looked at together: what the intervals of quantiles can tell apart."""


class Pool(Struct, frozen=True):
    """Requests of several windows, judged together: a block never spans two of them."""

    requests: Requests
    block: Ints
    blocks: int

    def counts(self, mask: NDArray[np.bool_]) -> Ints:
        """How many of each block are so."""
        found: Ints = np.bincount(self.block[mask], minlength=self.blocks)
        return found


def pooled(requests: Requests, spans: Sequence[Span]) -> tuple[Pool, ...]:
    """One pool a window, its blocks numbered on; `concatenated` puts columns together."""
    most, first, found = max(1, MOST_BLOCKS // max(1, len(spans))), 0, []
    for span in spans:
        inside = requests.between(span.start_ms, span.end_ms)
        blocks = min(block_count(span.length_s), most)
        block = block_of(inside.at_ms, span.start_ms, span.end_ms, blocks).astype(np.int64) + first
        found.append(Pool(inside, block, blocks))
        first += blocks
    return tuple(found)


def evened(totals: Ints) -> Ints:
    """For each block the number of the one that it is part of, so that none has less than half of what a block has on
    the average: of a second in which three were turned away, all three late, nobody may conclude that a second is as a
    rule like that."""
    least, number, held = totals.sum() / max(1, len(totals)) / 2, 0, 0
    found = np.zeros(len(totals), np.int64)
    for index, total in enumerate(totals.tolist()):
        found[index] = number
        held += total
        if held >= least and held:
            number, held = number + 1, 0
    return np.minimum(found, max(0, number - 1)) if held < least else found  # what is left over joins the last


def merged(counts: Ints, parts: Ints) -> Ints:
    """The counts of blocks that were put together."""
    found: Ints = np.bincount(parts, weights=counts).astype(np.int64)
    return found


def together(pools: Sequence[Pool], masks: Sequence[NDArray[np.bool_]]) -> Ints:
    """The counts of all pools' blocks, in order."""
    total = sum(pool.blocks for pool in pools)
    blocks = [pool.block[mask] for pool, mask in zip(pools, masks, strict=True)]
    found: Ints = np.bincount(np.concatenate(blocks), minlength=total) if blocks else np.zeros(1, np.int64)
    return found
