"""The attempts of one record file as columns: 20 to 32 bytes each, so that ten million are judged in a small memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import overload

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.generic]
FIELDS = {
    "intended_us": "<u8",
    "lag_us": "<u4",
    "latency_us": "<u4",
    "job": "<u4",
    "status": "<u2",
    "labels": "u1",
    "outcome": "u1",
    "sent_us": "<u4",
    "attempt": "u1",
    "flags": "u1",
    "retry_after_s": "u1",
    "region": "u1",
}
"""Of `store.records.DTYPE`, which lies above this room. A test compares them."""
NARROW_US = 2**32
"""Intended starts of runs shorter than 71 minutes are kept in half the room."""


class Rows:
    """Read as a structured array is: `rows["status"]`, `rows[mask]`, `rows.copy()`. What all rows share is stored once,
    and is not to be written to but in a copy."""

    __slots__ = ("_columns", "_count")

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = dict(columns)
        self._count = len(self._columns["intended_us"])

    @classmethod
    def of(cls, rows: Rows | NDArray[np.void]) -> Rows:
        if isinstance(rows, Rows):
            return rows
        return cls({name: np.ascontiguousarray(rows[name]) for name in FIELDS})

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, what: str) -> NDArray[np.uint64]: ...
    @overload
    def __getitem__(self, what: slice | NDArray[np.generic]) -> Rows: ...
    def __getitem__(self, what: str | slice | NDArray[np.generic]) -> NDArray[np.uint64] | Rows:
        if isinstance(what, str):
            return self._columns[what]  # type: ignore[return-value]  # whole numbers of whatever width
        return Rows({name: column[what] for name, column in self._columns.items()})

    def __array__(self, dtype: object = None, copy: object = None) -> NDArray[np.void]:
        """As the file has them."""
        found = np.empty(len(self), dtype=list(FIELDS.items()))
        for name, column in self._columns.items():
            found[name] = column
        return found

    def copy(self) -> Rows:
        """Every column its own, to be changed."""
        return Rows({name: np.array(column) for name, column in self._columns.items()})


class Gathered:
    """Columns in the making, filled from the rows of a file block by block."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.filled = 0
        self._columns: dict[str, Column] = {}
        self._shared: dict[str, np.generic] = {}
        self._late = False

    def add(self, block: NDArray[np.void]) -> None:
        """`block`: rows of `FIELDS`, in the file's order."""
        if not len(block):
            return
        begin, end = self.filled, self.filled + len(block)
        self._late = self._late or not np.array_equal(block["sent_us"], block["lag_us"])
        for name in FIELDS:
            if name == "sent_us" and not self._late:
                continue  # without a retry each was sent when the first was: one column does for both
            fresh = block[name]
            if name not in self._columns and self._same(name, fresh):
                continue
            self._column(name, fresh)[begin:end] = fresh
        self.filled = end

    def _same(self, name: str, fresh: Column) -> bool:
        """Whether all rows so far have one value in it."""
        if name in ("intended_us", "sent_us"):
            return False
        first = self._shared.setdefault(name, fresh[0])
        return bool((fresh == first).all())

    def _column(self, name: str, fresh: Column) -> Column:
        """Where the column's values go, with those that came before."""
        begin, found = self.filled, self._columns.get(name)
        if name == "intended_us":
            wide = bool((fresh.astype(np.uint64) >= NARROW_US).any())
            if found is None or (wide and found.dtype.itemsize < 8):
                made = np.empty(self.count, np.uint64 if wide else np.uint32)
                made[:begin] = 0 if found is None else found[:begin]
                self._columns[name] = found = made
        elif found is None:
            found = np.empty(self.count, FIELDS[name])
            if name == "sent_us":
                found[:begin] = self._value("lag_us")[:begin]
            else:
                found[:begin] = self._shared.get(name, 0)
            self._columns[name] = found
        return found

    def _value(self, name: str) -> Column:
        if name in self._columns:
            return self._columns[name]
        return np.broadcast_to(self._shared.get(name, np.zeros(1, FIELDS[name])[0]), (self.count,))

    def rows(self) -> Rows:
        """All that was added, in the order of their intended start: one file's rows come in the order of their ends."""
        if "intended_us" not in self._columns:
            self._columns["intended_us"] = np.empty(self.count, np.uint32)
        at_us: NDArray[np.uint64] = self._columns["intended_us"][: self.filled]  # type: ignore[assignment]  # its own type, as the format says
        order = None if bool((at_us[1:] >= at_us[:-1]).all()) else np.argsort(at_us, kind="stable")
        found = {name: column for name, column in self._ordered(order)}
        for name in FIELDS:
            if name not in found:
                found[name] = found["lag_us"] if name == "sent_us" else self._value(name)[: self.filled]
        return Rows(found)

    def _ordered(self, order: NDArray[np.intp] | None) -> Iterator[tuple[str, Column]]:
        for name, column in self._columns.items():
            if order is not None:
                column[: self.filled] = column[: self.filled][order]
            yield name, column[: self.filled]
