"""A real Prometheus on 127.0.0.1 that scrapes what a test tells it to, several times a second; ended with the test."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stormdrill.probes.call import http_call

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus here: install Debian's prometheus"
)
LIMIT_S = 30.0
CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: shop
    static_configs:
{targets}
"""
RULES = """
groups:
  - name: shop
    rules:
      - alert: QueueFull
        expr: depth >= 100
        labels: {severity: page, owner: serving, runbook: queue-backlog}
      - alert: QueueLong
        expr: depth >= 10
        for: 1h
"""


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Shop:
    """An instance whose metrics say what they are told to."""

    def __init__(self) -> None:
        self.metrics = ""
        shop = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = shop.metrics.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Prometheus:
    def __init__(self, directory: Path, targets: dict[str, dict[str, str]]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        rules = directory / "rules.yml"
        rules.write_text(RULES)
        lines = [
            f"      - {{targets: ['{address}'], labels: {{{', '.join(f'{k}: {v}' for k, v in labels.items())}}}}}"
            for address, labels in targets.items()
        ]
        (directory / "prometheus.yml").write_text(CONFIG.format(rules=rules, targets="\n".join(lines)))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=error",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            until(self.ready)
        except BaseException:
            self.close()
            raise

    def ready(self) -> bool:
        return http_call("GET", f"{self.url}/-/ready", "", 2.0).status == 200

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)
