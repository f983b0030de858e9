"""What a load's pod runs while it waits: the load itself is started in it by the runner, by exec.

`python -m stormdrill.load.in_cluster_holder SECONDS`. Ends by SIGTERM at once, or after that time: as the first process
of a container it has to listen for the signal itself. Standard library only.
"""

from __future__ import annotations

import signal
import sys
import time


def main(longest_s: float) -> int:
    """0 when it was ended, 1 when nobody did."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    until_s = time.monotonic() + longest_s
    while (left_s := until_s - time.monotonic()) > 0:
        if signal.sigtimedwait(signals, left_s) is not None:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
