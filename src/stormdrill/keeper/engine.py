"""Asks a container engine, by raw HTTP on its socket: bounded, without a library, never raising."""

from __future__ import annotations

import os

from stormdrill.keeper.exchange import exchange_now
from stormdrill.keeper.heard import Heard

__all__ = ["Heard", "ask"]

ENGINE = "unix:///var/run/docker.sock"


def ask(engine: str, method: str, path: str, body: str = "", timeout_s: float = 10.0) -> Heard:
    """One call. `engine`: `unix:///var/run/docker.sock` or `http://127.0.0.1:port`; `path` without the API's version,
    percent-encoded; `body`: JSON or empty. Never raises: `error` says why there is no complete answer, and `sent`
    whether the engine may have acted all the same. A stream is read until the engine closes it."""
    return exchange_now(engine, method, path, body, timeout_s)


def local_engine() -> str:
    """The one that `docker` would ask, when it is on this machine."""
    named = os.environ.get("DOCKER_HOST", "")
    return named if named.startswith(("unix://", "tcp://127.0.0.1:")) else ENGINE
