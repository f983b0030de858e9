"""The probes that come with stormdrill, by the word that names them. Each has its row in docs/reference/probes.md."""

from __future__ import annotations

from collections.abc import Callable

from stormdrill.ports import Probe
from stormdrill.probes.alerts import AlertsProbe
from stormdrill.probes.command import CommandProbe
from stormdrill.probes.http import HttpProbe
from stormdrill.probes.prometheus import PrometheusProbe
from stormdrill.probes.servers import PromqlProbe

BUILTIN: dict[str, Callable[..., Probe]] = {
    "alerts": AlertsProbe,
    "command": CommandProbe,
    "http": HttpProbe,
    "prometheus": PrometheusProbe,
    "promql": PromqlProbe,
}
