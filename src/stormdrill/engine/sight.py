"""What can be seen right now: the last seconds of the request records, the newest readings, the alerts that fire.

For guards, wait-until and the live view only. The verdict never rests on it: that is computed from the whole record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stormdrill.engine.watch import Fresh
from stormdrill.model.expression import AlertWithin, Comparison, Expression
from stormdrill.ports import Held
from stormdrill.store.records import DTYPE, RECORD, Outcome, RecordHeader, read_header

KEEP_S = 30.0
WINDOW_S = 2.0
"""How far back a live figure looks unless the expression says `for` longer."""
STALE_S = 2.5
"""A reading older than this is no reading."""
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
    "=": lambda value, limit: value == limit,
}


class _Tail:
    """One growing record file, read as it grows."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.header: RecordHeader | None = None
        self.offset = 0
        self.rows: NDArray[np.void] = np.empty(0, dtype=np.dtype(DTYPE))

    def poll(self, now_ms: float) -> None:
        if self.header is None:
            try:
                self.header, self.offset = read_header(self.path)
            except (OSError, ValueError):
                return
        with open(self.path, "rb") as file:  # noqa: PTH123  (on the hot path of the live view)
            file.seek(self.offset)
            data = file.read()
        whole = len(data) // RECORD.size
        if whole:
            self.offset += whole * RECORD.size
            fresh = np.frombuffer(data, dtype=np.dtype(DTYPE), count=whole)
            self.rows = np.concatenate((self.rows, fresh))
        if len(self.rows):
            self.rows = self.rows[self.done_ms() >= now_ms - KEEP_S * 1000]

    def done_ms(self) -> NDArray[np.float64]:
        assert self.header is not None
        micros = self.rows["intended_us"].astype(np.float64) + self.rows["latency_us"]
        done: NDArray[np.float64] = self.header["epoch_mono_ns"] / 1e6 + micros / 1000.0
        return done


class LiveSight:
    """Safe to ask from several threads; `poll` is called by one of them, the guards' own."""

    def __init__(
        self,
        files: Callable[[], Sequence[str]],
        readings: Callable[[], Sequence[Fresh]],
        firing: Callable[[], Mapping[str, Mapping[str, str]]],
    ) -> None:
        self._files = files
        self._readings = readings
        self._firing = firing
        self._tails: dict[str, _Tail] = {}

    def poll(self) -> None:
        now_ms = time.monotonic() * 1000
        for path in self._files():
            self._tails.setdefault(path, _Tail(path)).poll(now_ms)

    def evaluate(self, expression: Expression) -> Held:
        """Implements `ports.Sight`."""
        if isinstance(expression, AlertWithin):
            return self._look_alert(expression)
        window_s = max(WINDOW_S, min(expression.for_s or 0.0, KEEP_S))
        value = self.value(expression, window_s)
        if value is None:
            return Held(False, None, f"nothing fresh for {expression.metric} in the last {window_s:g} s")
        if expression.relative:
            return Held(False, value, "a limit relative to the baseline has no live value")
        return Held(COMPARE[expression.op](value, expression.limit), value)

    def value(self, expression: Comparison, window_s: float) -> float | None:
        """In the unit of the expression's limit: percent, seconds, per second, or the metric's own."""
        metric = expression.metric
        if metric in ("success", "goodput", "throughput") or (metric[:1] == "p" and metric[1:2].isdigit()):
            return self._of_rows(metric, expression.labels, window_s)
        return self._of_readings(metric, expression.labels, expression.op)

    def _look_alert(self, expression: AlertWithin) -> Held:
        for key, labels in self._firing().items():
            wanted = expression.labels.items()
            if key.split("|")[0] == expression.alert and all(labels.get(name) == value for name, value in wanted):
                return Held(True)
        return Held(False)

    def _of_readings(self, metric: str, labels: Mapping[str, str], op: str) -> float | None:
        """The worst of the newest readings that carry the labels, as long as they are fresh."""
        oldest_ms = (time.monotonic() - STALE_S) * 1000
        fresh = [
            item.value
            for item in self._readings()
            if item.metric == metric and item.at_ms > oldest_ms and labels.items() <= item.labels.items()
        ]
        if not fresh:
            return None
        return min(fresh) if op in (">", ">=") else max(fresh)

    def _of_rows(self, metric: str, labels: Mapping[str, str], window_s: float) -> float | None:
        since_ms = (time.monotonic() - window_s) * 1000
        good, latency_s = self._select(labels, since_ms)
        if not len(good):
            return None
        if metric == "success":
            return float(good.mean() * 100)
        if metric == "throughput":
            return len(good) / window_s
        if metric == "goodput":
            return float(good.sum() / window_s)
        return float(np.quantile(latency_s, float(metric[1:]) / 100)) if len(latency_s) else None

    def _select(self, labels: Mapping[str, str], since_ms: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Of requests that ended since then: good or not; and the latencies of all but rejections."""
        goods: list[NDArray[np.bool_]] = []
        latencies: list[NDArray[np.float64]] = []
        for tail in list(self._tails.values()):
            rows, header = tail.rows, tail.header
            if header is None or not len(rows):
                continue
            kinds = [i for i, item in enumerate(header["labels"]) if labels.items() <= item["labels"].items()]
            deadlines_us = np.array([item["deadline_ms"] * 1000 for item in header["labels"]])
            done_ms = header["epoch_mono_ns"] / 1e6 + (rows["intended_us"] + rows["latency_us"]) / 1000.0
            rows = rows[(done_ms >= since_ms) & np.isin(rows["labels"], kinds)]
            answered = rows["outcome"] == Outcome.ANSWERED
            in_time = rows["latency_us"] <= deadlines_us[rows["labels"]]
            goods.append(answered & (rows["status"] // 100 == 2) & in_time)
            rejected = answered & np.isin(rows["status"], (429, 503))
            latencies.append(rows["latency_us"][~rejected] / 1e6)
        if not goods:
            return np.empty(0, dtype=np.bool_), np.empty(0)
        return np.concatenate(goods), np.concatenate(latencies)
