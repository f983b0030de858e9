"""From any command that listens on a port to a verdict, as a newcomer does it: `init`, then `run`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STORMDRILL = Path(sys.executable).parent / "stormdrill"
pytestmark = pytest.mark.real

# Reads its port from the environment and answers from one thread: as plain as a server gets.
SERVER = """
import http.server, os
class Plain(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["STORMDRILL_PORT"])), Plain).serve_forever()
"""


def stormdrill(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([STORMDRILL, *argv], cwd=cwd, capture_output=True, text=True, check=False, timeout=100)


def test_a_newcomers_own_server_is_drilled_to_an_honest_verdict(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER, encoding="utf-8")
    laid = stormdrill("init", "--port", "env", "--", "python3", "server.py", cwd=tmp_path)
    assert laid.returncode == 0, laid.stderr
    ran = stormdrill("run", "experiments/first-drill.yaml", "--fast", "--json", cwd=tmp_path)
    assert ran.returncode in (0, 3), ran.stdout + ran.stderr  # 3: strangers starved this machine, and it says so
    result = json.loads(ran.stdout)
    assert result["verdict"] in ("PASS", "INVALID"), result
    assert [fault["reverted"] for fault in result["faults"]] == [True]
    assert Path(result["dir"], "review.html").is_file()
    during = next(one for one in result["objectives"] if one["phase"] == "fault")
    assert during["value"] < 75, "half of the requests go to the silent instance"
    told = ran.stderr  # without a terminal: plain lines, one a fact
    assert "\x1b" not in told
    assert told.index("frozen") < told.index("thawed") < told.index("review ") < told.index("record ")
    assert stormdrill("verify", result["run"], cwd=tmp_path).returncode == 0


def test_a_run_that_is_refused_touches_nothing_and_still_prints_one_object(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("title: x\nfalts: []\n", encoding="utf-8")
    ran = stormdrill("run", "bad.yaml", "--json", cwd=tmp_path)
    assert ran.returncode == 2
    assert {problem["where"] for problem in json.loads(ran.stdout)["problems"]} == {"bad.yaml"}
    assert not (tmp_path / "runs").exists()
