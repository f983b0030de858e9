"""SIGKILL of the runner: how long until the harm is seen to be lifted. Containers where there is an engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.figure import Figure, as_installed, at_most
from stormdrill.keeper import procfs
from stormdrill.keeper.engine import ask
from stormdrill.model.undo import Clear, Engine, Exec, Signal, Undo, undo_to_json

TIMES = 20
LIMIT_S = 10.0
ENGINE = "unix:///var/run/docker.sock"
IMAGE = os.environ.get("STORMDRILL_BASE_IMAGE", "stormdrill-base:bookworm")
RUNNER = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from keeping import run_started
from stormdrill.keeper.client import KeeperClient
from stormdrill.model.undo import undo_from_json
from stormdrill.store import holds
run_dir = Path(sys.argv[1])
hold = holds.acquire("bench", "process", run_dir.name, run_dir)
keeper = KeeperClient.start(run_dir, run=run_dir.name, system="bench", target="process", hold=hold)
keeper.record(run_started(run_dir.name))
for name, undo in json.loads(sys.argv[2]).items():
    keeper.arm(name, fault="bench", instance=name, mechanism="bench", undo=[undo_from_json(undo)], expires_in_s=60.0)
print(keeper.identity.pid, flush=True)
time.sleep(60)
"""


def measure(quick: bool) -> Iterator[Figure]:
    times = 3 if quick else TIMES
    with _sleeper() as who:
        thaw = Signal("web", who.pid, who.start_ticks, who.boot_id, "SIGCONT")
        took = _all(
            times,
            [thaw],
            lambda: procfs.send(who, signal.SIGSTOP),
            lambda: procfs.frozen(who.pid, who.start_ticks),
        )
        yield at_most("revert_freeze", median(took), "s", 0.04)
    with _proxy() as (control, hops):
        tags = ["cut/a", "cut/b", "cut/c"]

        def cut() -> None:
            for tag in tags:
                body = json.dumps({"routes": hops, "kind": "cut", "expires_in_s": 60})
                assert ask(f"http://{control}", "PUT", f"/toxics/{tag.replace('/', '%2F')}", body).status == 200

        def there() -> bool:
            return ask(f"http://{control}", "GET", "/toxics").body.strip() != b"[]"

        yield at_most("revert_cut", median(_all(times, [Clear(control, tag) for tag in tags], cut, there)), "s", 0.12)
    if ask(ENGINE, "GET", f"/images/{IMAGE}/json").status != 200:
        return
    with _container() as box:
        yield from _on_containers(times, box)


def _on_containers(times: int, box: str) -> Iterator[Figure]:
    def call(path: str, body: object = None) -> None:
        heard = ask(ENGINE, "POST", path, json.dumps(body) if body else "")
        assert heard.status in (200, 201, 204), heard

    def state() -> Any:
        return json.loads(ask(ENGINE, "GET", f"/containers/{box}/json").body)

    def paused() -> bool:
        return bool(state()["State"]["Paused"])

    def off() -> bool:
        return box not in state()["NetworkSettings"]["Networks"]

    unpause = Engine(ENGINE, "POST", f"/containers/{box}/unpause")
    took = _all(times, [unpause], lambda: call(f"/containers/{box}/pause"), paused)
    yield at_most("revert_pause", median(took), "s", 0.04)
    connect = Engine(ENGINE, "POST", f"/networks/{box}/connect", json.dumps({"Container": box}))
    took = _all(times, [connect], lambda: call(f"/networks/{box}/disconnect", {"Container": box}), off)
    yield at_most("revert_disconnect", median(took), "s", 0.12)
    rules = Exec(ENGINE, box, ("iptables", "-D", "INPUT", "-s", "192.0.2.1", "-j", "DROP"))
    add = ["iptables", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP"]
    took = _all(times, [rules], lambda: _exec(box, add), lambda: _rules_in(_pid_of(state())))
    yield at_most("revert_rules", median(took), "s", 0.12)


def _all(times: int, undo: list[Undo], harm: Callable[[], object], there: Callable[[], bool]) -> list[float]:
    return [_one(undo, harm, there) for _ in range(times)]


def _one(undo: list[Undo], harm: Callable[[], object], there: Callable[[], bool]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "20260101T000000Z-bench-0000"
        run_dir.mkdir()
        armed = json.dumps({f"bench/{number}": undo_to_json(item) for number, item in enumerate(undo)})
        runner = subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(run_dir), armed],
            env={**as_installed(), "XDG_STATE_HOME": folder},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert runner.stdout is not None
        keeper = procfs.identity_of(int(runner.stdout.readline()))
        harm()
        _until(there)
        began_s = time.monotonic()
        runner.kill()
        _until(lambda: not there())
        took_s = time.monotonic() - began_s
        runner.communicate()
        _until(lambda: keeper is None or not keeper.lives)
        return took_s


def _until(holds_true: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT_S
    while not holds_true():
        if time.monotonic() > until:
            raise TimeoutError("it did not come true")
        time.sleep(0.0005)


@contextmanager
def _sleeper() -> Iterator[procfs.Identity]:
    process = subprocess.Popen(["sleep", "1000"])
    try:
        who = procfs.identity_of(process.pid)
        assert who is not None
        yield who
    finally:
        process.kill()
        process.wait()


@contextmanager
def _proxy() -> Iterator[tuple[str, list[str]]]:
    names = [f"a>{number}" for number in range(3)]
    ports = []
    for _ in names:
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    routes = [{"name": name, "listen": port, "to": "127.0.0.1:1"} for name, port in zip(names, ports, strict=True)]
    env = {**as_installed(), "STORMDRILL_PROXY": json.dumps({"control": 0, "routes": routes})}
    process = subprocess.Popen([sys.executable, "-m", "stormdrill.proxy"], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1], names
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _container() -> Iterator[str]:
    """One container on a network of its own, both of one name; without the label, so that no run owns them."""
    name = f"stormdrill-bench-{os.getpid()}"
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "1000"],
        "HostConfig": {"NetworkMode": name, "CapAdd": ["NET_ADMIN"]},
    }
    try:
        assert ask(ENGINE, "POST", "/networks/create", json.dumps({"Name": name, "Internal": True})).status == 201
        assert ask(ENGINE, "POST", f"/containers/create?name={name}", json.dumps(body)).status == 201
        assert ask(ENGINE, "POST", f"/containers/{name}/start").status == 204
        yield name
    finally:
        ask(ENGINE, "DELETE", f"/containers/{name}?force=1&v=1")
        ask(ENGINE, "DELETE", f"/networks/{name}")


def _exec(box: str, argv: list[str]) -> None:
    made = json.loads(ask(ENGINE, "POST", f"/containers/{box}/exec", json.dumps({"Cmd": argv})).body)
    assert ask(ENGINE, "POST", f"/exec/{made['Id']}/start", '{"Detach":true}').status == 200


def _pid_of(state: dict[str, dict[str, object]]) -> int:
    return int(str(state["State"]["Pid"]))


def _rules_in(pid: int) -> bool:
    """Whether a rule stands in that process's network namespace; asked from this machine, as the figure's witness."""
    argv = ["nsenter", "-t", str(pid), "-n", "iptables", "-C", "INPUT", "-s", "192.0.2.1", "-j", "DROP"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
