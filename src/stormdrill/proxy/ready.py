"""`python -m stormdrill.proxy.ready`: exit 0 when the proxy beside it answers and all that it leads to can be reached.

Takes the proxy's own configuration, from the same place. For whoever may start programs beside the proxy and nothing
else: its control listens on loopback alone. With `--toxics` it prints what the control tells of them.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import sys
from pathlib import Path

from stormdrill.proxy.config import Config, ConfigError, parse

LIMIT_S = 1.0


def asked(config: Config, path: str) -> str:
    """What the control answers. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection(config.control_host, config.control, timeout=LIMIT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != http.client.OK:
            raise OSError(f"it answered {answer.status}: {text[:200]}")
        return text
    finally:
        connection.close()


def trouble(config: Config) -> str:
    """Why it isn't ready; empty when it is."""
    try:
        asked(config, "/healthz")
    except (OSError, http.client.HTTPException) as error:
        return f"the control at {config.control_host}:{config.control}: {error}"
    for host, port in dict.fromkeys((route.host, route.port) for route in config.routes):
        try:
            socket.create_connection((host, port), LIMIT_S).close()
        except OSError as error:
            return f"{host}:{port}, where it leads: {error}"
    return ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stormdrill.proxy.ready", description=__doc__)
    parser.add_argument("--config", type=Path, help="the proxy's own; default: $STORMDRILL_PROXY itself")
    parser.add_argument("--toxics", action="store_true", help="print what is in force, and what it has touched")
    options = parser.parse_args(argv)
    try:
        text = options.config.read_text() if options.config else os.environ.get("STORMDRILL_PROXY", "")
        config = parse(text)
        if options.toxics:
            sys.stdout.write(asked(config, "/toxics"))
            return 0
        why = trouble(config)
    except (ConfigError, OSError, http.client.HTTPException) as error:
        why = str(error)
    if why:
        sys.stderr.write(f"not ready: {why}\n")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
