"""Asks a system for something, and takes it back at its deadline or when it is told to end (SIGTERM).

Both requests are repeated until the system takes them: the first one only until it is to be taken back. What stands
there by then that is something else, somebody has set meanwhile: it stays theirs. Exit 0 when it was taken back or is
somebody else's, 1 when that couldn't be shown. A request that was never answered may have been heard, and is taken back
as well.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import sys
import threading
import time
import urllib.request

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


def somebody_else_s(asked: argparse.Namespace) -> bool:
    """Whether something else stands there than what was told and what was there before; False where nobody can tell."""
    path, _, ours = asked.look.partition(" == ")
    try:
        with urllib.request.urlopen(f"http://{asked.at}{asked.look_path}", timeout=ANSWER_LIMIT_S) as answer:
            found = json.loads(answer.read())
        for name in path.strip(".").split("."):
            found = found[name]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return False
    return bool(asked.look) and not same(found, ours)


def same(found: object, wanted: str) -> bool:
    """30 and 30.0 are the same number."""
    if isinstance(found, int | float) and not isinstance(found, bool):
        try:
            return float(found) == float(wanted)
        except ValueError:
            return False
    return str(found).lower() == wanted.lower()


def tell(asked: argparse.Namespace, over: threading.Event) -> bool:
    """Returns whether it was taken back."""
    end_s, told = time.monotonic() + asked.deadline_s, False
    while not over.is_set() and time.monotonic() < end_s:
        if taken(asked.at, asked.method, asked.path, asked.body):
            told = True
            over.wait(max(0.0, end_s - time.monotonic()))
            break
        over.wait(AGAIN_S)
    if told and somebody_else_s(asked):
        return True
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
    parser.add_argument("--look-path", default="/", help="GET on it shows what stands there")
    parser.add_argument("--look", default="", help="'.version == leaky': where in its answer, and what was told")
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
