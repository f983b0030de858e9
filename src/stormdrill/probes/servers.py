"""A Prometheus server and an Alertmanager, asked over their HTTP APIs: one number now, and which alerts fire.

Sources: prometheus.io/docs/prometheus/latest/querying/api (instant queries, alerts; stable since 2.0), and the OpenAPI
description of Alertmanager's API v2 (/api/v2/alerts).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Raw, Struct

from stormdrill.ports import Answer, Reply, Sample, Scraped
from stormdrill.probes.call import http_call

MOST_SERIES = 1000
SHOWN = 3
STATE = "alertstate"
_HARMLESS = "PromQL info"
"""Remarks on how a query is written; every other warning says that the answer may be a part of the truth."""


class _Data(Struct):
    resultType: str = ""  # noqa: N815  (Prometheus' own name)
    result: Raw = Raw(b"null")
    alerts: list[_Alert] | None = None


class _Said(Struct):
    status: str
    data: _Data | None = None
    error: str = ""
    warnings: list[str] = []


class _Alert(Struct):
    labels: dict[str, str]
    state: str


class _Series(Struct):
    metric: dict[str, str]
    value: tuple[float, str] | None = None


class _Status(Struct):
    state: str


class _Managed(Struct):
    labels: dict[str, str]
    status: _Status


_M = TypeVar("_M")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?)")


class _NoAnswerError(Exception):
    """Why there is no fresh reading."""


def query(
    base: str, promql: str, labels: Sequence[str], timeout_s: float, headers: Mapping[str, str] | None = None
) -> Answer:
    """The query's value now, a series for each combination of `labels`. Never raises."""
    # the server gives up when we do, and says so, instead of working on for nobody
    asked = urlencode({"query": promql, "timeout": f"{max(1, round(timeout_s * 1000))}ms"})
    reply = http_call("GET", f"{base}/api/v1/query?{asked}", "", timeout_s, more_headers=headers)
    try:
        data = _data(reply, base)
        if data.resultType == "scalar":
            return Answer((({}, _number(_of(tuple[float, str], data.result)[1])),), took_ms=reply.took_ms)
        if data.resultType != "vector":
            raise _NoAnswerError(f"the query gives a {data.resultType or 'nothing'}, where one number now is meant")
        values = _told_apart(_of(list[_Series], data.result), labels)
    except _NoAnswerError as error:
        return Answer((), f"{base}: {error}", reply.took_ms)
    return Answer(values, took_ms=reply.took_ms)


class PromqlProbe:
    """One instant query to one server."""

    def __init__(
        self, base: str, promql: str, labels: Sequence[str] = (), *, headers: Mapping[str, str] | None = None
    ) -> None:
        self.base, self.promql, self.labels, self._headers = base, promql, tuple(labels), dict(headers or {})

    def read(self, timeout_s: float) -> Answer:
        return query(self.base, self.promql, self.labels, timeout_s, self._headers)


def _told_apart(series: list[_Series], labels: Sequence[str]) -> tuple[tuple[dict[str, str], float], ...]:
    if not series:
        raise _NoAnswerError("the query matches nothing now")
    if len(series) > MOST_SERIES:
        raise _NoAnswerError(f"the query has {len(series):,} series, {MOST_SERIES:,} are the most")
    found: dict[tuple[str, ...], tuple[dict[str, str], float]] = {}
    for one in series:
        key = tuple(one.metric.get(label, "") for label in labels)
        if key in found:
            meant = f"one is meant for each {', '.join(labels)}" if labels else "one number is meant"
            raise _NoAnswerError(f"the query has {len(series):,} series where {meant}: {_shown(series, labels)}")
        if one.value is None:
            raise _NoAnswerError("the query gives a histogram, where a number is meant")
        found[key] = ({label: one.metric[label] for label in labels if label in one.metric}, _number(one.value[1]))
    return tuple(found.values())


def _shown(series: list[_Series], labels: Sequence[str]) -> str:
    """By which labels they differ, besides those that are told apart."""
    names = sorted({name for one in series for name in one.metric} - set(labels))
    differ = [name for name in names if len({one.metric.get(name, "") for one in series}) > 1]
    return f"they differ by {', '.join(differ[:SHOWN])}{', …' if len(differ) > SHOWN else ''}"


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise _NoAnswerError(f"the value is {text[:40]}")
    return float(text)


def prometheus_alerts(base: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Scraped:
    """What a Prometheus server's own rules make of it, pending alerts too. Never raises."""
    reply = http_call("GET", f"{base}/api/v1/alerts", "", timeout_s, more_headers=headers)
    try:
        data = _data(reply, base)
        if data.alerts is None:
            raise _NoAnswerError("the answer lists no alerts")
    except _NoAnswerError as error:
        return Scraped((), f"{base}: {error}", reply.took_ms)
    return Scraped(tuple(_sample(one.labels, one.state) for one in data.alerts), took_ms=reply.took_ms)


def managed_alerts(base: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Scraped:
    """What an Alertmanager was told of; `suppressed`: silenced or inhibited, it reaches nobody. Never raises."""
    reply = http_call("GET", f"{base}/api/v2/alerts", "", timeout_s, more_headers=headers)
    try:
        if reply.error or reply.status != 200:
            raise _NoAnswerError(_complaint(reply, base))
        alerts = _of(list[_Managed], Raw(reply.text.encode()))
    except _NoAnswerError as error:
        return Scraped((), f"{base}: {error}", reply.took_ms)
    states = [("suppressed" if one.status.state == "suppressed" else "firing") for one in alerts]
    samples = tuple(_sample(one.labels, state) for one, state in zip(alerts, states, strict=True))
    return Scraped(samples, took_ms=reply.took_ms)


def _sample(labels: Mapping[str, str], state: str) -> Sample:
    return Sample("ALERTS", {**labels, STATE: state}, 1.0)


def _data(reply: Reply, base: str) -> _Data:
    """What the server answered; it tells its own errors in the same form, with statuses from 400 on."""
    if reply.error:
        raise _NoAnswerError(_complaint(reply, base))
    try:
        said = msgspec.json.decode(reply.text, type=_Said)
    except msgspec.MsgspecError:
        if reply.status != 200:
            raise _NoAnswerError(_complaint(reply, base)) from None
        raise _NoAnswerError("its answer is not one of Prometheus'") from None
    if said.status != "success" or said.data is None:
        raise _NoAnswerError(f"it answered {reply.status}: {' '.join(said.error.split())[:200] or said.status}")
    doubts = [text for text in said.warnings if not text.startswith(_HARMLESS)]
    if doubts:
        raise _NoAnswerError(f"it warns: {' '.join(doubts[0].split())[:200]}")
    return said.data


def _complaint(reply: Reply, base: str) -> str:
    where = base.partition("://")[2].partition("/")[0]
    return reply.error.removeprefix(f"{where}: ").removeprefix(f"{where} ") or f"it answered {reply.status}"


def _of(kind: type[_M], text: Raw) -> _M:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise _NoAnswerError(f"its answer can't be read: {error}") from None
