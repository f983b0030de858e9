"""What is broken while somebody is killed: one tiny system, and every fault in every mode on it, for a moment."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from msgspec.structs import replace

from stormdrill.model.experiment import Experiment, FaultUse, Phases, Scalar
from stormdrill.model.system import Dependency, DockerSpec, Ready, Release, ServiceInstance, System

SERVER = textwrap.dedent(
    """
    import json, os, socket, sys, threading, time

    state = {"version": "stable", "seconds": 0}
    devices = os.path.join(os.environ.get("STORMDRILL_DATA", "/tmp"), "devices")
    if os.environ.get("STORMDRILL_INSTANCE", "back") == "back":
        os.makedirs(devices, exist_ok=True)
        if not os.path.exists(devices + "/gpu0"):
            open(devices + "/gpu0", "w").write("ok")

    def answer(one):
        with one, one.makefile("rwb") as file:
            while True:
                first = file.readline().split()
                if not first:
                    return
                size = 0
                while (line := file.readline().strip()):
                    if line.lower().startswith(b"content-length:"):
                        size = int(line.split(b":")[1])
                body = file.read(size)
                if first[0] != b"GET":
                    state.update(json.loads(body or b"{}"))
                lost = int(not os.path.exists(devices + "/gpu0"))
                told = f'gpu_devices{{state="ok"}} {1 - lost}\\ngpu_devices{{state="lost"}} {lost}\\n'
                text = told if first[1] == b"/metrics" else json.dumps(state)
                file.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(text) + text.encode())
                file.flush()

    def serve(one):
        try:
            answer(one)
        except (OSError, ValueError, IndexError):
            pass

    def call(host, port):
        while True:
            try:
                with socket.create_connection((host, int(port)), 1) as there:
                    while True:
                        there.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
                        if not there.recv(4096):
                            break
                        time.sleep(0.01)
            except OSError:
                time.sleep(0.01)

    for peer in filter(None, os.environ.get("STORMDRILL_PEERS_BACK", "").split(",")):
        threading.Thread(target=call, args=peer.partition("=")[2].split(":"), daemon=True).start()
    listener = socket.create_server((os.environ.get("STORMDRILL_HOST", "127.0.0.1"), int(sys.argv[1])), backlog=64)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    """
)
PHASES = Phases(0.0, 0.05, 0.25, 0.05)
Uses = tuple[FaultUse, ...]


def use(word: str, start_s: float = 0.0, for_s: float | None = None, /, **parameters: Scalar) -> FaultUse:
    return FaultUse(word, parameters, start_s, for_s)


EU_US: dict[str, Scalar] = {"from": "eu", "to": "us"}
EVERYWHERE: dict[str, Uses] = {
    "region-freeze": (use("region-loss", region="us", mode="freeze"),),
    "region-crash": (use("region-loss", region="us", mode="crash"),),
    "region-isolate": (use("region-loss", region="us", mode="isolate"),),
    "gpu-freeze": (use("gpu-pool-outage", mode="gone", how="freeze"),),
    "gpu-crash": (use("gpu-pool-outage", mode="gone", how="crash"),),
    "gpu-devices": (use("gpu-pool-outage", mode="devices"),),
    "gpu-slow": (use("gpu-pool-outage", mode="slow"),),
    "gpu-hang": (use("gpu-pool-outage", mode="hang"),),
    "gpu-cold": (use("gpu-pool-outage", mode="cold"),),
    "leak-pressure": (use("memory-leak", mode="pressure", slope="60MB/s", ceiling="40MB", instance="back"),),
    "leak-release": (use("memory-leak", mode="release", release="model", region="us"),),
    "late-delay": (use("late-dependency", name="back", delay="30ms", jitter="10ms", distribution="normal"),),
    "late-stall": (use("late-dependency", name="back", stall=True),),
    "late-trickle": (use("late-dependency", name="back", trickle="1KB/s"),),
    "late-reset": (use("late-dependency", name="back", reset=True),),
    "late-refuse": (use("late-dependency", name="back", refuse=True),),
    "late-data": (use("late-dependency", name="back", data_lag="30s"),),
    "backlog-pause": (use("queue-backlog", service="back"),),
    "backlog-slow": (use("queue-backlog", service="front", slow="30ms"),),
    "node-crash": (use("node-loss", node="n2", mode="crash"),),
    "node-freeze": (use("node-loss", instance="front", mode="freeze"),),
    "partition": (FaultUse("partition", EU_US),),
    "partition-one-way": (FaultUse("partition", {**EU_US, "one_way": True}),),
    "squeeze": (use("bandwidth-squeeze", name="back", rate="500B/s"),),
    "noisy-flood": (use("noisy-neighbour", rate="50/s", request="GET /", body=""),),
    "noisy-cpu": (use("noisy-neighbour", mode="cpu", cores=1),),
    "composed": (
        use("late-dependency", 0.0, None, name="back", delay="20ms"),
        use("gpu-pool-outage", 0.02, 0.1, mode="devices"),
        use("late-dependency", 0.03, 0.05, name="back", data_lag="30s"),
        use("memory-leak", 0.04, 0.15, mode="pressure", slope="60MB/s", ceiling="40MB", instance="front"),
        use("node-loss", 0.15, 0.08, instance="back", mode="freeze"),
    ),
}
"""On processes and on containers alike."""
CONTAINERS: dict[str, Uses] = {
    "cpu-starved": (use("cpu-starvation", cpus=0.2, service="back"),),
    "entry-isolate": (use("region-loss", region="eu", mode="isolate"),),
    "leak-victim": (
        use("memory-leak", mode="pressure", slope="60MB/s", ceiling="40MB", instance="back", victim="app"),
    ),
}
"""What processes refuse."""
ATTACHED = (
    "region-freeze",
    "region-crash",
    "leak-pressure",
    "leak-release",
    "cpu-starved",
    "entry-isolate",
)
"""What can be done to containers that were there before; there is no proxy of ours and no device file."""


def scenarios(target: str) -> Mapping[str, Uses]:
    """`target`: process, docker, attach (containers that outlive the run), or restart (of the engine itself)."""
    if target == "process":
        return EVERYWHERE
    both = EVERYWHERE | CONTAINERS
    return {name: both[name] for name in ATTACHED} if target == "attach" else both


def experiment(name: str, target: str, phases: Phases = PHASES) -> Experiment:
    uses = scenarios(target)[name]
    return Experiment(
        name=f"kills-{name}",
        title=f"Killed during {name}",
        hypothesis="nothing is left",
        owner="tests",
        system="small",
        phases=phases,
        faults=uses,
        objectives=(),
    )


def system(target: str = "process", attach: Mapping[str, str] | None = None) -> System:
    made = System(
        name="small",
        entry="front",
        instances=(_server("front", region="eu", node="n1"), _server("back", region="us", node="n2", pool="gpu")),
        labels=("region", "node", "pool"),
        dependencies=(Dependency("back", ("front",), "back", lag="/lag"),),
        releases={"model": Release("back", "/model", "leaky", "stable")},
        docker=DockerSpec(image="stormdrill-platform"),
        ready_timeout_s=20.0,
        stop_timeout_s=0.2,
    )
    if attach is None:
        return made
    found = [replace(item, port=8000, select={"small": item.name}, devices=()) for item in made.instances]
    return replace(made, instances=tuple(found), docker=DockerSpec(attach=dict(attach)), target="docker")


def _server(name: str, **labels: str) -> ServiceInstance:
    return ServiceInstance(
        name=name,
        service=name,
        command=("python", "-S", "-c", SERVER, "$port"),
        labels=labels,
        ready=Ready(path="/"),
        devices=("gpu0",) if name == "back" else (),
        memory_mb=128.0,
        cpus=1.0,
    )
