"""How a stream to a pod ends: in order, however soon the connection is closed after that; or broken, which is told."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from stormdrill.cluster.api import Lost
from stormdrill.cluster.websocket import Stream

BINARY, CLOSE = 0x82, 0x88
Ends = tuple[Stream, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield Stream("GET /exec", "v5.channel.k8s.io", ours), theirs
    ours.close()
    theirs.close()


def frame(code: int, payload: bytes) -> bytes:
    return struct.pack("!BB", code, len(payload)) + payload


def test_a_stream_that_was_closed_in_order_has_ended_though_the_connection_is_gone_already(ends: Ends) -> None:
    stream, server = ends
    server.sendall(frame(BINARY, b"\x01all of it") + frame(CLOSE, struct.pack("!H", 1000)))
    server.close()
    assert stream.receive(5) == (1, b"all of it")
    assert stream.receive(5) is None
    assert stream.ended


def test_a_connection_that_ends_without_that_is_told_as_broken(ends: Ends) -> None:
    stream, server = ends
    server.sendall(frame(BINARY, b"\x01half of it"))
    server.close()
    assert stream.receive(5) == (1, b"half of it")
    with pytest.raises(Lost, match="the connection was closed"):
        stream.receive(5)
