"""The Prometheus text format (0.0.4), read strictly: one line that isn't a sample makes the whole reading worthless.

Written here because the only library for it is a metrics *client*; it would be a dependency for sixty lines.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from stormdrill.ports import Answer, Sample, Scraped
from stormdrill.probes.call import http_call

MOST_SAMPLES = 50_000
_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*(?:\{(?P<labels>(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})?"
    r"[ \t]+(?P<value>[^ \t]+)(?:[ \t]+(?P<at>-?\d{1,18}))?[ \t]*"
)
_LABEL = re.compile(r"[ \t]*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*\"(?P<value>(?:[^\"\\]|\\.)*)\"[ \t]*(?:,|$)")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
"""As Prometheus' own parser has it, without hexadecimals."""
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def parse_text(text: str) -> tuple[Sample, ...]:
    """Raises ValueError with the line and what is wrong with it."""
    found: list[Sample] = []
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        sample = _sample(line, number)
        key = (sample.name, tuple(sorted(sample.labels.items())))
        if key in seen:
            raise ValueError(f"line {number}: {sample.name} stands there twice with the same labels")
        seen.add(key)
        found.append(sample)
        if len(found) > MOST_SAMPLES:
            raise ValueError(f"more than {MOST_SAMPLES} samples")
    return tuple(found)


def _sample(line: str, number: int) -> Sample:
    match = _SAMPLE.fullmatch(line)
    if match is None or not NUMBER.fullmatch(match["value"]):
        shown = line if len(line) <= 60 else line[:59] + "…"
        raise ValueError(f"line {number} is not a sample: {shown!r}")
    labels: dict[str, str] = {}
    at, text = 0, match["labels"] or ""
    while at < len(text.rstrip()):
        label = _LABEL.match(text, at)
        if label is None or label["name"] in labels:
            raise ValueError(f"line {number}: the labels of {match['name']} cannot be read")
        labels[label["name"]] = re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), label["value"])
        at = label.end()
    return Sample(match["name"], labels, float(match["value"]), int(match["at"]) if match["at"] else None)


def scrape(url: str, timeout_s: float) -> Scraped:
    """One request, one answer. Never raises; never repeats an old one."""
    reply = http_call("GET", url, "", timeout_s)
    if reply.error:
        return Scraped((), reply.error, reply.took_ms)
    if reply.status != 200:
        return Scraped((), f"{url} answered {reply.status}", reply.took_ms)
    try:
        return Scraped(parse_text(reply.text), took_ms=reply.took_ms)
    except ValueError as error:
        return Scraped((), f"{url}: {error}", reply.took_ms)


def pick(
    scraped: Scraped, name: str, labels: Mapping[str, str] | None = None, *, now_ms: float | None = None
) -> Answer:
    """The samples called `name` that carry `labels`; not fresh when there is none, or one that is no number or old."""
    if scraped.detail:
        return Answer((), scraped.detail, scraped.took_ms)
    wanted = (labels or {}).items()
    found = [sample for sample in scraped.samples if sample.name == name and wanted <= sample.labels.items()]
    if not found:
        return Answer((), f"no sample {name}{_shown(labels)}", scraped.took_ms)
    for sample in found:
        if doubt := sample.doubt(now_ms):
            return Answer((), doubt, scraped.took_ms)
    return Answer(tuple((sample.labels, sample.value) for sample in found), took_ms=scraped.took_ms)


def _shown(labels: Mapping[str, str] | None) -> str:
    inner = ",".join(f"{name}={value}" for name, value in (labels or {}).items())
    return f"{{{inner}}}" if inner else ""


class PrometheusProbe:
    """Reads one sample's values from one endpoint."""

    def __init__(
        self,
        url: str,
        sample: str,
        labels: Mapping[str, str] | None = None,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.url, self.sample, self.labels, self._wall_clock = url, sample, dict(labels or {}), wall_clock

    def read(self, timeout_s: float) -> Answer:
        return pick(scrape(self.url, timeout_s), self.sample, self.labels, now_ms=self._wall_clock() * 1000)
