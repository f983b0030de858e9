"""How instances are reached: from outside by a loopback port each, whose connections are led to the slot's pod.

For what looks (metrics, ready checks, admin), never for load: what passes here measures the API server. The address of
an instance stays while its slot is bound to another pod; a connection goes to the pod that is bound when it is made.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.websocket import Refusal
from stormdrill.model.permission import Need, to_stream
from stormdrill.targets.kubernetes.streams import Forward, forward

LOOPBACK = "127.0.0.1"
CONNECTIONS = 64
"""At a time, of all instances; one more is closed at once."""
LISTENERS = 512
CONNECT_LIMIT_S = 2.0
"""A look has a second or two: an API server that can't be reached must be noticed as quickly."""
SILENT_S = 1.0
"""For so long after an API server could not be reached nobody is made to wait for it again."""
STUCK_S = 30.0
"""A reader or a writer that doesn't go on for so long is given up."""
AFTER_EOF_S = 5.0
"""The protocol can't tell a half-close: who has sent all and still reads is given so long for an answer to begin."""
ANSWERED_S = 0.5
"""And so long for it to go on."""
_TICK_S = 0.5
_BACKLOG = 64
_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)
_SEND_LIMIT = struct.pack("ll", int(STUCK_S), 0)


class Bound(NamedTuple):
    """The pod that a slot is bound to."""

    cluster: str
    namespace: str
    pod: str
    uid: str
    port: int
    """Where the instance listens in it."""
    ip: str = ""


class Reach:
    """Addresses of instances. `api_of`: of a cluster by its name; `bound`: the pod of an instance's slot now."""

    def __init__(
        self, api_of: Callable[[str], Api], bound: Callable[[str], Bound | None], *, direct: bool = False
    ) -> None:
        """`direct`: this process is in the cluster, so that a pod's own address will do."""
        self._api_of, self._bound, self._direct = api_of, bound, direct
        self._lock = threading.Lock()
        self._listeners: dict[str, socket.socket] = {}
        self._open: set[_Connection] = set()
        self._silent_until_s: dict[str, float] = {}
        self._why: dict[str, str] = {}
        self._closed = False

    def address(self, instance: str) -> str:
        """host:port; empty where there is none (direct, and no pod is bound). Raises OSError when no port is left."""
        if self._direct:
            bound = self._bound(instance)
            return _place(bound) if bound is not None and bound.ip else ""
        with self._lock:
            if self._closed:
                return ""
            listener = self._listeners.get(instance)
            if listener is None:
                if len(self._listeners) >= LISTENERS:
                    raise OSError(f"more than {LISTENERS} instances can't be reached through the API server")
                listener = socket.create_server((LOOPBACK, 0), backlog=_BACKLOG)
                self._listeners[instance] = listener
                threading.Thread(
                    target=self._accept, args=(instance, listener), name=f"reach-{instance}", daemon=True
                ).start()
            return f"{LOOPBACK}:{listener.getsockname()[1]}"

    def why(self, instance: str) -> str:
        """Why the last connection to it could not be made or broke; empty when it could."""
        with self._lock:
            return self._why.get(instance, "")

    def close(self) -> None:
        """Ends all listeners and connections. May be called twice."""
        with self._lock:
            self._closed = True
            listeners, self._listeners = list(self._listeners.values()), {}
            connections = list(self._open)
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
            listener.close()
        for connection in connections:
            connection.cut()

    @staticmethod
    def needs(namespace: str, cluster: str = "") -> tuple[Need, ...]:
        why = "to reach instances from outside of the cluster"
        return to_stream("portforward", namespace, cluster=cluster, why=why)

    # --- one connection ----------------------------------------------------------------------------------------

    def _accept(self, instance: str, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(_TICK_S)  # out of descriptors: others may end
                continue
            connection = _Connection(sock)
            with self._lock:
                if self._closed or len(self._open) >= CONNECTIONS:
                    connection.cut()
                    continue
                self._open.add(connection)
            threading.Thread(
                target=self._serve, args=(instance, connection), name=f"reach-{instance}", daemon=True
            ).start()

    def _serve(self, instance: str, connection: _Connection) -> None:
        why = ""
        try:
            bound = self._bound(instance)
            why = "no pod is bound to it" if bound is None else self._lead(instance, bound, connection)
        finally:
            connection.cut()
            with self._lock:
                self._open.discard(connection)
                self._why[instance] = why

    def _lead(self, instance: str, bound: Bound, connection: _Connection) -> str:
        """Why it could not be led there, or broke; empty when it ended as connections do."""
        if time.monotonic() < self._silent_until_s.get(bound.cluster, 0.0):
            return "the API server can't be reached"
        try:
            connection.forward = forward(
                self._api_of(bound.cluster), bound.namespace, bound.pod, bound.port, CONNECT_LIMIT_S
            )
        except Refusal as refusal:
            return f"the API server refused it: {refusal}"
        except Lost as lost:
            if not lost.sent:
                self._silent_until_s[bound.cluster] = time.monotonic() + SILENT_S
            return f"the API server can't be reached: {lost}"

        def still() -> bool:
            now = self._bound(instance)
            return not self._closed and now is not None and now.uid == bound.uid

        threading.Thread(target=connection.up, name=f"reach-{instance}-up", daemon=True).start()
        return connection.down(still)


class _Connection:
    """Bytes between a local socket and a stream to a pod, both ways."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # not a time-out of the object, which the other thread's reading would share
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_LIMIT)
        self.forward: Forward | None = None
        self._all_sent = False
        """By the local side, which may still read."""
        self._asked_s = self._answered_s = time.monotonic()
        self._gone = False
        self._broken = False

    def up(self) -> None:
        """From the local side to the pod, until either ends."""
        assert self.forward is not None
        try:
            while data := self._sock.recv(_CHUNK):
                self._asked_s = time.monotonic()
                self.forward.send(data, STUCK_S)
            self._all_sent = True
        except Lost:
            return  # why it broke is heard on the way down
        except OSError:
            self._gone = True

    def down(self, still: Callable[[], bool]) -> str:
        """From the pod to the local side, until either ends, the slot is bound to another pod, or nobody reads."""
        assert self.forward is not None
        self._broken = True
        try:
            while not self._gone:
                data = self.forward.receive(_TICK_S)
                if data:
                    self._answered_s = time.monotonic()
                    self._sock.sendall(data)
                elif self.forward.ended:
                    self._broken = bool(self.forward.why)
                    return self.forward.why
                elif self._over():
                    break
                elif not still():
                    return "its slot is bound to another pod"
        except Lost as lost:
            return str(lost)
        except OSError:
            pass  # whoever asked has gone
        self._broken = False
        return ""

    def cut(self) -> None:
        """End both. What broke is reset, so that half an answer isn't taken for a whole one."""
        with contextlib.suppress(OSError):
            if self._broken:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._sock.shutdown(socket.SHUT_RD)  # says nothing, but wakes who reads: till then it isn't closed
            else:
                self._sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._sock.close()
        if self.forward is not None:
            self.forward.close()

    def _over(self) -> bool:
        """Whether nothing more is to be waited for."""
        if not self._all_sent:
            return False
        answered = self._answered_s > self._asked_s
        since_s = self._answered_s if answered else self._asked_s
        return time.monotonic() - since_s > (ANSWERED_S if answered else AFTER_EOF_S)


def _place(bound: Bound) -> str:
    return f"[{bound.ip}]:{bound.port}" if ":" in bound.ip else f"{bound.ip}:{bound.port}"
