"""Speaks HTTP for Redis, which doesn't.

`GET /ready`: 200 when one server is the primary, the others follow it, and all sentinels see it so.
`GET /metrics`: what each server says of itself, under the label `instance`, as any exporter does.
`GET /sentinels`: the sentinels' ports. `GET /ledger`: all keys of the server that the sentinels call the primary.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from loadgen.resp import ask
from node import port_of

DATA = Path(os.environ["STORMDRILL_DATA"])
SERVERS = ("redis-a", "redis-b", "redis-c")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
HASTE = ("SENTINEL", "DEBUG", "info-period", "500", "publish-period", "500")
"""A primary that comes back is looked at after the first, and told to follow after four of the second: up to 18 s by
default, which would only lengthen the drill."""


def pairs(flat: object) -> dict[str, str]:
    words = flat if isinstance(flat, list) else []
    return dict(zip(words[::2], words[1::2], strict=True))


def info(server: str) -> dict[str, str]:
    (text,) = ask(port_of(DATA, server), ("INFO", "everything"), limit_s=0.3)
    return dict(line.split(":", 1) for line in str(text).split("\r\n") if ":" in line)


def ready() -> bool:
    followers, others = str(len(SERVERS) - 1), str(len(SENTINELS) - 1)
    primaries = set()
    for sentinel in SENTINELS:
        _, seen = ask(port_of(DATA, sentinel), HASTE, ("SENTINEL", "MASTER", "drill"))
        known = pairs(seen)
        if (known["num-slaves"], known["num-other-sentinels"], known["flags"]) != (followers, others, "master"):
            return False
        primaries.add(known["port"])
    roles = {str(port_of(DATA, server)): info(server) for server in SERVERS}
    leading = {port for port, told in roles.items() if told["role"] == "master"}
    return leading == primaries and all(roles[port]["connected_slaves"] == followers for port in primaries)


def metrics() -> str:
    """A server that doesn't answer has no samples."""
    lines = []
    for server in SERVERS:
        try:
            told = info(server)
        except (OSError, EOFError):
            continue
        lines.append(f'redis_commands_processed_total{{instance="{server}"}} {told["total_commands_processed"]}')
        lines.append(f'redis_primary{{instance="{server}"}} {int(told["role"] == "master")}')
    return "\n".join(lines) + "\n"


def ledger() -> str:
    (where,) = ask(port_of(DATA, SENTINELS[0]), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "drill"))
    if not isinstance(where, list):
        raise EOFError("the sentinel knows no primary")
    (keys,) = ask(int(where[1]), ("KEYS", "*"), limit_s=2.0)
    names = keys if isinstance(keys, list) else []
    return "".join(json.dumps({"id": key, "state": "done", "done": 1}) + "\n" for key in names)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            status, text = self.answer()
        except (OSError, EOFError, ValueError, KeyError) as error:
            status, text = 503, str(error)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self) -> tuple[int, str]:
        match self.path:
            case "/ready":
                return (200, "ready") if ready() else (503, "not one primary that all others follow")
            case "/metrics":
                return 200, metrics()
            case "/ledger":
                return 200, ledger()
            case "/sentinels":
                return 200, " ".join(str(port_of(DATA, name)) for name in SENTINELS)
        return 404, "no such page"

    def log_message(self, *words: object) -> None:
        """Not a word: every look of stormdrill's would be one."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["STORMDRILL_PORT"])), Handler).serve_forever()
