"""A drill without a generator: a system's own users, what it counts of them, and every kind of source beside."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from drill import STARVED, TRIES, Outcome, Repository, wait_for_quiet

LIMIT_S = 300.0
"""With all its tries."""
pytestmark = [pytest.mark.real, pytest.mark.timeout(LIMIT_S)]
VALUE = "kV7-qe4f/x9-Zw"
SERVER = """
import http.server, json, sys, threading, time

lock, counts, bounds = threading.Lock(), {"ok": 0, "all": 0}, {"0.05": 0, "0.25": 0, "1": 0, "+Inf": 0}

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        began, body = time.monotonic(), b"ok"
        if self.path == "/metrics":
            buckets = "".join(f'took_seconds_bucket{{le="{le}"}} {n}\\n' for le, n in bounds.items())
            body = f"ok_total {counts['ok']}\\nall_total {counts['all']}\\ndepth 3\\n{buckets}".encode()
        elif self.path == "/capacity":
            body = json.dumps({"cpu": {"free": 0.5}}).encode()
        else:
            with lock:
                for le in bounds:
                    bounds[le] += time.monotonic() - began <= float(le)
                counts["all"] += 1
                counts["ok"] += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
USERS = """
import os, threading, time, urllib.request

def user(address):
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/", timeout=0.3).read()
        except OSError:
            pass
        time.sleep(0.02)

for peer in os.environ["STORMDRILL_PEERS_WEB"].split(","):
    threading.Thread(target=user, args=(peer.split("=")[1],)).start()
"""
SYSTEM = """
name: shop
entry: web
parameters: {{regions: [eu, us], depth: 7, token: {{secret: true, env: SHOP_TOKEN}}}}
labels: [region]
process:
  services:
    web: {{command: [python, server.py, $port], each: regions, ready: GET /metrics}}
    users: {{command: [python, users.py]}}
dependencies:
  web: {{from: [users], to: web}}
indicators: {{from: web, good: ok_total, total: all_total, histogram: took_seconds}}
servers: {{prometheus: {{url: "{prometheus}", headers: {{Authorization: Bearer $token}}}}}}
metrics:
  age: {{promql: "max(age_seconds)", unit: s}}
  free: {{http: /capacity, value: .cpu.free, from: web, unit: ratio}}
  backlog: {{command: [echo, $depth], labels: {{kind: report}}}}
  depth: {{prometheus: depth, from: web}}
  hangs: {{command: [sleep, "60"]}}
"""
EXPERIMENT = """
title: What the shop's own users get is seen by the shop
hypothesis: us goes on serving
owner: tests
system: shop
load: observed
phases: {warmup: 1s, baseline: 5s, fault: 6s, recovery: 2s}
faults:
  - region-loss: {region: eu, mode: freeze}
objectives:
  baseline:
    - throughput > 5/s
  baseline, fault:
    - success{region=us} > 90%
    - p95{region=us} < 1s
  fault:
    - goodput{region=us} > 5/s
    - age < 2s
    - free{region=us} > 20%
    - backlog{kind=report} = 7
    - depth{region=us} < 10
    - hangs < 10
guards:
  - success{region=us} < 50% for 2s
"""


@pytest.fixture
def prometheus() -> Iterator[str]:
    """Answers who may ask, and nobody else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == f"Bearer {VALUE}"
            result = [{"metric": {}, "value": [1.5, "1.25"]}]
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(body) if allowed else 0))
            self.end_headers()
            self.wfile.write(body if allowed else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def drilled(home: Repository) -> Outcome:
    for _ in range(TRIES):
        done = home.command("run", "experiments/seen.yaml", "--json")
        outcome = Outcome(done.returncode, json.loads(done.stdout or "{}"), done.stderr)
        if STARVED not in " ".join(outcome.progress.split()):  # lines are wrapped
            return outcome
        wait_for_quiet()
    raise AssertionError(f"this machine is too busy to judge anything:\n{outcome.progress}")


def test_observed_traffic_is_judged_from_every_kind_of_source_and_no_record_holds_a_servers_token(
    tmp_path: Path, prometheus: str
) -> None:
    (tmp_path / "experiments" / "systems").mkdir(parents=True)
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "users.py").write_text(USERS)
    (tmp_path / "experiments" / "systems" / "shop.yaml").write_text(SYSTEM.format(prometheus=prometheus))
    (tmp_path / "experiments" / "seen.yaml").write_text(EXPERIMENT)
    home = Repository(tmp_path, environment={"SHOP_TOKEN": VALUE})
    outcome = drilled(home)
    objectives: list[dict[str, object]] = outcome.told["objectives"]  # type: ignore[assignment]
    words = {f"{item['phase']}: {item['name']}": item["verdict"] for item in objectives}
    assert words.pop("fault: hangs < 10") == "INCONCLUSIVE", outcome.progress
    assert set(words.values()) == {"PASS"}, outcome.progress
    assert outcome.words == (3, "completed", "INCONCLUSIVE"), "nothing passes on a command that never answered"
    assert "sleep did not end within 0.9 s and was ended" in (home.run_dir / "journal.ndjson").read_text()
    assert outcome.told["load"] is None
    holding = [path for path in home.run_dir.rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()]
    assert holding == []
