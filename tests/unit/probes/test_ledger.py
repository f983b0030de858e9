"""Which of a system's jobs are the run's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stormdrill.errors import Unreachable
from stormdrill.probes.ledger import read_ledger

RUN = "20261121T201402Z-region-loss-3f9c"


@contextmanager
def _system(*ids: str, status: int = 200) -> Iterator[str]:
    body = "".join(json.dumps({"id": id, "state": "done", "done": 1, "took_ms": 5.0}) + "\n" for id in ids).encode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/jobs"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_only_the_runs_own_jobs_are_read() -> None:
    others = ("20261120T090000Z-region-loss-3f9c-4", f"x{RUN}-5", f"{RUN}-6a", f"{RUN}--7", f"{RUN}-", "8", f"{RUN}9")
    huge = f"{RUN}-{'9' * 5000}"
    with _system(f"{RUN}-3", *others, huge, f"{RUN}-12") as url:
        assert [row.job for row in read_ledger(url, 2.0, RUN)] == [3, 12]


def test_a_runs_name_is_no_pattern() -> None:
    with _system("aXc-1", "a.c-2") as url:
        assert [row.job for row in read_ledger(url, 2.0, "a.c")] == [2]


def test_an_instance_that_answers_something_else_gave_no_ledger() -> None:
    with _system(status=503) as url, pytest.raises(Unreachable):
        read_ledger(url, 2.0, RUN)
