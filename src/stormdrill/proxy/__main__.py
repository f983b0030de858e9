"""`python -m stormdrill.proxy --config FILE`: serve every hop of one system from one process.

Without `--config` the configuration itself is taken from STORMDRILL_PROXY. Ready = it answers on its control port.
Exit 0 after SIGTERM or SIGINT, 2 when the configuration is bad or a port is taken, 70 for a defect of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

from stormdrill.proxy.board import Board
from stormdrill.proxy.config import Config, ConfigError, parse
from stormdrill.proxy.control import Control
from stormdrill.proxy.listener import Listener
from stormdrill.proxy.relay import Hop
from stormdrill.proxy.toxic import ToxicError

MOST_DESCRIPTORS = 65_536
DEFECT = 70


async def serve(config: Config) -> None:
    """Listen on every route and on the control port until told to end. Raises ConfigError for a port that is taken."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.set_exception_handler(_defect)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    hops = [Hop(route) for route in config.routes]
    for hop in hops:
        hop.listener = _listen(hop, config.host)
    board = Board(hops)
    for tag, body in config.toxics:
        try:
            board.put(tag, body)
        except ToxicError as error:
            raise ConfigError(f"toxics: {tag}: {error}") from None
    try:
        control = await loop.create_server(
            lambda: Control(board), config.control_host, config.control, reuse_address=True
        )
    except OSError as error:
        raise ConfigError(f"control: port {config.control} is taken ({error.strerror}); give another") from None
    address = control.sockets[0].getsockname()
    sys.stdout.write(f"proxy: {len(hops)} hops, control on {address[0]}:{address[1]}\n")
    sys.stdout.flush()
    await ended.wait()
    control.close()
    for hop in hops:
        if hop.listener is not None:
            hop.listener.close()
        hop.cut()


def _defect(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A callback that fails would be called again at once and for ever: better a proxy that is seen to be gone."""
    loop.default_exception_handler(context)
    if "handle" in context:
        sys.stderr.flush()
        os._exit(DEFECT)


def _listen(hop: Hop, host: str) -> Listener:
    route = hop.route
    try:
        return Listener(route.at or host, route.listen, hop.accept)
    except OSError as error:
        raise ConfigError(f"{route.name}: port {route.listen} is taken ({error.strerror}); give another") from None


def _allow_descriptors() -> None:
    """Two a connection: a stalled hop keeps those that nobody waits for any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stormdrill.proxy", description=__doc__)
    parser.add_argument("--config", type=Path, help="JSON file with the routes; default: $STORMDRILL_PROXY itself")
    parser.add_argument("--control", type=int, default=int(os.environ.get("STORMDRILL_PORT") or 0))
    options = parser.parse_args(argv)
    _allow_descriptors()
    try:
        text = options.config.read_text() if options.config else os.environ.get("STORMDRILL_PROXY", "")
        asyncio.run(serve(parse(text, options.control)))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"proxy: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
