"""Asks a system for something, and takes it back at its deadline or when it is told to end (SIGTERM).

Both requests are repeated until the system takes them: the first one only until it is to be taken back. Exit 0 when it
was taken back, 1 when that couldn't be shown. A request that was never answered may have been heard, and is taken back
as well.
"""

from __future__ import annotations

import argparse
import http.client
import signal
import sys
import threading
import time

ANSWER_LIMIT_S = 2.0
AGAIN_S = 0.2
BACK_LIMIT_S = 8.0


def taken(at: str, method: str, path: str, body: str) -> bool:
    """Whether it answered with 2xx."""
    connection = http.client.HTTPConnection(at, timeout=ANSWER_LIMIT_S)
    try:
        connection.request(method, path, body.encode(), {"Content-Type": "application/json"})
        return connection.getresponse().status // 100 == 2
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def tell(asked: argparse.Namespace, over: threading.Event) -> bool:
    """Returns whether it was taken back."""
    end_s = time.monotonic() + asked.deadline_s
    while not over.is_set() and time.monotonic() < end_s:
        if taken(asked.at, asked.method, asked.path, asked.body):
            over.wait(max(0.0, end_s - time.monotonic()))
            break
        over.wait(AGAIN_S)
    end_s = time.monotonic() + BACK_LIMIT_S
    while not taken(asked.at, asked.undo_method, asked.undo_path, asked.undo_body):
        if time.monotonic() >= end_s:
            return False
        time.sleep(AGAIN_S)
    return True


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tell", description=__doc__)
    parser.add_argument("--at", required=True, help="HOST:PORT of who is told")
    for name in ("method", "path", "body"):
        parser.add_argument(f"--{name}", default="", required=name != "body")
        parser.add_argument(f"--undo-{name}", default="", required=name != "body")
    parser.add_argument("--deadline-s", type=float, required=True, help="it is taken back after this long")
    parser.add_argument("--tag", default="", help="means nothing: by this it is found among other processes")
    asked = parser.parse_args(words)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    if tell(asked, over):
        return 0
    sys.stderr.write(f"tell: {asked.undo_method} {asked.undo_path} of {asked.at} was not taken\n")
    return 1
