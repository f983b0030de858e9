"""A worker told by its environment alone where its master is: what a person, a unit file or a Job sets."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping

from stormdrill.load.messages import Worker
from stormdrill.load.sealed import LEAST_TOKEN, TOKEN_VARIABLE

MASTER_VARIABLE = "STORMDRILL_LOAD_MASTER"
NAME_VARIABLE = "STORMDRILL_LOAD_NAME"
WAIT_VARIABLE = "STORMDRILL_LOAD_WAIT"
WAIT_S = 120.0


def worker_of(environment: Mapping[str, str]) -> Worker:
    """Raises ValueError, with what to set. Without a name it is that of its machine."""
    master = environment.get(MASTER_VARIABLE, "")
    if not master:
        raise ValueError(f"where is the run? give --master HOST:PORT, or set ${MASTER_VARIABLE}")
    host, port = address_of(master)
    token = environment.get(TOKEN_VARIABLE, "")
    if len(token) < LEAST_TOKEN:
        fix = "the run prints it with the command to start a worker"
        raise ValueError(f"${TOKEN_VARIABLE} is {'too short' if token else 'not set'}; {fix}")
    wait = environment.get(WAIT_VARIABLE, "") or f"{WAIT_S:g}"
    try:
        wait_s = float(wait.removesuffix("s"))
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s < math.inf:
        raise ValueError(f"{wait!r} is no number of seconds; write for instance 120")
    return Worker(environment.get(NAME_VARIABLE, "") or socket.gethostname(), host, port, wait_s=wait_s)


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[::1]:5557` too. Raises ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is no address; write HOST:PORT, for instance 10.0.0.5:5557")
    return host, int(port)
