"""Redis' protocol, as far as a drill needs it."""

import socket
from collections.abc import Sequence
from typing import BinaryIO

HOST = "127.0.0.1"


class Refusal(str):
    """An answer that begins with a minus sign."""


def ask(port: int, *commands: Sequence[str], limit_s: float = 0.5) -> list[object]:
    """One answer a command. Raises OSError or EOFError when there is none."""
    with socket.create_connection((HOST, port), limit_s) as line, line.makefile("rb") as answers:
        line.sendall(b"".join(_packed(words) for words in commands))
        return [_answer(answers) for _ in commands]


def _packed(words: Sequence[str]) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(parts)}\r\n{''.join(parts)}".encode()


def _answer(stream: BinaryIO) -> object:
    line = stream.readline().decode()
    if not line.endswith("\r\n"):
        raise EOFError("the connection was cut")
    kind, rest = line[0], line[1:-2]
    if kind == "*":
        return [_answer(stream) for _ in range(int(rest))] if int(rest) >= 0 else None
    if kind == "$":
        return stream.read(int(rest) + 2)[:-2].decode() if int(rest) >= 0 else None
    return {"+": str, "-": Refusal, ":": int}[kind](rest)
