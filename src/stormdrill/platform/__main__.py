"""`python -m stormdrill.platform ROLE`: one process of the reference platform, wired by its target.

Exit 0 after SIGTERM or SIGINT, 2 when the wiring or the command line is bad or the port is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import time
from collections.abc import Coroutine

from stormdrill.platform.bugs import BUGS, NONE
from stormdrill.platform.wiring import Wiring, WiringError, read_wiring

ROLES = ("edge", "gateway", "workers", "feed")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stormdrill.platform", description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--region", default="", help="gateway, workers: the region they belong to")
    parser.add_argument("--pool", choices=("cpu", "gpu"), help="workers: which pool they are")
    parser.add_argument("--bug", choices=BUGS, default=NONE, help="a named resilience bug")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="gateway: how many slots and places its region has, 1 as usual"
    )
    return parser


def _role(options: argparse.Namespace, wiring: Wiring) -> Coroutine[None, None, None]:
    """Imports only what the role needs: nine processes start at once."""
    if options.role == "edge":
        from stormdrill.platform import edge

        return edge.run(wiring, options.bug)
    if options.role == "feed":
        from stormdrill.platform import feed

        return feed.run(wiring)
    if not options.region:
        raise WiringError(f"{options.role} needs --region")
    if options.role == "gateway":
        from stormdrill.platform import gateway

        return gateway.run(wiring, options.region, options.bug, options.scale)
    if not options.pool:
        raise WiringError("workers need --pool cpu or gpu")
    from stormdrill.platform import workers

    return workers.run(wiring, options.region, options.pool, options.bug)


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if not 0.1 <= options.scale <= 10:
        parser.error(f"--scale is {options.scale:g}; write 0.1 to 10")
    logging.basicConfig(
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S", level=logging.INFO
    )
    logging.Formatter.converter = time.gmtime
    try:
        work = _role(options, read_wiring())
        gc.freeze()
        asyncio.run(work)
    except (WiringError, OSError) as error:
        sys.stderr.write(f"{options.role}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
