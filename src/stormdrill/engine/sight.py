"""What can be seen right now: the last seconds of the request records, the newest readings, the alerts that fire.

For guards, wait-until and the live view only. The verdict never rests on it: that is computed from the whole record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stormdrill.engine.counting import figure
from stormdrill.engine.watch import Counted, Fresh
from stormdrill.model.expression import AlertWithin, Comparison, Expression
from stormdrill.ports import Held
from stormdrill.store.records import DTYPE, RECORD, Flag, Outcome, RecordHeader, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOW_S = 2.0
"""How far back a live figure looks. `for` is the asker's to wait: averaged over it too, it would count twice."""
STALE_S = 2.5
"""A reading older than this is no reading."""
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
    "=": lambda value, limit: value == limit,
}


class _Lately(NamedTuple):
    """The last requests, a column each."""

    good: NDArray[np.bool_]
    """2xx within the deadline."""
    served: NDArray[np.bool_]
    """2xx, late ones too."""
    admitted: NDArray[np.bool_]
    """What latency is told of: served or timed out. Rejections are told apart."""
    latency_s: NDArray[np.float64]


def _nothing() -> _Lately:
    import numpy as np

    none = np.empty(0, dtype=np.bool_)
    return _Lately(none, none, none, np.empty(0))


class _Tail:
    """One growing record file, read as it grows."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.header: RecordHeader | None = None
        self.offset = 0
        self.rows: NDArray[np.void] | None = None

    def poll(self, now_ms: float) -> None:
        import numpy as np

        if self.header is None:
            try:
                self.header, self.offset = read_header(self.path)
            except (OSError, ValueError):
                return  # not there yet, or its first line is still being written
        with open(self.path, "rb") as file:  # noqa: PTH123  (on the hot path of the live view)
            file.seek(self.offset)
            data = file.read()
        whole = len(data) // RECORD.size
        self.offset += whole * RECORD.size
        fresh = np.frombuffer(data, dtype=np.dtype(DTYPE), count=whole)
        fresh = fresh[(fresh["flags"] & Flag.FINAL) != 0]
        rows = fresh if self.rows is None else np.concatenate((self.rows, fresh))
        self.rows = rows[self.done_ms(rows) >= now_ms - WINDOW_S * 1000]

    def since(self, labels: Mapping[str, str], since_ms: float) -> _Lately:
        """Requests with these labels that ended since then, told apart as the judge does."""
        import numpy as np

        rows, header = self.rows, self.header
        if header is None or rows is None or not len(rows):
            return _nothing()
        kinds = [i for i, item in enumerate(header["labels"]) if labels.items() <= item["labels"].items()]
        deadlines_us = np.array([item["deadline_ms"] * 1000 for item in header["labels"]])
        rows = rows[(self.done_ms(rows) >= since_ms) & np.isin(rows["labels"], kinds)]
        served = (rows["outcome"] == Outcome.ANSWERED) & (rows["status"] // 100 == 2)
        waited_out = np.isin(rows["outcome"], (Outcome.TIMED_OUT, Outcome.UNFINISHED))
        in_time = rows["latency_us"] <= deadlines_us[rows["labels"]]
        return _Lately(served & in_time, served, served | waited_out, rows["latency_us"] / 1e6)

    def done_ms(self, rows: NDArray[np.void]) -> NDArray[np.float64]:
        assert self.header is not None
        micros = rows["intended_us"].astype("float64") + rows["latency_us"]
        done: NDArray[np.float64] = self.header["epoch_mono_ns"] / 1e6 + micros / 1000.0
        return done


class LiveSight:
    """Safe to ask from several threads; `poll` is called by one of them, the guards' own."""

    def __init__(
        self,
        files: Callable[[], Sequence[str]],
        readings: Callable[[], Sequence[Fresh]],
        firing: Callable[[], Mapping[str, Mapping[str, str]]],
        counted: Callable[[], Sequence[Counted]] | None = None,
    ) -> None:
        """`counted`: the system's own counters, where nobody here sends requests."""
        self._files = files
        self._readings = readings
        self._firing = firing
        self._counted = counted
        self._tails: dict[str, _Tail] = {}

    def poll(self) -> None:
        now_ms = time.monotonic() * 1000
        for path in self._files():
            self._tails.setdefault(path, _Tail(path)).poll(now_ms)

    def evaluate(self, expression: Expression) -> Held:
        """Implements `ports.Sight`."""
        if isinstance(expression, AlertWithin):
            return self._look_alert(expression)
        value = self._value(expression)
        if value is None:
            return Held(False, None, f"nothing fresh for {expression.metric} in the last {WINDOW_S:g} s")
        if expression.relative:
            return Held(False, value, "a limit relative to the baseline has no live value")
        return Held(COMPARE[self._compared(expression)](value, expression.limit), value)

    def _compared(self, expression: Comparison) -> str:
        """A bound of a histogram is met exactly: at most 400 ms by count is below 400 ms by the clock."""
        latency = expression.metric[:1] == "p" and expression.metric[1:2].isdigit()
        exact = {"<": "<=", ">": ">="} if self._counted is not None and latency else {}
        return exact.get(expression.op, expression.op)

    def _value(self, expression: Comparison) -> float | None:
        """In the unit of the expression's limit: percent, seconds, per second, or the metric's own."""
        metric = expression.metric
        if metric in ("success", "goodput", "throughput") or (metric[:1] == "p" and metric[1:2].isdigit()):
            if self._counted is not None:
                now_ms = time.monotonic() * 1000
                return figure(self._counted(), metric, expression.labels, expression.op, now_ms)
            return self._of_rows(metric, expression.labels)
        return self._of_readings(metric, expression.labels, expression.op, expression.unit)

    def _look_alert(self, expression: AlertWithin) -> Held:
        for key, labels in self._firing().items():
            wanted = expression.labels.items()
            if key.split("|")[0] == expression.alert and all(labels.get(name) == value for name, value in wanted):
                return Held(True)
        return Held(False)

    def _of_readings(self, metric: str, labels: Mapping[str, str], op: str, unit: str) -> float | None:
        """The worst of the newest readings that carry the labels, as long as they are fresh."""
        now_ms = time.monotonic() * 1000
        fresh = [
            item.value
            for item in self._readings()
            if item.metric == metric
            and item.at_ms > now_ms - STALE_S * 1000 * max(1.0, item.every_s)
            and labels.items() <= item.labels.items()
        ]
        if not fresh:
            return None
        worst = min(fresh) if op in (">", ">=") else max(fresh)
        return worst * 100 if unit == "%" else worst

    def _of_rows(self, metric: str, labels: Mapping[str, str]) -> float | None:
        import numpy as np

        lately = self._lately(labels, (time.monotonic() - WINDOW_S) * 1000)
        if not len(lately.good):
            return None
        if metric == "success":
            return float(lately.good.mean() * 100)
        if metric == "throughput":
            return float(lately.served.sum() / WINDOW_S)
        if metric == "goodput":
            return float(lately.good.sum() / WINDOW_S)
        admitted_s = lately.latency_s[lately.admitted]
        return float(np.quantile(admitted_s, float(metric[1:]) / 100)) if len(admitted_s) else None

    def _lately(self, labels: Mapping[str, str], since_ms: float) -> _Lately:
        """Requests that ended since then."""
        import numpy as np

        parts = [tail.since(labels, since_ms) for tail in list(self._tails.values())]
        return _Lately(*(np.concatenate(column) for column in zip(_nothing(), *parts, strict=True)))
