"""Tries one TCP connection, and prints what became of it: open, refused, silent, unreachable, or unnamed.

Without a host it tries the API server of the cluster, as every pod is told of it. Imports nothing of stormdrill, so
that its text can be run by any python3 (`python3 -c TEXT …`).
"""

from __future__ import annotations

import argparse
import os
import socket
import sys


def tried(host: str, port: int, limit_s: float) -> str:
    try:
        socket.create_connection((host, port), limit_s).close()
    except socket.gaierror:
        return "unnamed"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silent"
    except OSError:
        return "unreachable"
    return "open"


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="reach", description=__doc__)
    parser.add_argument("--host", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=1.0)
    asked = parser.parse_args(words)
    host = asked.host or os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = asked.port or int(os.environ.get("KUBERNETES_SERVICE_PORT") or 0)
    sys.stdout.write(tried(host, port, asked.limit_s) if host else "unnamed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
