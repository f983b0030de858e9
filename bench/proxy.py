"""The fault proxy beside a direct connection, in one run: what it costs, how soon a toxic bites, what stays behind.

Direct and proxied rounds alternate, so that a busy machine hurts both; the figure is the median of the rounds' shares.
Two placements: all processes on one core, and the proxy on a core of its own with caller and callee on the other.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench.figure import Figure, as_installed, at_least, at_most
from bench.proxy_ends import ANSWER, REQUEST

CONNECTIONS = 8
NAME = "bench>callee"
MANY = 10_000
MIB = 1024 * 1024
PACE_MIB = 1024
RESET = struct.pack("ii", 1, 0)


class Rig:
    """A callee, and the proxy before it, on the cores that a placement gives them."""

    def __init__(self, ends_core: int, proxy_core: int, stack: ExitStack) -> None:
        self.ends_core = ends_core
        callee = self._spawn(["bench.proxy_ends", "serve"], ends_core, stack)
        self.direct = int(_line(callee))
        self.proxied, self.busy, self.control = _free_port(), _free_port(), _free_port()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = folder / "proxy.json"
        hops = ((NAME, self.proxied), ("busy>callee", self.busy))
        routes = [{"name": name, "listen": port, "to": f"127.0.0.1:{self.direct}"} for name, port in hops]
        config.write_text(json.dumps({"control": self.control, "routes": routes}))
        proxy = self._spawn(["stormdrill.proxy", "--config", str(config)], proxy_core, stack)
        _line(proxy)
        self.proxy_pid = proxy.pid

    @staticmethod
    def _spawn(module: list[str], core: int, stack: ExitStack) -> subprocess.Popen[str]:
        argv = ["taskset", "-c", str(core), sys.executable, "-m", *module]
        process = subprocess.Popen(argv, env=as_installed(), stdout=subprocess.PIPE, text=True)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process

    def ends(self, *words: object) -> float:
        argv = ["taskset", "-c", str(self.ends_core), sys.executable, "-m", "bench.proxy_ends", *map(str, words)]
        return float(subprocess.run(argv, env=as_installed(), capture_output=True, text=True, check=True).stdout)

    def share(self, rounds: int, role: str, *words: object) -> tuple[float, float, float]:
        """Medians of: direct, proxied, and the share of each round."""
        seen = [(self.ends(role, self.direct, *words), self.ends(role, self.proxied, *words)) for _ in range(rounds)]
        return median(a for a, _ in seen), median(b for _, b in seen), median(b / a for a, b in seen)


def measure(quick: bool) -> Iterator[Figure]:
    cores = sorted(os.sched_getaffinity(0))
    rounds, for_s = (3, 0.5) if quick else (15, 0.7)
    for place, proxy_core in (("one_core", cores[0]), ("own_core", cores[-1])):
        with ExitStack() as stack:
            rig = Rig(cores[0], proxy_core, stack)
            direct, proxied, share = rig.share(rounds, "ask", CONNECTIONS, for_s)
            yield Figure(f"proxy_{place}_direct_requests", round(direct), "/s", "", None)
            yield Figure(f"proxy_{place}_requests", round(proxied), "/s", "", None)
            yield at_least(f"proxy_{place}_share_of_requests", share, "", 0.30)
            direct, proxied, share = rig.share(rounds, "stream", for_s, 0)
            yield Figure(f"proxy_{place}_direct_bandwidth", round(direct / MIB), "MiB/s", "", None)
            yield Figure(f"proxy_{place}_bandwidth", round(proxied / MIB), "MiB/s", "", None)
            name = f"proxy_{place}_share_of_bandwidth"
            apart = place == "own_core"
            yield at_least(name, share, "", 0.90) if apart else Figure(name, round(share, 4), "", "", None)
            _, _, share = rig.share(rounds, "stream", for_s, PACE_MIB * MIB)
            yield Figure(f"proxy_{place}_share_at_{PACE_MIB}_mib_per_s", round(share, 4), "", "", None)
            if apart:
                yield from _effects(rig, 5 if quick else 50)
                yield from _growth(rig, 1000 if quick else MANY)


def _effects(rig: Rig, times: int) -> Iterator[Figure]:
    """From asking the control until a caller sees it, while eight callers keep another hop of the same proxy busy."""
    argv = ["taskset", "-c", str(rig.ends_core), sys.executable, "-m", "bench.proxy_ends"]
    busy_s = str(times * 1.0)
    busy = subprocess.Popen([*argv, "ask", str(rig.busy), str(CONNECTIONS), busy_s], stdout=subprocess.DEVNULL)
    try:
        yield at_most("proxy_effect_new", median(_refused_ms(rig) for _ in range(times)), "ms", 20)
        yield at_most("proxy_effect_established", median(_reset_ms(rig) for _ in range(times)), "ms", 200)
        yield Figure(
            "proxy_effect_delay_error", round(median(_delay_error_ms(rig) for _ in range(times)), 2), "ms", "", None
        )
        yield at_most("proxy_control_answer", median(_control_ms(rig) for _ in range(times)), "ms", 2)
    finally:
        busy.kill()
        busy.wait()


def _control(rig: Rig, method: str, path: str, **body: object) -> Any:
    line = http.client.HTTPConnection("127.0.0.1", rig.control, timeout=5)
    line.request(method, path, json.dumps({"routes": [NAME], **body}) if body else None)
    answer = line.getresponse()
    said = answer.read()
    line.close()
    if answer.status != 200:
        raise RuntimeError(said.decode())
    return json.loads(said)


def _open(rig: Rig) -> socket.socket:
    end = socket.create_connection(("127.0.0.1", rig.proxied), timeout=5)
    _one(end)
    return end


def _one(end: socket.socket) -> float:
    began_s = time.monotonic()
    end.sendall(REQUEST)
    got = b""
    while len(got) < len(ANSWER):
        if not (data := end.recv(4096)):
            raise RuntimeError("the answer ended early")
        got += data
    return (time.monotonic() - began_s) * 1000


def _refused_ms(rig: Rig) -> float:
    began_s = time.monotonic()
    _control(rig, "PUT", "/toxics/bench", kind="refuse", expires_in_s=5)
    while True:
        try:
            socket.create_connection(("127.0.0.1", rig.proxied), timeout=5).close()
        except ConnectionRefusedError:
            break
    took_ms = (time.monotonic() - began_s) * 1000
    _control(rig, "DELETE", "/toxics/bench")
    return took_ms


def _reset_ms(rig: Rig) -> float:
    with _open(rig) as end:
        began_s = time.monotonic()
        _control(rig, "PUT", "/toxics/bench", kind="reset", expires_in_s=5)
        try:
            end.recv(1)
            raise RuntimeError("an orderly end where a reset was asked for")
        except ConnectionResetError:
            took_ms = (time.monotonic() - began_s) * 1000
    _control(rig, "DELETE", "/toxics/bench")
    return took_ms


def _delay_error_ms(rig: Rig) -> float:
    """How much later than asked an answer comes, on a connection that was open before."""
    with _open(rig) as end:
        plain_ms = median(_one(end) for _ in range(5))
        _control(rig, "PUT", "/toxics/bench", kind="delay", delay_ms=50, expires_in_s=5)
        slow_ms = _one(end)
        _control(rig, "DELETE", "/toxics/bench")
    if slow_ms < 50:
        raise RuntimeError(f"a delay of 50 ms took {slow_ms} ms")
    return slow_ms - plain_ms - 50


def _control_ms(rig: Rig) -> float:
    began_s = time.monotonic()
    _control(rig, "GET", "/routes")
    return (time.monotonic() - began_s) * 1000


def _growth(rig: Rig, count: int) -> Iterator[Figure]:
    """Connections one after the other, every second one ended by a reset; the first tenth only warms up."""
    _churn(rig, count // 10)
    before = _resident(rig)
    _churn(rig, count)
    after = _resident(rig)
    yield Figure("proxy_connections_made", count, "", "", None)
    yield at_most("proxy_growth", max(0.0, (after[0] - before[0]) / MIB), "MiB", 1.0)
    yield at_most("proxy_descriptors_left", after[1] - before[1], "", 0)


def _churn(rig: Rig, count: int) -> None:
    for number in range(count):
        with _open(rig) as end:
            if number % 2:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _resident(rig: Rig) -> tuple[int, int]:
    """Bytes and descriptors, once every connection has been closed."""
    until_s = time.monotonic() + 5
    while any(hop["open"] for hop in _control(rig, "GET", "/routes")) and time.monotonic() < until_s:
        time.sleep(0.02)
    pages = int(Path(f"/proc/{rig.proxy_pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), _descriptors(rig)


def _descriptors(rig: Rig) -> int:
    """The least that is seen in a fifth of a second: the question before may not have been closed yet."""
    seen = []
    for _ in range(10):
        seen.append(sum(1 for _ in Path(f"/proc/{rig.proxy_pid}/fd").iterdir()))
        time.sleep(0.02)
    return min(seen)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()
