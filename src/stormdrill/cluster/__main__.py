"""`python -m stormdrill.cluster --run RUN --suite NAMESPACE`: the watchdog, in a pod of its Job."""

from __future__ import annotations

import argparse
import signal
import sys

from stormdrill.cluster.api import Api
from stormdrill.cluster.exec import Exec
from stormdrill.cluster.inside import InCluster
from stormdrill.cluster.watchdog import Watchdog, watch
from stormdrill.errors import StormdrillError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stormdrill.cluster", description="The watchdog of one run.")
    parser.add_argument("--run", required=True)
    parser.add_argument("--suite", required=True, help="the suite's own namespace")
    given = parser.parse_args()
    # the first process of a container gets no signal that it doesn't ask for; another pod goes on
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        api = Api(InCluster(), agent="stormdrill-watchdog")
    except StormdrillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    dog = Watchdog(api, given.run, given.suite, Exec(api), tell=_say)
    watch(dog)
    return 1 if dog.helpless else 0


def _say(said: str) -> None:
    sys.stdout.write(f"{said}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
