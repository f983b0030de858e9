"""`python3 -m stormdrill.proxy.addresses ADDRESSES COMMAND…`: give this network namespace further addresses, then
become the command, as nobody and without the right to do so again. For callers that know a callee by its name alone."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from typing import NoReturn

_SET_ADDRESS, _SET_MASK = 0x8916, 0x891C
_INTERFACE = "eth0"
_ALONE = "255.255.255.255"
"""No route comes with it."""
_NOBODY = 65534


def add(addresses: list[str]) -> None:
    """Raises OSError without NET_ADMIN."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for number, address in enumerate(addresses):
            name = f"{_INTERFACE}:{number}".encode()
            for word, value in ((_SET_ADDRESS, address), (_SET_MASK, _ALONE)):
                said = struct.pack("16sH2x4s8x", name, socket.AF_INET, socket.inet_aton(value))
                fcntl.ioctl(asked, word, said)


def main(argv: list[str]) -> NoReturn:
    try:
        add([address for address in argv[0].split(",") if address])
    except OSError as error:
        sys.stderr.write(f"proxy: no further address can be had here ({error.strerror})\n")
        sys.exit(2)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)  # and with it all capabilities
    os.execvp(argv[1], argv[1:])  # noqa: S606  (an argument vector of ours)


if __name__ == "__main__":
    main(sys.argv[1:])
