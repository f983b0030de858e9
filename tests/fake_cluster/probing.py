"""Readiness probes of containers that run as local processes."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable

from fake_cluster.matching import Obj

UNTIL_READY_S = 0.05
"""Between looks while it isn't ready yet; afterwards the probe's own period."""


class Probe:
    """Looks from a thread of its own and tells when the answer changes."""

    def __init__(self, container: Obj, ip: str, changed: Callable[[], None]) -> None:
        self.good = False
        self._probe, self._container, self._ip = container["readinessProbe"], container, ip
        self._changed = changed
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _look_on(self) -> None:
        failures, period_s = 0, float(self._probe.get("periodSeconds", 10))
        while not self._ended.is_set():
            try:
                seen = self._look()
            except (ValueError, OSError):  # a port that has no such name
                seen = False
            failures = 0 if seen else failures + 1
            good = failures == 0 or (self.good and failures < self._probe.get("failureThreshold", 3))
            if good != self.good:
                self.good = good
                self._changed()
            self._ended.wait(period_s if good else min(UNTIL_READY_S, period_s))

    def _look(self) -> bool:
        limit_s = float(self._probe.get("timeoutSeconds", 1))
        if asked := self._probe.get("httpGet"):
            return self._answers(asked.get("host") or self._ip, self._port(asked["port"]), asked, limit_s)
        if asked := self._probe.get("tcpSocket"):
            try:
                socket.create_connection((self._ip, self._port(asked["port"])), limit_s).close()
            except OSError:
                return False
        return True

    @staticmethod
    def _answers(host: str, port: int, asked: Obj, limit_s: float) -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=limit_s)
        try:
            connection.request("GET", asked.get("path", "/"))
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _port(self, asked: object) -> int:
        if isinstance(asked, int):
            return asked
        for port in self._container.get("ports") or []:
            if port.get("name") == asked:
                return int(port["containerPort"])
        return int(str(asked))
