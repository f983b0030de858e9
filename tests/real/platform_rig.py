"""Starts the reference platform by its own system file, with our proxy on every hop, and puts jobs through it.

For the platform's own tests: no keeper, no target. Everything started here is ended here, by its own pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from stormdrill.model.system import ServiceInstance
from stormdrill.spec.system import read_system
from stormdrill.targets.process.wiring import FreePorts, wire

SYSTEM = Path(__file__).parents[2] / "experiments" / "systems" / "platform.yaml"
READY_LIMIT_S = 30.0
PEAK = (  # loadgen/peak.yaml: share, kind, tier, deadline in ms, residency
    (0.35, "api", 1, 1000, None),
    (0.15, "inference", 1, 1500, None),
    (0.14, "inference", 2, 2000, None),
    (0.12, "report", 2, 3000, None),
    (0.14, "batch", 3, 30000, None),
    (0.01, "training", 3, 30000, None),
    (0.03, "inference", 2, 2000, "eu"),
    (0.03, "inference", 2, 2000, "us"),
    (0.015, "batch", 3, 30000, "eu"),
    (0.015, "batch", 3, 30000, "us"),
)

ACCEPTED = ("batch", "training")
"""Nobody waits for these."""


def until(true: Callable[[], bool], limit_s: float, what: str) -> float:
    """Wait for a condition within a limit; returns how long it took."""
    began_s = time.monotonic()
    while not true():
        if time.monotonic() - began_s > limit_s:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began_s


def get(url: str, limit_s: float = 2.0) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=limit_s) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def post(url: str, body: object = None, limit_s: float = 5.0) -> tuple[int, dict[str, object], Mapping[str, str]]:
    return send("POST", url, body, limit_s)


def send(
    method: str, url: str, body: object = None, limit_s: float = 5.0
) -> tuple[int, dict[str, object], Mapping[str, str]]:
    data = json.dumps(body if body is not None else {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=limit_s) as response:  # noqa: S310
            return response.status, json.loads(response.read() or b"{}"), response.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}"), error.headers


@dataclass
class Platform:
    work: Path
    instances: dict[str, ServiceInstance]
    ports: dict[str, int]
    environment: dict[str, dict[str, str]]
    control_port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def spawn(self, name: str) -> None:
        item = self.instances[name]
        env = {**os.environ, **item.env, **self.environment[name], "STORMDRILL_DATA": str(self.work / name)}
        (self.work / name).mkdir(exist_ok=True)
        with (self.work / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen([sys.executable, *item.command[1:]], env=env, stdout=log, stderr=log)

    def toxic(self, kind: str, caller: str, callee: str, **numbers: object) -> None:
        """On every hop from the instances of one service to those of another, until `heal`."""
        hops = (route["name"].split(">") for route in json.loads(get(f"{self.proxy_url}/routes")[1]))
        routes = [">".join(hop) for hop in hops if hop[0].startswith(caller) and hop[1].startswith(callee)]
        status, said, _ = send("PUT", f"{self.proxy_url}/toxics/{kind}", {"routes": routes, "kind": kind, **numbers})
        assert status == 200, said

    def heal(self) -> None:
        assert send("DELETE", f"{self.proxy_url}/toxics")[0] == 200

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    def device(self, region: str, number: int) -> Path:
        """The file that is a GPU device."""
        return self.work / f"gpu-{region}" / "devices" / f"gpu{number}"

    def alerts(self, edge: str = "edge-1") -> set[str]:
        """Those that fire, each with its region after a dash."""
        lines = get(f"{self.url(edge)}/alerts")[1].splitlines()
        found = [dict(re.findall(r'(\w+)="([^"]*)"', line)) for line in lines if line.startswith("ALERTS{")]
        return {"-".join(filter(None, (one["alertname"], one.get("region")))) for one in found}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def of(self, **labels: str) -> list[str]:
        """Instances with these labels."""
        return [name for name, item in self.instances.items() if labels.items() <= item.labels.items()]

    @property
    def edges(self) -> list[str]:
        return [name for name, item in self.instances.items() if item.service == "edge"]

    @property
    def gateways(self) -> list[str]:
        return [name for name, item in self.instances.items() if item.service == "gateway"]

    def answers(self, name: str, limit_s: float = 1.0) -> bool:
        return get(f"{self.url(name)}/healthz", limit_s)[0] == 200

    def ready(self) -> None:
        for name in self.instances:
            until(lambda name=name: self.answers(name), READY_LIMIT_S, f"{name} answers")
        for gateway in self.gateways:
            until(lambda gateway=gateway: self.serves(gateway), READY_LIMIT_S, f"{gateway} serves")

    def serves(self, gateway: str) -> bool:
        status, body = get(f"{self.url(gateway)}/healthz", 0.5)
        return status == 200 and bool(json.loads(body)["ready"])

    def freeze(self, names: Sequence[str]) -> None:
        for name in names:
            self.running[name].send_signal(signal.SIGSTOP)

    def thaw(self, names: Sequence[str]) -> None:
        for name in names:
            self.running[name].send_signal(signal.SIGCONT)

    def crash(self, names: Sequence[str]) -> None:
        for name in names:
            self.running[name].kill()
        for name in names:
            self.running[name].wait()

    def respawn(self, names: Sequence[str]) -> None:
        for name in names:
            self.spawn(name)

    def ledger(self) -> dict[str, list[dict[str, object]]]:
        """Job → what each region says of it."""
        rows: dict[str, list[dict[str, object]]] = {}
        for gateway in self.gateways:
            status, body = get(f"{self.url(gateway)}/ledger", 10.0)
            assert status == 200, f"{gateway} shows no ledger"
            for line in body.splitlines():
                row = json.loads(line)
                rows.setdefault(str(row["id"]), []).append(row)
        return rows

    def metric(self, name: str, sample: str) -> float:
        """The sum over the labels of one sample."""
        lines = get(f"{self.url(name)}/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == sample)

    def stop(self) -> dict[str, float]:
        """End everything that was started; returns how long each took, in seconds."""
        began_s = time.monotonic()
        took: dict[str, float] = {}
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for name, process in self.running.items():
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            took[name] = time.monotonic() - began_s
        return took


@contextlib.contextmanager
def platform(work: Path, bug: str = "none") -> Iterator[Platform]:
    """A running platform whose every region serves."""
    work.mkdir(parents=True, exist_ok=True)
    system = read_system(SYSTEM, {"bug": bug})
    free = FreePorts()
    wiring = wire(system, free)
    free.release()
    environment = {
        item.name: {
            "STORMDRILL_INSTANCE": item.name,
            "STORMDRILL_PORT": str(wiring.ports[item.name]),
            **wiring.peers[item.name],
        }
        for item in system.instances
    }
    instances = {item.name: item for item in system.instances}
    it = Platform(work, instances, wiring.ports, environment, wiring.control_port)
    config = work / "proxy.json"
    routes = [{"name": hop.name, "listen": hop.listen, "to": hop.to} for hop in wiring.hops]
    config.write_text(json.dumps({"control": wiring.control_port, "routes": routes}))
    try:
        with (work / "proxy.log").open("wb") as log:
            it.running["proxy"] = subprocess.Popen(
                [sys.executable, "-m", "stormdrill.proxy", "--config", str(config)], stdout=log, stderr=log
            )
        for name in instances:
            it.spawn(name)
        it.ready()
        yield it
    finally:
        it.stop()
        free.close()


@dataclass
class Answered:
    """One request's story; status 0: no answer."""

    id: str
    kind: str
    tier: int
    intended_s: float
    """Since the load began."""
    residency: str | None = None
    status: int = 0
    took_s: float = 0.0
    deadline_s: float = 0.0
    body: bytes = b""

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300 and self.took_s <= self.deadline_s


async def _one(session: aiohttp.ClientSession, url: str, asked: Answered, began_s: float) -> None:
    job = {
        "id": asked.id, "kind": asked.kind, "tier": asked.tier, "deadline_ms": asked.deadline_s * 1000,
        "wait": asked.kind not in ACCEPTED, "residency": asked.residency,
    }  # fmt: skip
    try:
        limit = aiohttp.ClientTimeout(total=asked.deadline_s if asked.kind not in ACCEPTED else 3.0)
        async with session.post(f"{url}/jobs", json=job, timeout=limit) as response:
            asked.body = await response.read()
            asked.status = response.status
    except (aiohttp.ClientError, TimeoutError):
        asked.status = 0
    asked.took_s = time.monotonic() - began_s - asked.intended_s


async def load(
    it: Platform, rate_per_s: float, for_s: float, seed: int, at: Mapping[float, Callable[[], None]] | None = None
) -> list[Answered]:
    """Open-loop Poisson arrivals of the peak mix, alternating over the edges; `at` runs things meanwhile."""
    rng = random.Random(seed)
    asked: list[Answered] = []
    clock_s = 0.0
    while (clock_s := clock_s + rng.expovariate(rate_per_s)) < for_s:
        _, kind, tier, deadline_ms, residency = rng.choices(PEAK, [stream[0] for stream in PEAK])[0]
        number = len(asked)
        asked.append(Answered(f"{seed}-{number}", kind, tier, clock_s, residency, deadline_s=deadline_ms / 1000))
    urls = [it.url(edge) for edge in it.edges]
    began_s = time.monotonic()
    todo = sorted((at or {}).items())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = []
        for number, one in enumerate(asked):
            while todo and todo[0][0] <= one.intended_s:
                todo.pop(0)[1]()
            await asyncio.sleep(max(0.0, began_s + one.intended_s - time.monotonic()))
            tasks.append(asyncio.create_task(_one(session, urls[number % len(urls)], one, began_s)))
        for _, late in todo:
            late()
        await asyncio.gather(*tasks)
    return asked


def run_load(
    it: Platform, rate_per_s: float, for_s: float, seed: int, at: Mapping[float, Callable[[], None]] | None = None
) -> list[Answered]:
    return asyncio.run(load(it, rate_per_s, for_s, seed, at))


def share_good(
    asked: Sequence[Answered], tier: int | None = None, after_s: float = 0.0, before_s: float = 1e9
) -> float:
    chosen = [one for one in asked if (tier is None or one.tier == tier) and after_s <= one.intended_s < before_s]
    return sum(one.good for one in chosen) / len(chosen)


def lost_and_doubled(
    it: Platform, asked: Sequence[Answered], drain_limit_s: float = 20.0
) -> tuple[list[str], list[str]]:
    """Acknowledged jobs that no region has done, and jobs that were done more than once, once all queues are empty."""
    acknowledged = [one.id for one in asked if 200 <= one.status < 300]

    def done() -> bool:
        return all(sum(int(str(row["done"])) for row in rows.get(job, [])) >= 1 for job in acknowledged)

    began_s = time.monotonic()
    rows = it.ledger()
    while not done() and time.monotonic() - began_s < drain_limit_s:
        time.sleep(0.2)
        rows = it.ledger()
    counts = {job: sum(int(str(row["done"])) for row in found) for job, found in rows.items()}
    lost = [job for job in acknowledged if counts.get(job, 0) == 0]
    doubled = [job for job, count in counts.items() if count > 1]
    return lost, doubled
