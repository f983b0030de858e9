"""Alerts as Prometheus exposes them: `ALERTS{alertname="RegionDown",alertstate="firing",region="eu"} 1`."""

from __future__ import annotations

from msgspec import Struct

from stormdrill.ports import Answer
from stormdrill.probes.prometheus import scrape

NAME, STATE = "alertname", "alertstate"


class Alert(Struct, frozen=True):
    name: str
    labels: dict[str, str]
    """Without its name and its state."""
    firing: bool
    """False: pending, or given with the value 0."""


class Alerts(Struct, frozen=True):
    """What one look showed. No alerts and no detail: none is there, freshly seen."""

    alerts: tuple[Alert, ...] = ()
    detail: str = ""
    took_ms: float = 0.0

    @property
    def fresh(self) -> bool:
        return not self.detail

    def firing(self, name: str, labels: dict[str, str] | None = None) -> Alert | None:
        """The first that fires under this name with these labels."""
        wanted = (labels or {}).items()
        return next(
            (one for one in self.alerts if one.firing and one.name == name and wanted <= one.labels.items()), None
        )


def read_alerts(url: str, timeout_s: float) -> Alerts:
    """One look at one endpoint. Never raises."""
    scraped = scrape(url, timeout_s)
    if scraped.detail:
        return Alerts(detail=scraped.detail, took_ms=scraped.took_ms)
    found: list[Alert] = []
    for sample in scraped.samples:
        if sample.name != "ALERTS":
            continue
        name, state = sample.labels.get(NAME, ""), sample.labels.get(STATE, "firing")
        if not name or sample.value not in (0.0, 1.0):
            detail = f"{url}: an ALERTS sample without a name, or with the value {sample.value}"
            return Alerts(detail=detail, took_ms=scraped.took_ms)
        labels = {key: value for key, value in sample.labels.items() if key not in {NAME, STATE}}
        found.append(Alert(name, labels, state == "firing" and sample.value == 1.0))
    return Alerts(tuple(found), took_ms=scraped.took_ms)


class AlertsProbe:
    """The same as readings: labels with `alertname`, 1 where it fires and 0 where it doesn't."""

    def __init__(self, url: str) -> None:
        self.url = url

    def read(self, timeout_s: float) -> Answer:
        seen = read_alerts(self.url, timeout_s)
        values = tuple(({NAME: one.name, **one.labels}, float(one.firing)) for one in seen.alerts)
        return Answer(values, seen.detail, seen.took_ms)
