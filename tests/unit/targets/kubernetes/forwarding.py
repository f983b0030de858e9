"""An API server that knows nothing but port-forward: channels over websocket, as a kubelet speaks them."""

import base64
import contextlib
import hashlib
import re
import socket
import struct
import threading

from stormdrill.cluster.api import Api

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Plain:
    """An Access without secrets."""

    def __init__(self, server: str) -> None:
        self.server = server

    def context(self):
        return None

    def headers(self):
        return {"Authorization": "Bearer of-the-test"}

    def refresh(self):
        return False


class ForwardingServer:
    """`pods`: name → port on loopback where its one port really is; absent: 404."""

    def __init__(self) -> None:
        self.pods: dict[str, int] = {}
        self.asked: list[str] = []
        self.open = 0
        self.pieces = False
        """The port's number comes in two frames."""
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.api = Api(Plain(f"http://127.0.0.1:{self.port}"))
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        """As when the API server dies: nobody listens, and every stream breaks."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.end_streams()

    def end_streams(self) -> None:
        for sock in self._held:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._held.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(4096)
            text = head.decode()
            self.asked.append(text.split()[1])
            pod, port = re.match(r"GET /api/v1/namespaces/shop/pods/(\S+)/portforward\?ports=(\d+) ", text).groups()
            if pod not in self.pods:
                body = (
                    b'{"kind":"Status","status":"Failure","message":"pods \\"%s\\" not found","code":404}'
                    % pod.encode()
                )
                sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                return
            key = re.search(r"Sec-WebSocket-Key: (\S+)", text).group(1)
            told = base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest()).decode()  # noqa: S324
            sock.sendall(
                f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {told}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
            )
            for channel in (0, 1):
                number = struct.pack("<H", int(port))
                for piece in (number[:1], number[1:]) if self.pieces else (number,):
                    sock.sendall(frame(bytes([channel]) + piece))
            self.open += 1
            try:
                self._bridge(sock, self.pods[pod])
            finally:
                self.open -= 1

    def _bridge(self, sock: socket.socket, port: int) -> None:
        try:
            pod = socket.create_connection(("127.0.0.1", port))
        except OSError as error:
            sock.sendall(frame(b"\x01error forwarding port: " + str(error).encode()))
            sock.sendall(b"\x88\x00")
            while sock.recv(65536):  # else what is unread resets the connection, and what was said may be lost
                pass
            return

        def down() -> None:
            with contextlib.suppress(OSError):
                while data := pod.recv(65536):
                    sock.sendall(frame(b"\x00" + data))
                sock.sendall(b"\x88\x00")

        thread = threading.Thread(target=down, daemon=True)
        thread.start()
        read = sock.makefile("rb")
        with contextlib.suppress(OSError, struct.error):
            while (message := unmasked(read)) is not None:
                pod.sendall(message[1:])
        with contextlib.suppress(OSError):
            pod.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        pod.close()


def frame(payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x82, length) + payload
    if length < 65536:
        return struct.pack("!BBH", 0x82, 126, length) + payload
    return struct.pack("!BBQ", 0x82, 127, length) + payload


def unmasked(read) -> bytes | None:
    head = read.read(2)
    if len(head) < 2 or head[0] & 0x0F == 8:
        return None
    length = head[1] & 0x7F
    if length >= 126:
        length = int.from_bytes(read.read(2 if length == 126 else 8), "big")
    mask = read.read(4)
    payload = read.read(length)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


class Program:
    """What listens in a pod: does with each connection what it is told to."""

    def __init__(self, serve) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._serve = serve
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            self._serve(sock)
