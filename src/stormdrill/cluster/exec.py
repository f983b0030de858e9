"""A program run in a container of a pod, and streams to a pod: a small websocket client, standard library only."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from stormdrill.cluster.api import LIMIT_S, Api, Lost
from stormdrill.cluster.websocket import Refusal as Refusal
from stormdrill.cluster.websocket import Stream as Stream
from stormdrill.cluster.websocket import connect

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""The second for API servers before 1.30: there the program's input can't be ended."""
STDIN, STDOUT, STDERR, STATUS = 0, 1, 2, 3
PIECE = 32_768
KEPT_OUTPUT = 1_000_000
"""Bytes of each channel; what comes after is read and dropped."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that has ended."""

    code: int
    out: bytes
    err: bytes


@dataclass(frozen=True, slots=True)
class Exec:
    """Runs programs in containers of one cluster. By GET, for which the right `get` on pods/exec is needed; since
    Kubernetes 1.35 `create` as well."""

    api: Api

    def run(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        stdin: bytes = b"",
        limit_s: float = LIMIT_S,
    ) -> Ran:
        """Start the program and wait for its end. Raises Refusal when it was not started, Lost when it is not known
        to have ended within the limit: it may run on."""
        until_s = time.monotonic() + limit_s
        stream = self.open(namespace, pod, container, argv, stdin=bool(stdin), limit_s=limit_s)
        kept = {STDOUT: bytearray(), STDERR: bytearray()}
        try:
            if stdin:  # beside the reading: a program that answers at once would make both wait
                threading.Thread(target=_feed, args=(stream, stdin, limit_s), daemon=True).start()
            while (left_s := until_s - time.monotonic()) > 0 and not stream.ended:
                heard = stream.receive(left_s)
                if heard is None:
                    continue
                channel, data = heard
                if channel == STATUS:
                    return Ran(exit_code(data), bytes(kept[STDOUT]), bytes(kept[STDERR]))
                if (sink := kept.get(channel)) is not None:
                    sink += data[: KEPT_OUTPUT - len(sink)]
            cut = stream.ended
        finally:
            stream.close()
        why = "the stream ended without its exit code" if cut else f"it has not ended within {limit_s:g} s"
        raise Lost(f"exec in {namespace}/{pod}: {why}", sent=True)

    def open(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bool = True,
        limit_s: float = LIMIT_S,
    ) -> Stream:
        """Start the program; what it says comes on the channels 1 and 2, how it ended on 3 (`exit_code`)."""
        query = [("command", word) for word in argv]
        query += [("container", container), ("stdout", "true"), ("stderr", "true")]
        query += [("stdin", "true")] if stdin else []
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        return connect(self.api.access, path, urlencode(query), PROTOCOLS, limit_s)


def _feed(stream: Stream, stdin: bytes, limit_s: float) -> None:
    with contextlib.suppress(Lost):  # it may have ended without reading: its exit code tells
        for at in range(0, len(stdin), PIECE):
            stream.send(stdin[at : at + PIECE], limit_s=limit_s)
        stream.finish()


def exit_code(status: bytes) -> int:
    """Of the Status that ends a program. Raises Refusal when it tells that the program was not started."""
    try:
        read = json.loads(status)
    except ValueError:
        raise Refusal(0, status[:200].decode("utf-8", "replace")) from None
    if not isinstance(read, Mapping) or read.get("status") == "Success":
        return 0
    causes = (read.get("details") or {}).get("causes") or ()
    for cause in causes:
        if cause.get("reason") == "ExitCode":
            return int(cause.get("message", 255))
    raise Refusal(int(read.get("code") or 0), str(read.get("message", "the program was not started")))
