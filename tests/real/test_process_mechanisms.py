"""Every mechanism of the process target on real processes: it bites, a witness sees it, the keeper takes it back."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from test_conductor import Rig, lives

from stormdrill.errors import KeeperGone
from stormdrill.keeper import procfs
from stormdrill.model import event as ev
from stormdrill.model.experiment import Experiment, FaultUse, Phases
from stormdrill.model.system import Dependency, Ready, Release, ServiceInstance, System
from waiting import eventually

pytestmark = pytest.mark.real

SERVER = textwrap.dedent(
    """
    import http.client, http.server, json, os, pathlib, sys, threading, time

    state = {"version": "stable", "seconds": 0}
    devices = pathlib.Path(os.environ["STORMDRILL_DATA"], "devices")
    if "gpu" in os.environ["STORMDRILL_INSTANCE"]:
        devices.mkdir(exist_ok=True)
        for name in ("gpu0", "gpu1"):
            (devices / name).write_text("ok\\n")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/metrics" and devices.exists():
                lost = 2 - len(list(devices.iterdir()))
                self.answer(f'gpu_devices{{state="ok"}} {2 - lost}\\ngpu_devices{{state="lost"}} {lost}\\n'.encode())
            else:
                self.answer(json.dumps(state).encode())

        def do_POST(self):
            state.update(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))
            self.answer(b"{}")

        do_PUT = do_POST

        def log_message(self, *args):
            pass

    def call(peer):
        while True:
            try:
                there = http.client.HTTPConnection(*peer.split("=")[1].split(":"), timeout=5)
                while True:
                    there.request("GET", "/")
                    there.getresponse().read()
                    time.sleep(0.02)
            except OSError:
                time.sleep(0.02)

    for peer in filter(None, os.environ.get("STORMDRILL_PEERS_STORE", "").split(",")):
        threading.Thread(target=call, args=(peer,), daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
)


def instance(name: str, service: str, **labels: str) -> ServiceInstance:
    return ServiceInstance(
        name=name,
        service=service,
        command=(sys.executable, "-c", SERVER, "$port"),
        labels=labels,
        ready=Ready(path="/"),
        devices=("gpu0", "gpu1") if service == "gpu" else (),
    )


SYSTEM = System(
    name="small",
    entry="web",
    instances=(
        instance("web-eu", "web", region="eu"),
        instance("web-us", "web", region="us"),
        instance("store-eu", "store", region="eu"),
        instance("gpu-us", "gpu", region="us", pool="gpu"),
    ),
    labels=("region", "pool"),
    dependencies=(Dependency("store", ("web",), "store", lag="/lag"),),
    releases={"store": Release("store", "/releases/store", "leaky", "stable")},
    ready_timeout_s=10.0,
)
PHASES = Phases(0.0, 0.2, 1.6, 0.1)


def drill(*uses: FaultUse, phases: Phases = PHASES) -> Experiment:
    return Experiment(
        name="small",
        title="Faults on a small system",
        hypothesis="all of them are felt and taken back",
        owner="tests",
        system="small",
        phases=phases,
        faults=uses,
        objectives=(),
    )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*uses: FaultUse, phases: Phases = PHASES, system: System = SYSTEM) -> Rig:
        made.append(Rig(tmp_path / f"run-{len(made)}", system, drill(*uses, phases=phases)))
        return made[-1]

    yield make
    for one in made:
        if not one.conductor.state.ended and one.keeper.identity.lives:
            one.keeper.teardown()
            one.keeper.close("failed", "the test ended it")


def use(word: str, start_s: float = 0.0, for_s: float | None = None, **parameters: object) -> FaultUse:
    return FaultUse(word, parameters, start_s, for_s)  # type: ignore[arg-type]


def bites(it: Rig) -> dict[str, str]:
    return {item.event.injection: item.event.witness for item in it.events(ev.EffectObserved)}  # type: ignore[attr-defined]


def test_faults_of_five_kinds_overlap_and_each_is_seen_and_taken_back(rig: Callable[..., Rig]) -> None:
    """Two of them on one instance: its hop is delayed, then it is frozen, and thawed while the delay lasts."""
    it = rig(
        use("late-dependency", name="store", delay="40ms", callers="web"),
        use("gpu-pool-outage", 0.1, mode="devices", share="50%"),
        use("node-loss", 0.3, 0.6, instance="web-eu", mode="freeze"),
        use("memory-leak", 0.2, mode="pressure", slope="60MB/s", ceiling="64MB", instance="web-us"),
        use("late-dependency", 0.2, 1.0, name="store", data_lag="30s"),
    )
    assert it.run() == "completed", it.conductor.state
    (device,) = [item.id for item in it.plan.injections if item.mechanism == "device"]
    assert bites(it) == {
        "late-dependency/store-eu": "the fault proxy",
        device: "its own metric gpu_devices",
        "node-loss-3/web-eu": "process state",
        "memory-leak-4/web-us": "the kernel's account",
        "late-dependency-5/store-eu": "GET /lag of store-eu",
    }
    gone = [item.event.injection for item in it.events(ev.RevertVerified) if item.event.gone]  # type: ignore[attr-defined]
    assert sorted(gone) == sorted(item.id for item in it.plan.injections)
    assert {path.read_text() for path in (it.run_dir / "work" / "gpu-us" / "devices").iterdir()} == {"ok\n"}
    assert it.alive() == []
    assert procfs.marked("r") == []


def toxic(kind: str) -> FaultUse:
    said = {"delay": {"delay": "30ms"}, "trickle": {"trickle": "2KB/s"}}.get(kind, {kind: True})
    return use("late-dependency", name="store", for_s=0.3, **said)


def test_every_way_of_being_late_is_seen_by_the_proxy_and_removed(rig: Callable[..., Rig]) -> None:
    """One after the other, then cut and squeezed at the same time on the same hops: they stack."""
    kinds = ("delay", "stall", "trickle", "reset", "refuse")
    uses = [replace(toxic(kind), start_s=0.4 * n) for n, kind in enumerate(kinds)]
    line = {"from": "eu", "to": "us", "label": "region"}
    uses.append(FaultUse("bandwidth-squeeze", {"rate": "1KB/s", "name": "store"}, 2.0, 0.5))
    uses.append(FaultUse("partition", {**line, "from": "us", "to": "eu"}, 2.1, 0.4))
    it = rig(*uses, phases=Phases(0.0, 0.2, 2.6, 0.1))
    assert it.run() == "completed"
    assert set(bites(it)) == {item.id for item in it.plan.injections}
    assert set(bites(it).values()) == {"the fault proxy"}
    gone = {item.event.injection for item in it.events(ev.RevertVerified) if item.event.gone}  # type: ignore[attr-defined]
    assert gone == set(bites(it))


def test_a_toxic_on_a_hop_that_nobody_uses_is_no_effect(rig: Callable[..., Rig]) -> None:
    idle = replace(SYSTEM, dependencies=(*SYSTEM.dependencies, Dependency("spare", ("gpu",), "store")))
    it = rig(use("late-dependency", name="spare", delay="1s"), phases=Phases(0.0, 0.1, 0.5, 0.0), system=idle)
    assert it.run() == "completed"
    assert bites(it) == {}
    assert [item.event.outcome for item in it.events(ev.Injected)] == ["done"]  # type: ignore[attr-defined]


def test_programs_beside_the_system_flood_and_burn_and_leave_nothing(rig: Callable[..., Rig]) -> None:
    it = rig(
        use("noisy-neighbour", rate="50/s", request="GET /", body=""),
        use("noisy-neighbour", mode="cpu", cores=2),
        use("memory-leak", mode="release", release="store", region="eu"),
    )
    assert it.run() == "completed"
    assert sorted(bites(it).values()) == [
        "GET /releases/store of store-eu",
        "answers to the flood",
        "the kernel's account",
    ]
    ended = {item.event.instance: item.event.expected for item in it.events(ev.ProcessExited)}  # type: ignore[attr-defined]
    assert [ended[name] for name in ended if name.startswith("beside.")] == [True, True]
    assert procfs.marked("r") == []


def test_a_device_that_was_lost_before_is_not_ours_to_bring_back(rig: Callable[..., Rig]) -> None:
    it = rig(use("gpu-pool-outage", mode="hang"), phases=Phases(0.0, 0.3, 0.3, 0.0))
    lost = it.run_dir / "work" / "gpu-us" / "devices" / "gpu0"
    it.seen["phase-entered"] = lost.unlink
    assert it.run() == "completed"
    outcomes = {item.event.injection: item.event.outcome for item in it.events(ev.Injected)}  # type: ignore[attr-defined]
    assert outcomes == {"gpu-pool-outage/gpu-us.gpu0": "failed", "gpu-pool-outage/gpu-us.gpu1": "done"}
    assert not lost.exists()
    assert (lost.parent / "gpu1").read_text() == "ok\n"


@pytest.mark.parametrize("moment", ["inject-started", "injected"])
def test_a_crash_that_is_taken_back_at_once_is_taken_back_by_the_first_revert(
    rig: Callable[..., Rig], moment: str
) -> None:
    """What was killed a moment ago is no process that lives: its threads only haven't ended yet."""
    it = rig(use("node-loss", instance="web-eu"))
    it.seen[moment] = lambda: it.conductor.abort("person", "changed their mind")
    assert it.run() == "aborted"
    first, *more = [item.event.outcome for item in it.events(ev.Reverted)]  # type: ignore[attr-defined]
    assert first == "done"
    # what answers, or is seen to bite, after the revert is reverted once more, for it may have harmed late
    assert more in ([], ["superseded"])
    assert it.events(ev.RevertVerified)[-1].event.gone  # type: ignore[attr-defined]


def test_what_stands_beside_dies_with_the_keeper(rig: Callable[..., Rig]) -> None:
    """Nobody is left to end it: the kernel does."""
    it = rig(use("memory-leak", mode="pressure", instance="web-us"), use("noisy-neighbour", mode="cpu", cores=2))
    spawned: list[int] = []

    def kill() -> None:
        spawned.extend(who.pid for who in procfs.marked("r"))
        os.kill(it.keeper.identity.pid, signal.SIGKILL)

    it.seen["effect-observed"] = kill
    with pytest.raises(KeeperGone):
        it.run()
    eventually(lambda: not any(lives(pid) for pid in spawned))
    assert len(spawned) > len(SYSTEM.instances), "the programs beside it were among them"
