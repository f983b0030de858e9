"""Says what is in the store, and sees to it that a named member leads when the drill begins: `reader.py LEADER`.

`GET /ready`: 200 when all members agree on a leader. Until that was LEADER once, it is handed over to it.
`GET /ledger`: all keys, as a majority of the members has them: the store's own word on what was written.
"""

import json
import os
import sys
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError
from urllib.request import Request, urlopen

MEMBERS = dict(item.split("=") for item in os.environ["STORMDRILL_PEERS_STORE"].split(","))
LIMIT_S = 2.0
ALL = {"key": "AA==", "range_end": "AA==", "keys_only": True}


def ask(member: str, path: str, question: dict[str, object]) -> dict[str, object]:
    request = Request(f"http://{MEMBERS[member]}/v3/{path}", json.dumps(question).encode())
    with urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310
        return json.load(answer)


class Leadership:
    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.begun = False

    def settled(self) -> bool:
        known = {name: ask(name, "maintenance/status", {}) for name in MEMBERS}
        ids = {status["header"]["member_id"]: name for name, status in known.items()}
        leaders = {ids.get(status.get("leader")) for status in known.values()}
        leader = leaders.pop() if len(leaders) == 1 else None
        self.begun = self.begun or leader == self.wanted
        if leader and not self.begun:
            identity = next(identity for identity, name in ids.items() if name == self.wanted)
            ask(leader, "maintenance/transfer-leadership", {"targetID": identity})
        return self.begun and leader is not None


def ledger() -> str:
    """From the first member that answers; a read through any of them is confirmed by a majority."""
    failures = []
    for name in MEMBERS:
        try:
            keys = [b64decode(item["key"]).decode() for item in ask(name, "kv/range", ALL).get("kvs", [])]
        except (URLError, OSError, ValueError) as error:
            failures.append(f"{name}: {error}")
            continue
        return "".join(json.dumps({"id": key, "state": "done", "done": 1}) + "\n" for key in keys)
    raise OSError("; ".join(failures))


LEADERSHIP = Leadership(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            if self.path == "/ledger":
                status, text = 200, ledger()
            else:
                status, text = (200, "ready") if LEADERSHIP.settled() else (503, "no leader yet, or not the one")
        except (OSError, ValueError, KeyError) as error:
            status, text = 503, str(error)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Not a word: every look of stormdrill's would be one."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["STORMDRILL_PORT"])), Handler).serve_forever()
