"""What proves that a message is the master's or a worker's of this run: a token that both know and nobody sends.

HMAC-SHA-256 (RFC 2104) over direction, number and text. The first two messages carry a fresh random number of each
side, and the keys that follow are made of both: what was recorded from one conversation is worth nothing in another.
Nothing is hidden by it: what is sent can be read on the way.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from typing import Literal

TOKEN_VARIABLE = "STORMDRILL_LOAD_TOKEN"  # noqa: S105  (the variable's name)
LEAST_TOKEN = 16
"""Letters. A token that the run makes has 32."""

_HEAD = struct.Struct(">32sQ")
Side = Literal["master", "worker"]


class NotSealedError(Exception):
    """A message that isn't whole, is not of somebody who knows the token, or was sent before."""


def new_token() -> str:
    return secrets.token_urlsafe(24)


def new_nonce() -> bytes:
    return secrets.token_bytes(16)


class Seal:
    """One end of one conversation."""

    def __init__(self, token: str, side: Side, *nonces: bytes) -> None:
        self._key = hmac.digest(token.encode(), b"stormdrill/load/1" + b"".join(nonces), hashlib.sha256)
        self._side = side.encode()
        self._other = b"worker" if side == "master" else b"master"
        self._sent = self._heard = 0

    def close(self, body: bytes) -> bytes:
        """The message as it is sent."""
        self._sent += 1
        return _HEAD.pack(self._mark(self._side, self._sent, body), self._sent) + body

    def open(self, message: object) -> bytes:
        """The body. Raises NotSealedError for anything that the other end didn't send, or sent before."""
        if not isinstance(message, bytes) or len(message) < _HEAD.size:
            raise NotSealedError("no message of stormdrill's")
        mark, number = _HEAD.unpack_from(message)
        body = message[_HEAD.size :]
        if not hmac.compare_digest(mark, self._mark(self._other, number, body)):
            raise NotSealedError("made with another token")
        if number <= self._heard:
            raise NotSealedError("sent a second time")
        self._heard = number
        return body

    def _mark(self, side: bytes, number: int, body: bytes) -> bytes:
        return hmac.digest(self._key, side + number.to_bytes(8, "big") + body, hashlib.sha256)
