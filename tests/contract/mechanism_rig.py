"""One small system on either target, with a real keeper: for the laws that every mechanism keeps."""

from __future__ import annotations

import http.client
import json
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from keeping import KeptRun, kept_run
from stormdrill.api.targets import DrillTarget, make
from stormdrill.model.event import ContainerStarted, Injected, InjectStarted, ProcessSpawned
from stormdrill.model.mechanism import Beside, CpuLimit, Device, How, Pressure, Sever, Tell, Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.system import Dependency, DockerSpec, Ready, ServiceInstance, System
from stormdrill.ports import Effect
from waiting import eventually

SERVER = textwrap.dedent(
    """
    import http.server, json, os, pathlib, sys, threading, time, urllib.request

    version = "stable"
    devices = pathlib.Path(os.environ["STORMDRILL_DATA"]) / "devices"
    devices.mkdir(exist_ok=True)
    (devices / "gpu0").write_text("ok")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            lost = int(not (devices / "gpu0").exists())
            told = f'gpu_devices{{state="lost"}} {lost}\\\\ngpu_devices{{state="ok"}} {1 - lost}\\\\n'
            self.answer(told if self.path == "/metrics" else json.dumps({"version": version}))

        def do_POST(self):
            global version
            version = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["version"]
            self.answer("{}")

        def answer(self, text):
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    def call(url):
        while True:
            try:
                urllib.request.urlopen(url, timeout=0.5).read()
            except OSError:
                pass
            time.sleep(0.02)

    peers = os.environ.get("STORMDRILL_PEERS_BACK", "")
    if peers:
        threading.Thread(target=call, args=("http://" + peers.partition("=")[2] + "/",), daemon=True).start()
        threading.Thread(target=call, args=("http://back:8000/",), daemon=True).start()  # a name in containers only
    host = os.environ.get("STORMDRILL_HOST", "127.0.0.1")
    http.server.ThreadingHTTPServer((host, int(sys.argv[1])), Handler).serve_forever()
    """
)
HOPS = ("front>back",)
TELL = Tell("back", "POST", "/", '{"version": "leaky"}', "POST", "/", '{"version": "stable"}', "/", ".version == leaky")
TOXICS: dict[str, How] = {
    "delay": Toxic(HOPS, "delay", delay_ms=50.0),
    "stall": Toxic(HOPS, "stall"),
    "trickle": Toxic(HOPS, "trickle", bytes_per_s=200.0),
    "squeeze": Toxic(HOPS, "squeeze", bytes_per_s=2000.0),
    "reset": Toxic(HOPS, "reset"),
    "refuse": Toxic(HOPS, "refuse"),
    "cut": Toxic(HOPS, "cut"),
}
HOW: dict[str, How | None] = {
    "freeze": None,
    "crash": None,
    **TOXICS,
    "sever": Sever(),
    "cpu-limit": CpuLimit(0.05),
    "pressure": Pressure(mb_per_s=40.0, ceiling_mb=48.0),
    "device": Device("gpu0", "lost"),
    "tell": TELL,
    "beside": Beside("burn", ("--cores", "1")),
}
"""Each word with numbers that bite soon."""


def small_system() -> System:
    def server(name: str) -> ServiceInstance:
        command = ("python", "-c", SERVER, "$port")
        return ServiceInstance(name, name, command, ready=Ready(path="/"), devices=("gpu0",), memory_mb=128.0, cpus=1.0)

    return System(
        name="small",
        entry="front",
        instances=(server("front"), server("back")),
        dependencies=(Dependency("back", ("front",), "back"),),
        docker=DockerSpec(image="stormdrill-platform"),
        ready_timeout_s=20.0,
    )


def injection(word: str, how: How | None, name: str = "") -> Injection:
    return Injection(
        id=f"{name or 'fault'}/{word}",
        fault="fault",
        use=0,
        instance="back",
        mechanism=word,
        undo="revert",
        start_s=0.0,
        for_s=30.0,
        how=how,
    )


@dataclass
class Rig:
    target: DrillTarget
    run: KeptRun

    def harm(self, one: Injection) -> None:
        """Armed, then applied, and each told as in a drill: a keeper that foresees an end waits for it."""
        self.run.keeper.arm(
            one.id,
            fault=one.fault,
            instance=one.instance,
            mechanism=one.mechanism,
            undo=self.target.undo_of(one),
            expires_in_s=30.0,
        )
        self.run.keeper.record(InjectStarted(one.id))
        self.target.mechanisms[one.mechanism].apply(one)
        self.run.keeper.record(Injected(one.id, "done", one.mechanism, 0.0))

    def revert(self, one: Injection, cause: str = "planned") -> str:
        return self.run.keeper.revert(one.id, cause)

    def seen(self, one: Injection, wanted: Callable[[Effect], bool]) -> Effect:
        """The first look that shows it, within a limit."""
        looks: list[Effect] = []

        def look() -> bool:
            looks.append(self.target.mechanisms[one.mechanism].observe(one))
            return wanted(looks[-1])

        try:
            eventually(look)
        except AssertionError:
            raise AssertionError(f"never seen: {looks[-1]}") from None
        return looks[-1]

    def well(self) -> None:
        """Everything answers, and its inventory is known anew where something was started again."""
        self.follow()
        eventually(lambda: all(self.target.ready().values()), 15.0)

    def follow(self) -> None:
        """What the conductor does: tells the target what its keeper started."""
        for event in self.run.events(ProcessSpawned):
            self.target.respawned(event.instance, event.pid, event.start_ticks)

    def containers(self) -> list[ContainerStarted]:
        return self.run.events(ContainerStarted)


@contextmanager
def rig(word: str, runs: Path, system: System | None = None, planned: tuple[Injection, ...] = ()) -> Iterator[Rig]:
    """A system that answers, and somebody who keeps it busy; ended, and its containers removed, when left."""
    with kept_run(runs) as run:
        target = make(word, system or small_system(), run.dir, injections=planned, lasts_s=60.0)
        target.preflight()
        found = Rig(target, run)
        over = threading.Event()
        try:
            target.start(run.keeper)
            found.well()
            threading.Thread(target=_poke, args=(target, over), daemon=True).start()
            yield found
        finally:
            over.set()
            target.leave()
            assert run.keeper.teardown() == []


def _poke(target: DrillTarget, over: threading.Event) -> None:
    while not over.is_set():
        for item in target.inventory():
            with suppress(OSError, http.client.HTTPException):
                urllib.request.urlopen(f"http://{item.address}/", timeout=0.5).read()
        time.sleep(0.002)


def version_of(target: DrillTarget) -> str:
    address = next(item.address for item in target.inventory() if item.name == "back")
    with urllib.request.urlopen(f"http://{address}/", timeout=2.0) as answer:
        return str(json.load(answer)["version"])
