"""Metrics endpoints on 127.0.0.1 that say what they are told to, hang, or are silent; and what a watch made of them."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stormdrill.model.event import AlertChanged, Event, Reading
from stormdrill.model.system import AlertSource, MetricSource, ServiceInstance, System
from stormdrill.ports import Instance

LIMIT_S = 10.0


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.005)


class Endpoint:
    """One instance. While `hanging` is set it accepts and says nothing; `most_at_once` counts askers side by side."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.metrics = "depth 1\n"
        self.alerts = ""
        self.hanging = threading.Event()
        self.over = threading.Event()
        self.asked = 0
        self.most_at_once: dict[str, int] = {}
        self._at_once: dict[str, int] = {}
        self._lock = threading.Lock()
        world = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with world._count(self.path):
                    while world.hanging.is_set() and not world.over.wait(0.01):
                        pass
                body = (world.alerts if self.path == "/alerts" else world.metrics).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the asker left at its limit
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @contextmanager
    def _count(self, path: str) -> Iterator[None]:
        with self._lock:
            self.asked += 1
            self._at_once[path] = self._at_once.get(path, 0) + 1
            self.most_at_once[path] = max(self.most_at_once.get(path, 0), self._at_once[path])
        try:
            yield
        finally:
            with self._lock:
                self._at_once[path] -= 1

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def instance(self) -> Instance:
        return Instance(name=self.name, service="web", labels={}, address=self.address)

    def fire(self, region: str = "eu") -> None:
        self.alerts = f'ALERTS{{alertname="RegionDown",alertstate="firing",region="{region}"}} 1\n'

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


def watched_system(*names: str) -> System:
    return System(
        name="watched",
        entry="web",
        instances=tuple(ServiceInstance(name=name, service="web", command=("x",)) for name in names),
        metrics=(MetricSource("depth", "web", "depth"), MetricSource("age", "web", "age")),
        alerts=(AlertSource("RegionDown", "web", "alerts", ("region",)),),
        served=MetricSource("served", "web", "served_total"),
    )


class Notes:
    """What was recorded, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event, mono_ms: float | None = None) -> None:
        self.events.append(event)

    def readings(self, metric: str, instance: str = "") -> list[Reading]:
        found = [item for item in list(self.events) if isinstance(item, Reading) and item.metric == metric]
        return [item for item in found if not instance or item.instance == instance]

    def all_readings(self) -> list[Reading]:
        """Of metrics; that a source of alerts could be read is told apart."""
        return [item for item in list(self.events) if isinstance(item, Reading) and item.metric != "alerts"]

    def changes(self) -> list[bool]:
        return [item.firing for item in list(self.events) if isinstance(item, AlertChanged)]
