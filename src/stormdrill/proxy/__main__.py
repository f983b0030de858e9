"""`python -m stormdrill.proxy --config FILE`: serve every hop of one system from one process.

Without `--config` the configuration itself is taken from STORMDRILL_PROXY. Ready = it answers on its control port.
Exit 0 after SIGTERM or SIGINT, 2 when the configuration is bad or a port is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from stormdrill.proxy.config import Config, ConfigError, Route, parse
from stormdrill.proxy.control import Control
from stormdrill.proxy.relay import Hop

HOST = "127.0.0.1"
BACKLOG = 512


async def serve(config: Config) -> None:
    """Listen on every route and on the control port until told to end. Raises ConfigError for a port that is taken."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    hops = [Hop(route) for route in config.routes]
    servers = [await _listen(hop, hop.route) for hop in hops]
    try:
        control = await loop.create_server(lambda: Control(hops), HOST, config.control, reuse_address=True)
    except OSError as error:
        raise ConfigError(f"control: port {config.control} is taken ({error.strerror}); give another") from None
    address = control.sockets[0].getsockname()
    sys.stdout.write(f"proxy: {len(hops)} hops, control on {address[0]}:{address[1]}\n")
    sys.stdout.flush()
    await ended.wait()
    for server in (*servers, control):
        server.close()
    for hop in hops:
        hop.cut()


async def _listen(hop: Hop, route: Route) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(hop.accept, HOST, route.listen, backlog=BACKLOG, reuse_address=True)
    except OSError as error:
        raise ConfigError(f"{route.name}: port {route.listen} is taken ({error.strerror}); give another") from None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stormdrill.proxy", description=__doc__)
    parser.add_argument("--config", type=Path, help="JSON file with the routes; default: $STORMDRILL_PROXY itself")
    parser.add_argument("--control", type=int, default=int(os.environ.get("STORMDRILL_PORT") or 0))
    options = parser.parse_args(argv)
    try:
        text = options.config.read_text() if options.config else os.environ.get("STORMDRILL_PROXY", "")
        asyncio.run(serve(parse(text, options.control)))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"proxy: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
