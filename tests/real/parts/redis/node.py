"""Becomes a Redis server or sentinel: `node.py PROGRAM PRIMARY`. It execs: its process is the program's.

Where to find each other is told by a file in the instance's own directory, beside the others'.
"""

import os
import sys
import time
from pathlib import Path

WAIT_S = 10.0
SERVER = """
bind 127.0.0.1
port {port}
dir {data}
save ""
appendonly yes
repl-diskless-sync-delay 0
"""
SENTINEL = """
bind 127.0.0.1
port {port}
dir {data}
sentinel monitor drill 127.0.0.1 {primary} 2
sentinel down-after-milliseconds drill 1000
sentinel failover-timeout drill 6000
sentinel parallel-syncs drill 2
"""


def port_of(data: Path, name: str) -> int:
    told = data.parent / name / "port"
    deadline = time.monotonic() + WAIT_S
    while not told.exists():
        if time.monotonic() > deadline:
            sys.exit(f"{told}: {name} has not told its port within {WAIT_S:g} s")
        time.sleep(0.02)
    return int(told.read_text(encoding="utf-8"))


def main(program: str, primary: str) -> None:
    name, port = os.environ["STORMDRILL_INSTANCE"], os.environ["STORMDRILL_PORT"]
    data = Path(os.environ["STORMDRILL_DATA"])
    (data / "port.new").write_text(port, encoding="utf-8")
    (data / "port.new").rename(data / "port")
    config = data / "node.conf"
    if not config.exists():  # what Redis wrote into it later is kept when the instance is started again
        text = SENTINEL if program == "redis-sentinel" else SERVER
        if program == "redis-server" and name != primary:
            text += "replicaof 127.0.0.1 {primary}\n"
        config.write_text(text.format(port=port, data=data, primary=port_of(data, primary)), encoding="utf-8")
    os.execvp(program, [program, str(config)])  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
