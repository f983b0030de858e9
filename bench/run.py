"""The run's own overhead: what a drill takes beyond its declared durations and its system's own start and stop."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, as_installed, at_most, middle_of
from stormdrill.model.event import SystemReady, TornDown
from stormdrill.store import journal

RUNS = 5
SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"served_total %d\\nqueue_depth 3\\n" % (time.monotonic() * 100)  # others' traffic
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
SYSTEM = """
name: bench-small
entry: web
labels: [region]
parameters: {{regions: [eu, us]}}
process:
  services:
    web: {{command: [python, {server}, $port], each: regions, labels: {{region: $region}}, ready: GET /}}
served: {{prometheus: served_total, from: web}}
metrics:
  queue_depth: {{prometheus: queue_depth, from: web}}
"""
EXPERIMENT = """
title: No load, one probe, one fault
hypothesis: the tool itself takes no time
owner: bench
system: bench-small
phases: {warmup: 0s, baseline: 1s, fault: 1s, recovery: 1s}
faults:
  - region-loss: {region: eu, mode: freeze}
objectives:
  baseline, recovery:
    - queue_depth < 10
"""
DECLARED_S = 3.0


def measure(quick: bool) -> Iterator[Figure]:
    """The review's own time is measured on a run with load: `bench/verdicts.py`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "experiments" / "systems").mkdir(parents=True)
        server = root / "server.py"
        server.write_text(SERVER)
        (root / "experiments" / "systems" / "bench-small.yaml").write_text(SYSTEM.format(server=server))
        (root / "experiments" / "overhead.yaml").write_text(EXPERIMENT)
        _one(root)  # byte code is compiled once, not each time
        yield at_most("run_overhead", middle_of(1 if quick else RUNS, lambda: _one(root)), "s", 0.5)


def _one(root: Path) -> float:
    runs = root / "runs"
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "stormdrill", "run", "experiments/overhead.yaml"],
        cwd=root,
        env={**as_installed(), "XDG_STATE_HOME": str(root / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    took_s = time.monotonic() - started_s
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    newest = max(runs.iterdir(), key=lambda path: path.stat().st_mtime)
    own_ms = 0.0
    for recorded in journal.read(newest / journal.NAME):
        if isinstance(recorded.event, SystemReady):
            own_ms += recorded.event.after_ms
        elif isinstance(recorded.event, TornDown):
            own_ms += recorded.event.took_ms
    return took_s - DECLARED_S - own_ms / 1000
