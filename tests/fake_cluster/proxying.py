"""A tiny kube-proxy: behind the address of each Service listens a relay that goes to a ready endpoint, in turn.

New connections follow the endpoints, old ones live on. Only Pods that run as local processes are reached."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterable

from fake_cluster.endpoints import behind, target_port
from fake_cluster.ground import Ground
from fake_cluster.kubelet import Kubelet, loopback
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, deleted_at, is_true
from fake_cluster.registry import Admitted, Registry

NONE = "None"


def install(registry: Registry) -> None:
    """Each Service gets its address when it is created, and keeps it."""

    @registry.admission
    def _address(admitted: Admitted) -> None:
        if admitted.kind.resource != "services" or admitted.obj is None:
            return
        spec = admitted.obj["spec"]
        if spec.get("type") == "ExternalName":
            return
        before = (admitted.before or {}).get("spec") or {}
        address = spec.get("clusterIP") or before.get("clusterIP") or loopback(2)
        spec["clusterIP"], spec["clusterIPs"] = address, [address]


class Relay:
    """One port of one Service."""

    def __init__(self, proxy: Proxy, service: Key, address: str, port: int) -> None:
        self._proxy, self._service, self._port = proxy, service, port
        self._turn = itertools.count()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((address, port), backlog=128)
        threading.Thread(target=self._listen, name="fake cluster relay", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self) -> None:
        with self._lock:
            held, self._open = self._open, set()
        for one in held:
            _end(one)

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[caller], daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        targets = self._proxy.targets(self._service, self._port)
        if not targets:
            _reset(caller)
            return
        try:
            way = socket.create_connection(targets[next(self._turn) % len(targets)], 5)
        except OSError:
            _reset(caller)
            return
        way.settimeout(None)
        for one in (caller, way):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {caller, way}
        back = threading.Thread(target=_pump, args=[way, caller], daemon=True)
        back.start()
        _pump(caller, way)
        back.join()
        with self._lock:
            self._open -= {caller, way}
        _end(caller)
        _end(way)


def _pump(source: socket.socket, into: socket.socket) -> None:
    try:
        while part := source.recv(1 << 16):
            into.sendall(part)
    except OSError:
        _end(source)
        _end(into)
        return
    with contextlib.suppress(OSError):
        into.shutdown(socket.SHUT_WR)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _reset(sock: socket.socket) -> None:
    """Nobody is behind: as a refusal, without a word."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


class Proxy:
    def __init__(self, ground: Ground, kubelet: Kubelet) -> None:
        self.ground = ground
        self.kubelet = kubelet
        self.failed: list[str] = []
        """Ports that could not be listened on (below 1024 without the right to)."""
        self._relays: dict[tuple[Key, str, int], Relay] = {}

    def concerns(self, change: Change) -> Iterable[Key]:
        return [(change.namespace, change.name)] if change.resource == "services" else ()

    def act(self, namespace: str, name: str) -> float | None:
        service = self.ground.get("services", namespace, name)
        wanted: set[tuple[Key, str, int]] = set()
        if service is not None and self.kubelet.images and service["spec"].get("clusterIP", NONE).startswith("127."):
            address = service["spec"]["clusterIP"]
            tcp = [one for one in service["spec"].get("ports") or [] if one.get("protocol", "TCP") == "TCP"]
            wanted = {((namespace, name), address, one["port"]) for one in tcp}
        for held in [one for one in self._relays if one[0] == (namespace, name) and one not in wanted]:
            self._relays.pop(held).close()
        for new in wanted - set(self._relays):
            try:
                self._relays[new] = Relay(self, *new)
            except OSError as error:
                self.failed.append(f"{name} {new[1]}:{new[2]}: {error}")
        return None

    def targets(self, service: Key, number: int) -> list[tuple[str, int]]:
        """Ready endpoints of now."""
        held = self.ground.get("services", *service)
        if held is None:
            return []
        port = next((one for one in held["spec"].get("ports") or [] if one["port"] == number), None)
        found = []
        for pod in behind(self.ground, held) if port is not None else []:
            reached = target_port(port, pod) if port is not None else None
            if reached and self._is_up(pod):
                found.append((str(pod["status"]["podIP"]), reached))
        return found

    def _is_up(self, pod: Obj) -> bool:
        return is_true(pod, "Ready") and not deleted_at(pod) and pod["metadata"]["uid"] in self.kubelet.runs

    def stop(self) -> None:
        relays, self._relays = list(self._relays.values()), {}
        for relay in relays:
            relay.close()
            relay.cut()
