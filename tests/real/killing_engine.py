"""Containers in the kill sweep: what is left on an engine, containers that outlive the run, an engine on a bad day, and
one of the sweep's own that may be restarted."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from killing_scenarios import SERVER

from stormdrill.keeper import procfs
from stormdrill.keeper.engine import ask
from stormdrill.model.event import ContainerStarted, Recorded

MACHINES = "unix:///var/run/docker.sock"
BASE = os.environ.get("STORMDRILL_BASE_IMAGE", "stormdrill-base:bookworm")
OPT_IN = "kill-sweep"
SETTLED_WITHIN_S = 3.0
ENGINE_WITHIN_S = 30.0
CLONE_NEWNET = 0x40000000
Object = dict[str, object]


def why_not(engine: str = MACHINES) -> str:
    """Why nothing can be killed in containers here; empty when it can."""
    heard = ask(engine, "GET", "/version", timeout_s=10.0)
    if heard.status != 200:
        return f"no container engine answers at {engine}: {heard.error or heard.status}"
    if ask(engine, "GET", f"/images/{quote(BASE, safe='')}/json").status != 200:
        return f"there is no image {BASE}: make base-image"
    return ""


def listed(engine: str, path: str, **labels: str) -> list[Object]:
    wanted = quote(json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]}), safe="")
    heard = ask(engine, "GET", f"{path}filters={wanted}", timeout_s=10.0)
    assert heard.status == 200, f"{engine} {path}: {heard.error or heard.status}"
    found = json.loads(heard.body)
    return (found.get("Volumes") or []) if isinstance(found, dict) else found


def await_engine(engine: str) -> None:
    until_s = time.monotonic() + ENGINE_WITHIN_S
    while ask(engine, "GET", "/_ping", timeout_s=2.0).status != 200:
        assert time.monotonic() < until_s, f"{engine} doesn't come back"
        time.sleep(0.05)


# --- what is left ----------------------------------------------------------------------------------------


def left_on(engine: str, run: str, events: Sequence[Recorded]) -> list[str]:
    """Containers, networks, volumes, control groups, processes and packet rules of one run."""
    started = [item.event for item in events if isinstance(item.event, ContainerStarted) and item.event.owned]
    await_engine(engine)
    until_s = time.monotonic() + SETTLED_WITHIN_S
    while (found := list(_left(engine, run, started))) and time.monotonic() < until_s:
        time.sleep(0.05)
    return found


def _left(engine: str, run: str, started: Sequence[ContainerStarted]) -> Iterator[str]:
    for kind, path in (("container", "/containers/json?all=1&"), ("network", "/networks?"), ("volume", "/volumes?")):
        for one in listed(engine, path, stormdrill=run):
            yield f"a {kind} is left: {one.get('Names') or one.get('Name')}, {one.get('Status', '')}"
    for one in json.loads(ask(engine, "GET", "/containers/json?all=1").body):
        if run in str(one["Names"]) and one["Labels"].get("stormdrill") != run:
            yield f"a container without label is left: {one['Names']}"
    ids = [one.container for one in started]
    for number in ids:
        for controller in os.listdir("/sys/fs/cgroup"):  # noqa: PTH208
            if Path("/sys/fs/cgroup", controller, "docker", number).exists():
                yield f"a control group is left: {controller}, {number[:12]}"
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (folder / "cgroup").read_text()
            if any(number in text for number in ids) and (procfs.state(int(folder.name)) or "Z") not in "ZX":
                yield f"pid {folder.name} of a container is alive"
    ports = [one.address.rpartition(":")[2] for one in started if one.address]
    for rule in packet_rules():
        if "STORMDRILL" in rule or any(f"--dport {port} " in rule and "127.0.0.1" in rule for port in ports):
            yield f"a packet rule is left: {rule}"


def packet_rules() -> list[str]:
    """Of the network namespace in which this process is; none where it may not look."""
    if shutil.which("iptables") is None or os.geteuid():
        return []
    found = []
    for table in ("filter", "nat"):
        ran = subprocess.run(
            ["iptables", "-w", "-t", table, "-S"], capture_output=True, text=True, check=False, timeout=20
        )
        found += ran.stdout.splitlines()
    return found


# --- containers that outlive the run ---------------------------------------------------------------------


class Attached:
    """Two containers of somebody else's, on a network of theirs, which a run only borrows."""

    def __init__(self, engine: str, number: int) -> None:
        self._engine = engine
        self.label = f"{os.getpid()}-{number}"
        self.labels = {OPT_IN: self.label}
        self._network = f"{OPT_IN}-{self.label}"
        self._subnet = f"10.195.{os.getpid() % 250}.0/24"
        self._ids: dict[str, str] = {}
        self._before: dict[str, object] = {}

    def make(self) -> None:
        name = quote(self._network)
        pool = {"Config": [{"Subnet": self._subnet}]}
        self._do("POST", "/networks/create", {"Name": name, "Labels": self.labels, "IPAM": pool})
        for index, instance in enumerate(("front", "back")):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            end = {"IPAMConfig": {"IPv4Address": self._subnet.replace("0/24", str(20 + index))}, "Aliases": [instance]}
            made = self._do(
                "POST",
                f"/containers/create?name={name}-{instance}",
                {
                    "Image": BASE,
                    "Cmd": ["python3", "-S", "-c", SERVER, "8000"],
                    "Env": ["STORMDRILL_HOST=0.0.0.0", f"STORMDRILL_INSTANCE={instance}"],
                    "Labels": self.labels | {"small": instance, "region": "eu" if instance == "front" else "us"},
                    "ExposedPorts": {"8000/tcp": {}},
                    "HostConfig": {
                        "PortBindings": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]},
                        "NetworkMode": self._network,
                        "Memory": 128 << 20,
                        "MemorySwap": 128 << 20,
                    },
                    "NetworkingConfig": {"EndpointsConfig": {self._network: end}},
                },
            )
            self._ids[instance] = str(made["Id"])
            self._do("POST", f"/containers/{made['Id']}/start")
        self._before = self._settled()

    def differences(self) -> list[str]:
        """What is not as it was before any run."""
        await_engine(self._engine)
        now = self._settled()
        return [
            f"{what} of the attached containers is {now.get(what)}, and was {was}"
            for what, was in self._before.items()
            if now.get(what) != was
        ]

    def _settled(self) -> dict[str, object]:
        """Its state; looked at again while a container is only starting, and its server doesn't answer yet."""
        until_s = time.monotonic() + SETTLED_WITHIN_S
        while (found := self._state()) != self._before and time.monotonic() < until_s:
            if not self._before and all(found.values()):
                break
            time.sleep(0.05)
        return found

    def _state(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for instance, number in self._ids.items():
            one = json.loads(ask(self._engine, "GET", f"/containers/{number}/json").body)
            host, ends = one["HostConfig"], one["NetworkSettings"]["Networks"]
            found[f"status of {instance}"] = one["State"]["Status"]
            for limit in ("Memory", "MemorySwap", "CpuQuota", "NanoCpus"):
                found[f"{limit} of {instance}"] = max(0, host[limit]) or "none"
            found[f"networks of {instance}"] = {
                name: (end["IPAddress"], sorted(set(end["Aliases"] or []) - {number[:12]}))
                for name, end in ends.items()
            }
            found[f"programs in {instance}"] = self._programs(number)
            found[f"rank for the kernel of {instance}"] = self._score(one["State"]["Pid"])
            found[f"answer of {instance}"] = self._answer(one)
        return found

    def _programs(self, number: str) -> list[str]:
        heard = ask(self._engine, "GET", f"/containers/{number}/top?ps_args=-eo%20pid,comm")
        return sorted(row[-1] for row in json.loads(heard.body).get("Processes") or []) if heard.status == 200 else []

    @staticmethod
    def _score(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/oom_score_adj").read_text()
        except OSError:
            return ""

    @staticmethod
    def _answer(one: dict[str, dict[str, dict[str, list[dict[str, str]]]]]) -> str:
        ports = one["NetworkSettings"]["Ports"].get("8000/tcp") or []
        if not ports:
            return ""
        heard = ask(f"http://127.0.0.1:{ports[0]['HostPort']}", "GET", "/", timeout_s=1.0)  # type: ignore[index]
        return heard.body.decode() if heard.status == 200 else ""

    def remove(self) -> None:
        for number in self._ids.values():
            ask(self._engine, "DELETE", f"/containers/{number}?force=1&v=1", timeout_s=20.0)
        ask(self._engine, "DELETE", f"/networks/{quote(self._network)}", timeout_s=20.0)

    def _do(self, method: str, path: str, body: object = None) -> Object:
        heard = ask(self._engine, method, path, "" if body is None else json.dumps(body), timeout_s=30.0)
        assert heard.status in (200, 201, 204), f"{method} {path}: {heard.status} {heard.error} {heard.body[:300]!r}"
        return json.loads(heard.body) if heard.body else {}


# --- an engine on a bad day ------------------------------------------------------------------------------

TROUBLE = "trouble"
"""A file beside the socket: from when on, and in which way, the engine has a bad day."""
TWICE = 2
LATE_S = 0.6
_REQUEST = re.compile(rb"(POST|DELETE|PUT) (\S+) HTTP/1\.1\r\n")


def stand_between(folder: Path, engine: str) -> None:
    """Serve `folder/e.sock` for ever, passing everything on to the engine but what the trouble takes away."""
    refused: dict[bytes, int] = {}

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            client: socket.socket = self.request
            with socket.socket(socket.AF_UNIX) as there, contextlib.suppress(OSError):
                there.connect(engine.removeprefix("unix://"))
                late = threading.Event()
                threading.Thread(target=_pass_on, args=(there, client, late), daemon=True).start()
                while data := client.recv(1 << 16):
                    asked, kind = _REQUEST.match(data), _trouble(folder)
                    if asked and kind == "500" and refused.setdefault(asked[0], 0) < TWICE:
                        refused[asked[0]] += 1
                        client.sendall(b"HTTP/1.1 500 Bad\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
                        break
                    if asked and kind == "late":
                        late.set()
                    there.sendall(data)
                with contextlib.suppress(OSError):
                    there.shutdown(socket.SHUT_WR)
                    if not data:
                        time.sleep(0.01)

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

    Server(str(folder / "e.sock"), Handler).serve_forever(0.5)


def _pass_on(there: socket.socket, client: socket.socket, late: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := there.recv(1 << 16):
            if late.is_set():
                time.sleep(LATE_S)
                late.clear()
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)


def _trouble(folder: Path) -> str:
    try:
        return (folder / TROUBLE).read_text()
    except OSError:
        return ""


# --- an engine of the sweep's own ------------------------------------------------------------------------


class OwnEngine:
    """A second daemon, in a network namespace of this process's own: it may be restarted and touches no rules."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kill-sweep-engine-"))
        self.url = f"unix://{self.folder}/docker.sock"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Raises RuntimeError where it can't be had."""
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise RuntimeError("this user may not make a network namespace")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
        below = [f"--{name}={self.folder / 'containerd' / name}" for name in ("root", "state", "address")]
        self._containerd = self._begin("containerd", *below)
        self.start()
        save = ["docker", "-H", MACHINES, "save", BASE]
        load = ["docker", "-H", self.url, "load", "-q"]
        with subprocess.Popen(save, stdout=subprocess.PIPE) as saving:
            subprocess.run(load, stdin=saving.stdout, stdout=subprocess.DEVNULL, check=True, timeout=120)

    def start(self) -> None:
        self._daemon = self._begin(
            "dockerd",
            f"--host={self.url}",
            f"--containerd={self.folder / 'containerd' / 'address'}",
            f"--data-root={self.folder / 'data'}",
            f"--exec-root={self.folder / 'exec'}",
            f"--pidfile={self.folder / 'pid'}",
            "--bridge=none",
            "--shutdown-timeout=1",
        )
        await_engine(self.url)

    def _begin(self, *argv: str) -> subprocess.Popen[bytes]:
        # it is not of the run under whose feet it is restarted
        environment = {
            name: value for name, value in os.environ.items() if name not in ("STORMDRILL_KILL", "DOCKER_HOST")
        }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def end(self, number: signal.Signals) -> None:
        if self._daemon is not None:
            self._daemon.send_signal(number)
            self._daemon.wait(60)

    def restart(self, number: signal.Signals) -> None:
        self.end(number)
        (self.folder / "pid").unlink(missing_ok=True)
        self.start()

    def remove(self) -> None:
        if self._daemon is not None and self._daemon.poll() is None:
            for one in json.loads(ask(self.url, "GET", "/containers/json?all=1").body or b"[]"):
                ask(self.url, "DELETE", f"/containers/{one['Id']}?force=1&v=1", timeout_s=20.0)
            self.end(signal.SIGTERM)
        if self._containerd is not None:
            self._containerd.terminate()
            self._containerd.wait(20)
        # a daemon that was killed leaves what it had mounted, the innermost last
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([item for item in mounts if item.startswith(str(self.folder))]):
            subprocess.run(["umount", "-l", mount], check=False, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)
