"""Becomes one member of an etcd cluster: `member.py NAME…` with the names of all. It execs: its process is etcd's.

stormdrill gives an instance one port, for clients. The port for the other members is chosen here, and told to them by
a file in the instance's own directory, beside theirs; there it is found again when the instance is started again.
"""

import os
import socket
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"
WAIT_S = 10.0
FIRST, COUNT = 10_000, 20_000
"""Below the ports that the kernel gives to others meanwhile."""


def peer_port(data: Path, port: int) -> int:
    """The one of its first start."""
    told = data / "peer-port"
    if not told.exists():
        chosen = next(FIRST + (port + more) % COUNT for more in range(COUNT) if is_free(FIRST + (port + more) % COUNT))
        draft = data / "peer-port.new"
        draft.write_text(str(chosen), encoding="utf-8")
        draft.rename(told)
    return int(told.read_text(encoding="utf-8"))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def told_by(told: Path) -> str:
    deadline = time.monotonic() + WAIT_S
    while not told.exists():
        if time.monotonic() > deadline:
            sys.exit(f"{told}: no member has told its port within {WAIT_S:g} s")
        time.sleep(0.02)
    return told.read_text(encoding="utf-8")


def main(names: list[str]) -> None:
    own, port = os.environ["STORMDRILL_INSTANCE"], int(os.environ["STORMDRILL_PORT"])
    data = Path(os.environ["STORMDRILL_DATA"])
    clients, peers = f"http://{HOST}:{port}", f"http://{HOST}:{peer_port(data, port)}"
    cluster = ",".join(f"{name}=http://{HOST}:{told_by(data.parent / name / 'peer-port')}" for name in names)
    options = {
        "name": own,
        "data-dir": str(data / "etcd"),
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": cluster,
        "initial-cluster-token": str(data.parent),
        "logger": "zap",
    }
    os.execvp("etcd", ["etcd", *(f"--{key}={value}" for key, value in options.items())])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
