"""pods/exec and pods/portforward over websocket, as recorded. Commands run as local processes: for a Pod that runs as
local processes in its environment, for one that is only said to run in an environment that names it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO

from fake_cluster.calls import Call, Reply
from fake_cluster.framing import BINARY, TEXT, WebSocket
from fake_cluster.kubelet import Kubelet
from fake_cluster.matching import Obj, ended
from fake_cluster.problems import Problem, bad_request, not_found
from fake_cluster.processes import argv_for, die_with_parent
from fake_cluster.registry import Registry
from fake_cluster.store import dump
from fake_cluster.terminals import Terminal

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
SPOKEN = (V5, V4, "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")
LARGEST_FRAME = 32_768
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE_ONE = 0, 1, 2, 3, 4, 255


def install(registry: Registry, kubelet: Kubelet) -> None:
    @registry.upgrade("pods", "exec")
    def _exec(call: Call, sock: socket.socket, read: bytes) -> None:
        _answered(call, sock, lambda: Exec(call, kubelet).serve(sock, read))

    @registry.upgrade("pods", "portforward")
    def _forward(call: Call, sock: socket.socket, read: bytes) -> None:
        _answered(call, sock, lambda: forward(call, kubelet, sock, read))

    for sub in ("exec", "portforward", "attach"):
        for method in ("GET", "POST"):
            registry.handler("pods", sub, method)(_wants_upgrade)


def _wants_upgrade(call: Call) -> Reply:
    raise bad_request("Upgrade request required")


def _answered(call: Call, sock: socket.socket, serve: Callable[[], None]) -> None:
    """A refusal is an answer as any other."""
    try:
        serve()
    except Problem as refused:
        text = isinstance(refused.body, str)
        body = refused.body.encode() if isinstance(refused.body, str) else dump(refused.body)
        head = {"Content-Type": "text/plain; charset=utf-8" if text else "application/json"} if body else {}
        call.request.status = refused.status
        sock.sendall(_answer(refused.status, {**head, "Content-Length": str(len(body)), **refused.headers}) + body)


def _answer(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def handshake(call: Call, sock: socket.socket, read: bytes, spoken: tuple[str, ...]) -> tuple[WebSocket, str]:
    """Takes the connection over; raises Problem. SPDY is answered as recorded, but not spoken: the connection ends."""
    upgrade = call.headers.get("upgrade", "").lower()
    if upgrade.startswith("spdy"):
        wanted = call.headers.get("x-stream-protocol-version", "").partition(",")[0].strip()
        head = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": wanted}
        call.request.status = 101
        sock.sendall(_answer(101, head))
        raise ConnectionResetError("SPDY is not spoken here")
    if call.method != "GET":
        raise Problem(405, "", {"Connection": "close"})
    offered = [one.strip() for one in call.headers.get("sec-websocket-protocol", "").split(",") if one.strip()]
    protocol = next((one for one in spoken if one in offered), "")
    if offered and not protocol:
        raise Problem(403, "")
    ws = WebSocket(sock, read)
    ws.accept(call.headers.get("sec-websocket-key", ""), protocol)
    call.request.status = 101
    return ws, protocol


def pod_of(call: Call) -> Obj:
    pod = call.registry.read("pods", call.namespace, call.name)
    if pod is None:
        raise not_found(call.served(), call.name)
    return pod


def container_of(call: Call, pod: Obj) -> Obj:
    """The container that a request means; raises Problem."""
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("ephemeralContainers") or [])]
    names = [one["name"] for one in containers]
    wanted = call.query.get("container", "")
    if not wanted and len(pod["spec"]["containers"]) > 1:
        listed = " ".join(one["name"] for one in pod["spec"]["containers"])
        raise bad_request(f"a container name must be specified for pod {call.name}, choose one of: [{listed}]")
    if wanted and wanted not in names:
        raise bad_request(f"container {wanted} is not valid for pod {call.name}")
    return dict(containers[names.index(wanted) if wanted else 0])


def has_a_host(call: Call, pod: Obj) -> None:
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {call.name} does not have a host assigned")


@dataclass(frozen=True, slots=True)
class Status:
    """How a command ended, in the words of both protocols."""

    command: tuple[str, ...]
    exit_code: int = 0
    broken: str = ""
    """Why it never began."""

    def body(self, protocol: str) -> Obj:
        if self.broken:
            inner = ("Internal error occurred: " if protocol == V5 else "") + self._why()
            return {
                "metadata": {}, "status": "Failure", "message": f"Internal error occurred: {inner}",
                "reason": "InternalError", "details": {"causes": [{"message": inner}]}, "code": 500,
            }  # fmt: skip
        if not self.exit_code:
            return {"metadata": {}, "status": "Success"}
        return {
            "metadata": {}, "status": "Failure", "message": self._ended(protocol), "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(self.exit_code)}]},
        }  # fmt: skip

    def _ended(self, protocol: str) -> str:
        told = f"error executing command [{' '.join(self.command)}], exit code {self.exit_code}"
        if protocol == V5:
            told = f"command terminated with exit code {self.exit_code}"
        return f"command terminated with non-zero exit code: {told}"

    def _why(self) -> str:
        return (
            'error executing command in container: failed to exec in container: failed to start exec "0": '
            f"OCI runtime exec failed: exec failed: {self.broken}: unknown"
        )

    def told(self, protocol: str) -> bytes:
        """What channel 3 carries at the end."""
        if protocol in (V5, V4, "v4.base64.channel.k8s.io"):
            whole = json.dumps(self.body(protocol), separators=(",", ":"), ensure_ascii=False)
            for letter, escape in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
                whole = whole.replace(letter, escape)
            return whole.encode()
        if self.broken:
            return self._why().encode()
        return self._ended(protocol).encode() if self.exit_code else b""


class Exec:
    def __init__(self, call: Call, kubelet: Kubelet) -> None:
        self.call = call
        self.kubelet = kubelet
        asked = call.query
        self.stdin, self.stdout, self.stderr, self.tty = (
            asked.get(name, "").lower() in ("true", "1") for name in ("stdin", "stdout", "stderr", "tty")
        )
        self.command = tuple(call.values.get("command") or [])
        self.ws: WebSocket | None = None
        self.protocol = ""

    def serve(self, sock: socket.socket, read: bytes) -> None:
        pod = pod_of(self.call)
        container = container_of(self.call, pod)
        has_a_host(self.call, pod)
        if self.call.headers.get("upgrade", "").lower() == "websocket" and self.call.method == "GET":
            if not (self.stdin or self.stdout or self.stderr):
                raise Problem(400, "you must specify at least 1 of stdin, stdout, stderr")
            if ended(pod):
                raise Problem(500, f'container not found ("{container["name"]}")')
        self.ws, self.protocol = handshake(self.call, sock, read, SPOKEN)
        self._say(STDOUT, b"")
        status = self._run(pod, container)
        if told := status.told(self.protocol):
            self._say(ERROR, told)
        self.ws.close()

    def _say(self, channel: int, payload: bytes) -> None:
        assert self.ws is not None
        if "base64" in self.protocol:
            self.ws.send(TEXT, str(channel).encode() + base64.b64encode(payload))
        else:
            self.ws.send(BINARY, bytes([channel]) + payload)

    def _run(self, pod: Obj, container: Obj) -> Status:
        if not self.command:
            return Status(self.command, broken="args must not be empty")
        argv, environment, cwd = self.kubelet.inside(pod, container, self.command)
        terminal = Terminal() if self.tty else None
        ends = terminal.ends() if terminal else {
            "stdin": subprocess.PIPE if self.stdin else subprocess.DEVNULL,
            "stdout": subprocess.PIPE if self.stdout else subprocess.DEVNULL,
            "stderr": subprocess.PIPE if self.stderr else subprocess.DEVNULL,
        }  # fmt: skip
        self.kubelet.execs.add(pod["metadata"]["uid"])
        try:
            process = subprocess.Popen(
                argv_for(argv), env=environment, cwd=cwd, start_new_session=True, preexec_fn=die_with_parent, **ends,
            )  # fmt: skip
        except OSError as error:
            return Status(self.command, broken=_broken(self.command[0], error))
        self._die_with(pod, process)
        readers = self._readers(process, terminal)
        # what the client sends is read beside: the process may end first, the connection may
        threading.Thread(target=self._listen, args=[process, terminal], daemon=True).start()
        code = process.wait()
        if terminal:
            terminal.hang_up()
        for reader in readers:
            reader.join()
        return Status(self.command, 128 - code if code < 0 else code)

    def _die_with(self, pod: Obj, process: subprocess.Popen[bytes]) -> None:
        """The Pod may have gone while the command began: then nobody else ends it."""
        now = self.call.registry.read("pods", self.call.namespace, self.call.name)
        if now is None or now["metadata"]["uid"] != pod["metadata"]["uid"]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _readers(self, process: subprocess.Popen[bytes], terminal: Terminal | None) -> list[threading.Thread]:
        sources: list[tuple[int, IO[bytes]]] = []
        if terminal:
            # without stdin nothing arrives, as it was seen
            sources = [(STDOUT if self.stdin else -1, terminal.output())]
        else:
            sources = [(n, one) for n, one in ((STDOUT, process.stdout), (STDERR, process.stderr)) if one is not None]
        readers = [threading.Thread(target=self._pump, args=[n, one], daemon=True) for n, one in sources]
        for reader in readers:
            reader.start()
        return readers

    def _pump(self, channel: int, source: IO[bytes]) -> None:
        with contextlib.suppress(OSError):
            while part := os.read(source.fileno(), LARGEST_FRAME):
                if channel >= 0:
                    self._say(channel, part)

    def _listen(self, process: subprocess.Popen[bytes], terminal: Terminal | None) -> None:
        assert self.ws is not None
        into = terminal.input() if terminal else process.stdin
        while (message := self.ws.receive()) is not None:
            payload = self._plain(*message)
            channel, rest = payload[0] if payload else -1, payload[1:]
            with contextlib.suppress(OSError, ValueError):
                if channel == STDIN and into is not None:
                    into.write(rest)
                    into.flush()
                elif channel == RESIZE and terminal:
                    terminal.resize(rest)
                elif channel == CLOSE_ONE and self.protocol == V5 and rest[:1] == b"\0" and into is not None:
                    into.close()
        if terminal:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGHUP)
        elif into is not None:
            with contextlib.suppress(OSError):
                into.close()

    def _plain(self, opcode: int, payload: bytes) -> bytes:
        if opcode != TEXT or "base64" not in self.protocol or not payload:
            return payload
        return bytes([int(payload[:1])]) + base64.b64decode(payload[1:])


def _broken(program: str, error: OSError) -> str:
    began = f'unable to start container process: exec: "{program}": '
    if isinstance(error, PermissionError):
        return began + "permission denied"
    if "/" in program:
        return began + f"stat {program}: no such file or directory"
    return began + "executable file not found in $PATH"


def forward(call: Call, kubelet: Kubelet, sock: socket.socket, read: bytes) -> None:
    """Two channels a port: data 2i, error 2i+1. The first frame of each is the port, two bytes, little-endian."""
    pod = pod_of(call)
    has_a_host(call, pod)
    try:
        ports = [int(one) for each in call.values.get("ports") or [] for one in each.split(",")]
    except ValueError:
        ports = []
    if not ports:
        raise bad_request('query parameter "ports" is required')
    if ended(pod):
        raise Problem(500, "pod is not running")
    ws, _ = handshake(call, sock, read, (V4,))
    ways: dict[int, socket.socket] = {}
    threads = []
    for at, port in enumerate(ports):
        for channel in (2 * at, 2 * at + 1):
            ws.send(BINARY, bytes([channel]) + port.to_bytes(2, "little"))
        try:
            ways[2 * at] = _reach(kubelet, pod, port)
        except OSError as error:
            told = f"error forwarding port {port} to pod {pod['metadata']['name']}, uid : {error}"
            ws.send(BINARY, bytes([2 * at + 1]) + told.encode())
            continue
        threads.append(threading.Thread(target=_back, args=[ws, 2 * at, ways[2 * at]], daemon=True))
        threads[-1].start()
    if threads:
        threading.Thread(target=_close_after, args=[ws, threads], daemon=True).start()
    else:
        ws.close()
    while (message := ws.receive()) is not None:
        _, payload = message
        if payload and (way := ways.get(payload[0])) is not None:
            with contextlib.suppress(OSError):
                way.sendall(payload[1:])
    for way in ways.values():
        with contextlib.suppress(OSError):
            way.shutdown(socket.SHUT_RDWR)
        way.close()


def _reach(kubelet: Kubelet, pod: Obj, port: int) -> socket.socket:
    """Only Pods that run as local processes are reached: the addresses of others lead nowhere."""
    run = kubelet.runs.get(pod["metadata"]["uid"])
    if run is None:
        raise ConnectionRefusedError(f"dial tcp4 127.0.0.1:{port}: connect: connection refused")
    return socket.create_connection((run.ip, port), 5)


def _back(ws: WebSocket, channel: int, way: socket.socket) -> None:
    way.settimeout(None)
    with contextlib.suppress(OSError):
        while part := way.recv(LARGEST_FRAME):
            if not ws.send(BINARY, bytes([channel]) + part):
                return


def _close_after(ws: WebSocket, threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
    ws.close()
