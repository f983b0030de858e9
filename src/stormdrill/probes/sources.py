"""The sources that a system file names besides metrics endpoints: queries, commands, HTTP answers, servers' alerts."""

from __future__ import annotations

from collections.abc import Mapping

from stormdrill.model.system import MetricSource, Secret, System
from stormdrill.ports import Answer, Scraped
from stormdrill.probes.command import CommandProbe
from stormdrill.probes.http import HttpProbe
from stormdrill.probes.servers import PromqlProbe, managed_alerts, prometheus_alerts


class Sources:
    """Implements `ports.Readers`. `secrets`: values by name, for the headers of servers; kept in memory only."""

    def __init__(self, system: System, secrets: Mapping[str, str] | None = None) -> None:
        known = {Secret(name, "").placeholder: value for name, value in (secrets or {}).items()}
        self._servers = system.servers
        self._headers = {
            "prometheus": _filled(system.servers.prometheus_headers, known),
            "alertmanager": _filled(system.servers.alertmanager_headers, known),
        }

    def read(self, metric: MetricSource, address: str, timeout_s: float) -> Answer:
        if metric.promql:
            headers = self._headers["prometheus"]
            return PromqlProbe(self._servers.prometheus, metric.promql, metric.labels, headers=headers).read(timeout_s)
        try:
            if metric.command:
                return CommandProbe(metric.command, metric.value).read(timeout_s)
            return HttpProbe(f"http://{address}{metric.http}", metric.value).read(timeout_s)
        except ValueError as error:  # a path that can't be read: the file was checked, a plan may be somebody's own
            return Answer((), str(error))

    def alerts(self, server: str, timeout_s: float) -> Scraped:
        if server == "alertmanager":
            return managed_alerts(self._servers.alertmanager, timeout_s, self._headers[server])
        return prometheus_alerts(self._servers.prometheus, timeout_s, self._headers["prometheus"])


def _filled(headers: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    filled = dict(headers)
    for placeholder, value in known.items():
        filled = {name: text.replace(placeholder, value) for name, text in filled.items()}
    return filled
