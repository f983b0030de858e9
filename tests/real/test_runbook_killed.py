"""A runbook whose process is killed in the middle of an action: the record says so, and a person is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stormdrill.engine.runbook_alone import Means, resume_alone
from stormdrill.probes.call import Calls
from stormdrill.store import journal, rundir
from stormdrill.store.verify import verify

BOOK = """---
title: Add a worker
answers: [QueueAge]
service: platform
owner: serving
escalation: nobody
severity: SEV-3
parameters:
  admin: {from: system.admin}
exit: success > 1%
---
```action id=add timeout=20s risk=low undo=none
POST {{ admin }}/workers
verify: GET {{ admin }}/workers .count >= 1
```
"""
PROGRAM = """
import sys
from pathlib import Path
from stormdrill.engine.runbook_alone import Means, run_alone
from stormdrill.probes.call import Calls
book, runs, admin = sys.argv[1:]
run_alone(Path(book), {}, Means(caller=Calls(), system={"admin": admin}), runs_dir=Path(runs))
"""


class Workers:
    def __init__(self) -> None:
        self.count, self.url, self.stuck = 0, "", threading.Event()


@contextmanager
def workers() -> Iterator[Workers]:
    """Counts the workers that are added; the answer to the first is held back."""
    state = Workers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            state.count += 1
            if state.count == 1:
                state.stuck.wait(30)
            self.answer()

        def answer(self) -> None:
            body = b'{"count": %d}' % state.count
            try:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.stuck.set()
        server.shutdown()
        server.server_close()


class Says:
    name = "ada"

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, []

    def ask(self, question, timeout_s, cancelled):
        self.asked.append(question)
        return "yes" if question.kind == "observe" else self.answer


@pytest.mark.real
@pytest.mark.parametrize(("answer", "count"), [("happened", 1), ("again", 2)])
def test_a_runbook_that_was_killed_in_an_action_asks_before_it_does_it_again(
    tmp_path: Path, answer: str, count: int
) -> None:
    book = tmp_path / "add-worker.md"
    book.write_text(BOOK)
    with workers() as state:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(book), str(tmp_path / "runs"), state.url])
        end = time.monotonic() + 30
        while state.count == 0 and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        state.stuck.set()
        run_dir = rundir.all_runs(tmp_path / "runs")[0]
        last = journal.salvage(run_dir / journal.NAME).events[-1].event
        assert last.type == "step-started"
        person = Says(answer)
        done = resume_alone(run_dir, Means(caller=Calls(), person=person), document=book)
    assert done.outcome == "done"
    assert person.asked[0].kind == "unknown"
    assert "its verification holds now" in person.asked[0].text
    assert state.count == count
    assert verify(run_dir, done.head) == []
