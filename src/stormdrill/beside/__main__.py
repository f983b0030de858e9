"""`python -m stormdrill.beside PROGRAM …`: exit 0 at its deadline or after SIGTERM, 2 for bad arguments."""

from __future__ import annotations

import sys
from importlib import import_module

PROGRAMS = ("leak", "burn", "flood", "tell")


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:
        sys.stderr.write(f"usage: python -m stormdrill.beside {'|'.join(PROGRAMS)} …\n")
        return 2
    program = import_module(f"stormdrill.beside.{sys.argv[1]}")
    return int(program.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
