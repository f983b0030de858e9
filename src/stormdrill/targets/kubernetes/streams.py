"""A connection to a port of a pod, through the API server: port-forward over websocket, one port a stream.

On the client's side it is `stormdrill.cluster.websocket`, as exec is; the official client's streams are not used.
"""

from __future__ import annotations

import struct
import time

from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.websocket import Refusal, Stream, connect

PROTOCOLS = ("v4.channel.k8s.io",)
DATA, ERROR = 0, 1
_PORT = struct.Struct("<H")


class Forward:
    """One connection, as a socket of few words. It knows no half-close: the protocol has none."""

    def __init__(self, stream: Stream, port: int) -> None:
        self._stream = stream
        self._port = port
        self._greeted: set[int] = set()
        """Channels whose first frame, the port's number, has come."""
        self._rest: dict[int, bytes] = {}
        self.why = ""
        """What the kubelet said of a connection that could not be made, or broke."""

    @property
    def ended(self) -> bool:
        return self._stream.ended or bool(self.why)

    def send(self, data: bytes, limit_s: float) -> None:
        """Raises Lost."""
        self._stream.send(data, DATA, limit_s)

    def receive(self, timeout_s: float) -> bytes:
        """What the pod sent; empty when nothing came in time or nothing more comes (`ended`). Raises Lost."""
        until_s = time.monotonic() + timeout_s
        while not self.ended:
            heard = self._stream.receive(max(until_s - time.monotonic(), 0))
            if heard is None:
                return b""
            channel, data = heard
            data = self._after_port(channel, data)
            if channel == ERROR and data:
                self.why = " ".join(data.decode("utf-8", "replace").split())[:300]
            elif channel == DATA and data:
                return data
        return b""

    def close(self) -> None:
        self._stream.close()

    def _after_port(self, channel: int, data: bytes) -> bytes:
        """Each channel begins with the port as a number of two bytes, which may come in pieces."""
        if channel in self._greeted:
            return data
        data = self._rest.pop(channel, b"") + data
        if len(data) < _PORT.size:
            self._rest[channel] = data
            return b""
        (port,) = _PORT.unpack_from(data)
        if port != self._port:
            raise Lost(f"port-forward: asked for port {self._port}, and the answer speaks of {port}", sent=True)
        self._greeted.add(channel)
        return data[_PORT.size :]


def forward(api: Api, namespace: str, pod: str, port: int, limit_s: float) -> Forward:
    """Raises Refusal with what the API server said (the pod is gone, not allowed), Lost when it can't be reached."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    return Forward(connect(api.access, path, f"ports={port}", PROTOCOLS, limit_s), port)


__all__ = ["Forward", "Lost", "Refusal", "forward"]
