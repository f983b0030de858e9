"""From any command that listens on a port to a verdict, as a newcomer does it: `init`, then `run`, as an ordinary user.

Where the tests run as root, the commands here run as nobody: what works here needs no privilege.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import stormdrill as package

NOBODY = 65534
AS_ROOT = os.geteuid() == 0

# Reads its port from the environment, as many do; as plain as a server gets.
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


class Newcomer:
    """Somebody with a folder, an interpreter and no rights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        packages = [str(Path(package.__file__).parents[1]), *(path for path in sys.path if "site-packages" in path)]
        self._env = {
            **os.environ,
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": os.pathsep.join(packages),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._rights = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if AS_ROOT else {}
        self._python = next((python for python in _interpreters() if self._can(python)), "")

    def _can(self, python: str) -> bool:
        code = "import sys, msgspec, numpy; print(sys.version_info[:2])"
        try:
            done = self.popen([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError:
            return False
        return done.communicate()[0].strip() == str(sys.version_info[:2])

    def popen(self, argv: list[str], **more: object) -> subprocess.Popen[str]:
        return subprocess.Popen(argv, cwd=self.folder, env=self._env, text=True, **self._rights, **more)  # type: ignore[call-overload,no-any-return]

    def stormdrill(self, *argv: str) -> tuple[int, str, str]:
        if not self._python:
            pytest.skip(f"no Python {sys.version_info[0]}.{sys.version_info[1]} here that an ordinary user may start")
        done = self.popen([self._python, "-m", "stormdrill", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = done.communicate(timeout=100)
        return done.returncode, out, err


def _interpreters() -> list[str]:
    return [sys.executable, *filter(None, (shutil.which("python3", path="/usr/bin:/usr/local/bin"),))]


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    folder = Path(tempfile.mkdtemp(prefix="newcomer-"))  # pytest's own folders are closed to others
    if AS_ROOT:
        os.chown(folder, NOBODY, NOBODY)
    try:
        yield Newcomer(folder)
    finally:
        shutil.rmtree(folder)


def test_a_newcomers_own_server_is_drilled_to_an_honest_verdict(newcomer: Newcomer) -> None:
    (newcomer.folder / "server.py").write_text(SERVER, encoding="utf-8")
    code, out, err = newcomer.stormdrill("init", "--port", "env", "--", "python3", "server.py")
    assert code == 0, err
    code, out, told = newcomer.stormdrill("run", "experiments/first-drill.yaml", "--fast", "--json")
    assert code in (0, 3), out + told  # 3: strangers starved this machine, and it says so
    result = json.loads(out)
    assert result["verdict"] in ("PASS", "INVALID"), result
    assert [fault["reverted"] for fault in result["faults"]] == [True]
    assert Path(result["dir"], "review.html").stat().st_uid == (NOBODY if AS_ROOT else os.geteuid())
    during = next(one for one in result["objectives"] if one["phase"] == "fault")
    assert during["value"] < 75, "half of the requests go to the silent instance"
    # Without a terminal: plain lines, one a fact.
    assert "\x1b" not in told
    assert told.index("frozen") < told.index("thawed") < told.index("review ") < told.index("record ")
    assert newcomer.stormdrill("verify", result["run"])[0] == 0
    assert newcomer.stormdrill("doctor")[0] == 0


def test_a_run_that_is_refused_touches_nothing_and_still_prints_one_object(newcomer: Newcomer) -> None:
    (newcomer.folder / "bad.yaml").write_text("title: x\nfalts: []\n", encoding="utf-8")
    code, out, _ = newcomer.stormdrill("run", "bad.yaml", "--json")
    assert code == 2
    assert {problem["where"] for problem in json.loads(out)["problems"]} == {"bad.yaml"}
    assert not (newcomer.folder / "runs").exists()
