"""The docker target with a real engine: what is made, what is told of it, what is cut, and what is found running."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from base_image import base_image
from keeping import kept_run
from waiting import eventually

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from mechanism_rig import Rig, injection, rig, small_system

from stormdrill.api.targets import make
from stormdrill.errors import Refused
from stormdrill.faults.builtin import BUILTIN
from stormdrill.keeper.engine import ask
from stormdrill.model.event import ContainerEvent, ContainerStarted, ResourcesClaimed
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Pressure, Sever
from stormdrill.model.system import Dependency, DockerSpec, Ready, ServiceInstance, System

pytestmark = pytest.mark.docker
BIG = (
    "import http.server as h, sys; held = b'x' * (80 << 20); "
    "h.ThreadingHTTPServer(('', int(sys.argv[1])), h.SimpleHTTPRequestHandler).serve_forever()"
)
CUT = injection("sever", Sever(peers=("front",)), "partition")


@pytest.fixture(scope="module")
def small(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with rig("docker", tmp_path_factory.mktemp("runs"), planned=(CUT,)) as found:
            yield found


def container(engine: str, name: str) -> dict[str, dict[str, object]]:
    heard = ask(engine, "GET", f"/containers/{name}/json")
    assert heard.status == 200, heard
    return cast("dict[str, dict[str, object]]", json.loads(heard.body))


def started(small: Rig, instance: str) -> ContainerStarted:
    return [item for item in small.containers() if item.instance == instance][-1]


def events(small: Rig, instance: str) -> list[ContainerEvent]:
    return [item for item in small.run.events(ContainerEvent) if item.instance == instance]


def test_everything_is_claimed_by_name_before_the_first_of_it_is_made(small: Rig) -> None:
    words = small.run.words()
    assert words.index("resources-claimed") < words.index("container-started")
    claimed = small.run.events(ResourcesClaimed)[0]
    assert {item.name for item in small.containers()} <= set(claimed.containers)
    assert claimed.networks == [f"stormdrill-{small.run.dir.name}"]


def test_a_container_is_confined_limited_labelled_and_published_on_loopback_only(small: Rig, engine: str) -> None:
    for instance in ("front", "back", "proxy"):
        found = container(engine, started(small, instance).container)
        host, config = found["HostConfig"], found["Config"]
        labels = cast("dict[str, str]", config["Labels"])
        assert (labels["stormdrill"], labels["stormdrill.instance"]) == (small.run.dir.name, instance)
        assert labels["stormdrill.expires"] > "2026"
        assert host["CapDrop"] == ["ALL"]
        assert host["ReadonlyRootfs"]
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert cast("dict[str, str]", host["RestartPolicy"])["Name"] in ("no", "")
        bound = [one for many in cast("dict[str, list[dict[str, str]]]", host["PortBindings"]).values() for one in many]
        assert {one["HostIp"] for one in bound} == {"127.0.0.1"}
        assert (host["PidsLimit"], host["DnsOptions"]) == (256, ["ndots:0"])
    for instance, megabytes, cpu_quota in (("back", 128, 100_000), ("proxy", 512, 100_000), ("back.net", 64, 0)):
        limits = container(engine, started(small, instance).container)["HostConfig"]
        assert (limits["Memory"], limits["MemorySwap"]) == (megabytes << 20, megabytes << 20)
        assert limits["CpuQuota"] == cpu_quota


def test_an_instance_writes_its_data_into_the_run_directory(small: Rig) -> None:
    assert (small.run.dir / "work/back/devices/gpu0").read_text() == "ok"


def test_packet_rules_cut_one_peer_off_and_leave_the_others(small: Rig, engine: str) -> None:
    small.harm(CUT)
    bitten = small.seen(CUT, lambda effect: effect.bit)
    assert "dropped" in bitten.detail
    address = started(small, "back").address
    with urllib.request.urlopen(f"http://{address}/", timeout=2.0) as answer:
        assert answer.status == 200  # the host still reaches it
    assert small.revert(CUT) == "done"
    small.seen(CUT, lambda effect: effect.gone)
    assert small.revert(CUT, "again") == "done"
    small.well()


def test_an_isolated_region_with_its_entry_is_reached_by_nobody_and_reaches_nobody(engine: str, tmp_path: Path) -> None:
    front, back = small_system().instances
    near = msgspec.structs.replace(back, name="near", service="near")
    here = [msgspec.structs.replace(one, labels={"region": "eu"}) for one in (front, near)]
    system = msgspec.structs.replace(small_system(), instances=(*here, back))
    world = make("docker", system, tmp_path).world()
    use = FaultUse("region-loss", {"region": "eu", "mode": "isolate"})
    isolation = BUILTIN["region-loss"].plan(use, 0, world, 30.0)
    with rig("docker", tmp_path, system, isolation) as small:
        eventually(lambda: carried(small) > 0)
        for one in isolation:
            small.harm(one)
        for one in isolation:
            small.seen(one, lambda effect: effect.bit)
        assert small.target.ready()["back"]
        before = carried(small)
        for name in ("front", "near"):
            with pytest.raises(OSError, match="timed out"):
                urllib.request.urlopen(f"http://{started(small, name).address}/", timeout=1.0)
        assert carried(small) == before, "its hops across the border are cut, though they lead to the proxy"
        for one in isolation:
            assert small.revert(one) == "done"
            small.seen(one, lambda effect: effect.gone)
        small.well()
        eventually(lambda: carried(small) > before)


def carried(small: Rig) -> int:
    """Bytes that were answered by way of the proxy."""
    with urllib.request.urlopen(f"http://{started(small, 'proxy').address}/routes", timeout=2.0) as answer:
        return sum(route["bytes_down"] for route in json.load(answer))


def test_packet_rules_cut_an_instance_that_was_started_again_and_end_with_the_network_that_it_had(small: Rig) -> None:
    crash = injection("crash", None, "before")
    small.harm(crash)
    small.seen(crash, lambda effect: effect.bit)
    assert small.revert(crash) == "done"
    small.well()
    cut = msgspec.structs.replace(CUT, id="again/sever")
    small.harm(cut)
    small.seen(cut, lambda effect: effect.bit)
    eventually(lambda: "start" in [item.action for item in events(small, "back.net")])
    assert all(item.expected for item in events(small, "back.net")), "its helper follows it: our own doing"
    small.target.mechanisms["crash"].apply(crash)
    assert small.revert(crash, "again") == "done"
    assert "was started again" in small.seen(cut, lambda effect: effect.gone).detail
    assert small.revert(cut) == "done"
    small.well()


def test_a_disconnected_container_comes_back_with_its_address_and_alias(small: Rig, engine: str) -> None:
    one = injection("sever", Sever(), "isolated")
    name = started(small, "back").container
    before = cast("dict[str, dict[str, object]]", container(engine, name)["NetworkSettings"]["Networks"])
    small.harm(one)
    small.seen(one, lambda effect: effect.bit)
    assert container(engine, name)["NetworkSettings"]["Networks"] == {}
    assert small.revert(one) == "done"
    after = cast("dict[str, dict[str, object]]", container(engine, name)["NetworkSettings"]["Networks"])
    (was,), (now,) = before.values(), after.values()
    assert (was["IPAddress"], was["IPAMConfig"]) == (now["IPAddress"], now["IPAMConfig"])
    assert "back" in cast("list[str]", now["Aliases"])
    small.well()


def test_freezes_side_by_side_are_all_told_as_our_own_doing(small: Rig) -> None:
    both = [
        msgspec.structs.replace(injection("freeze", None), instance=name, id=f"f/{name}") for name in ("front", "back")
    ]
    for one in both:
        small.harm(one)
    for one in both:
        small.revert(one)
        eventually(lambda one=one: {"pause", "unpause"} <= {item.action for item in events(small, one.instance)})
        assert all(item.expected for item in events(small, one.instance) if item.action in ("pause", "unpause"))
    small.well()


def test_a_container_started_again_is_told_with_its_new_pid(small: Rig) -> None:
    one = injection("crash", None, "told")
    before = started(small, "back").pid
    small.harm(one)
    small.seen(one, lambda effect: effect.bit)
    small.revert(one)
    eventually(lambda: started(small, "back").pid != before)
    assert started(small, "back").pid > 0
    assert [item.code for item in events(small, "back") if item.action == "die" and item.expected][-1] == 137
    small.well()


def test_the_engines_processes_are_told_from_strangers(small: Rig, engine: str) -> None:
    assert ask(engine, "POST", "/containers/create?name=stormdrill-test-stranger", STRANGER).status == 201
    try:
        assert ask(engine, "POST", "/containers/stormdrill-test-stranger/start").status == 204
        named = small.target.companions()
    finally:
        ask(engine, "DELETE", "/containers/stormdrill-test-stranger?force=1")
    ours = [name for name in named if name.startswith("engine/shim")]
    assert len(ours) == len({item.instance for item in small.containers()})
    assert any(name.startswith("engine/dockerd") for name in named)
    assert any(name.startswith("stranger/shim") for name in named)


def test_an_out_of_memory_kill_is_told_and_the_undo_starts_its_victim_again(engine: str, tmp_path: Path) -> None:
    one = injection("pressure", Pressure(mb_per_s=400.0, ceiling_mb=400.0, victim="app"))
    with rig("docker", tmp_path) as small:
        small.harm(one)
        eventually(lambda: "oom" in [item.action for item in events(small, "back")], 20.0)
        eventually(lambda: "die" in [item.action for item in events(small, "back")], 20.0)
        assert small.revert(one) != "failed"
        small.seen(one, lambda effect: effect.gone)
        small.well()
        died = [item for item in events(small, "back") if item.action == "die"]
        assert [(item.code, item.expected) for item in died] == [(137, False)]
        assert ask(engine, "GET", f"/containers/{started(small, 'back').container}/json").status == 200


def test_at_its_limit_the_allocator_is_killed_and_not_a_larger_application(engine: str, tmp_path: Path) -> None:
    """The application holds most of its limit before: by size alone it would be chosen."""
    big = ServiceInstance(
        "back",
        "back",
        ("python3", "-c", BIG, "$port"),
        ready=Ready(),
        memory_mb=128.0,
        image=base_image(),
    )
    one = injection("pressure", Pressure(mb_per_s=200.0, ceiling_mb=120.0, victim="neighbour"))
    system = System("big", "back", (big,), docker=DockerSpec(image="stormdrill-platform"), ready_timeout_s=20.0)
    with rig("docker", tmp_path, system) as small:
        small.harm(one)
        eventually(lambda: "oom" in [item.action for item in events(small, "back")], 20.0)
        small.seen(one, lambda effect: effect.gone)
        assert "exit code 137" in small.target.mechanisms["pressure"].observe(one).detail
        state = cast("dict[str, object]", container(engine, started(small, "back").container)["State"])
        assert (state["Running"], state["Pid"]) == (True, started(small, "back").pid)
        assert ask(engine, "POST", f"/containers/{started(small, 'back').container}/kill").status == 204
        eventually(lambda: "die" in [item.action for item in events(small, "back")])
        assert small.revert(one) == "done", "whoever was killed is started again"
        small.well()


def test_what_dies_has_left_its_output_in_the_run_directory(engine: str, tmp_path: Path) -> None:
    dies = ServiceInstance("web", "web", ("python", "-c", "import sys; sys.exit('no such thing as luck')"))
    system = System(name="small", entry="web", instances=(dies,), docker=DockerSpec(image="stormdrill-platform"))
    with kept_run(tmp_path) as run:
        target = make("docker", system, run.dir, lasts_s=60.0)
        target.preflight()
        target.start(run.keeper)
        try:
            eventually(lambda: [item.code for item in run.events(ContainerEvent) if item.action == "die"] == [1])
            log = run.dir / "logs/web.log"
            assert "no such thing as luck" in log.read_text()
            assert ["no such thing as luck" in item.detail for item in run.events(ContainerEvent)] == [True]
            assert target.ready() == {"web": False}
        finally:
            target.leave()
            assert run.keeper.teardown() == []
    found = ask(
        engine, "GET", f"/containers/json?all=1&filters=%7B%22label%22%3A%5B%22stormdrill%3D{run.dir.name}%22%5D%7D"
    )
    assert json.loads(found.body) == []


# --- containers that run already -------------------------------------------------------------------------

STRANGER = json.dumps({"Image": base_image(), "Cmd": ["sleep", "600"]})
SERVES = {
    "Image": base_image(),
    "Cmd": ["python3", "-m", "http.server", "8080"],
    "Labels": {"drill": "allowed", "app": "web", "region": "eu"},
    "ExposedPorts": {"8080/tcp": {}},
    "HostConfig": {"PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}},
}


@pytest.fixture
def running(engine: str) -> Iterator[str]:
    """A container that somebody else has started; its id."""
    name = f"somebodys-{time.monotonic_ns()}"
    assert ask(engine, "POST", f"/containers/create?name={name}", json.dumps(SERVES)).status == 201
    try:
        assert ask(engine, "POST", f"/containers/{name}/start").status == 204
        yield str(container(engine, name)["Id"])
    finally:
        ask(engine, "DELETE", f"/containers/{name}?force=1")


def attached(**select: str) -> System:
    web = ServiceInstance("web", "web", (), ready=Ready(path="/"), port=8080, select=select or {"app": "web"})
    return System(
        name="theirs",
        entry="web",
        instances=(web,),
        labels=("region",),
        docker=DockerSpec(attach={"drill": "allowed"}),
    )


def test_what_runs_already_is_drilled_and_neither_stopped_nor_removed(
    running: str, engine: str, tmp_path: Path
) -> None:
    with kept_run(tmp_path) as run:
        target = make("docker", attached(), run.dir, lasts_s=60.0)
        planned = target.world()
        assert [(item.name, item.labels) for item in planned.instances] == [("web", {"region": "eu"})]
        assert running in planned.system.instances[0].image  # so that the plan's digest speaks of it
        target = make("docker", planned.system, run.dir, lasts_s=60.0)
        target.preflight()
        target.start(run.keeper)
        small = Rig(target, run)
        try:
            small.well()
            for word in ("freeze", "crash"):
                one = msgspec.structs.replace(injection(word, None), instance="web")
                small.harm(one)
                small.seen(one, lambda effect: effect.bit)
                assert small.revert(one) == "done"
                small.seen(one, lambda effect: effect.gone)
                small.well()
        finally:
            target.leave()
            assert run.keeper.teardown() == []
    assert cast("dict[str, object]", container(engine, running)["State"])["Running"]
    assert [item.owned for item in run.events(ContainerStarted)] == [False, False]


def test_nothing_is_meant_that_did_not_opt_in(running: str, engine: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no running container is web: labels drill=allowed, app=other.*these labels"):
        make("docker", attached(app="other"), tmp_path).world()


def test_a_container_made_anew_since_the_plan_is_not_the_one_that_was_planned(
    running: str, engine: str, tmp_path: Path
) -> None:
    planned = make("docker", attached(), tmp_path).world().system
    ask(engine, "DELETE", f"/containers/{running}?force=1")
    with pytest.raises(Refused, match=f"web was planned for container {running[:12]}, which no longer runs"):
        make("docker", planned, tmp_path).preflight()


def test_an_image_of_the_users_is_started_and_reaches_its_dependency_through_the_proxy(
    engine: str, tmp_path: Path
) -> None:
    """An image that isn't ours, with a command of its own and a port of its own."""
    db = ServiceInstance(
        "db", "db", ("python3", "-m", "http.server", "9999"), ready=Ready(), port=9999, image=base_image()
    )
    front = small_system().instances[0]
    system = msgspec.structs.replace(
        small_system(), instances=(front, db), dependencies=(Dependency("back", ("front",), "db"),)
    )
    with rig("docker", tmp_path, system) as small:
        (hop,) = small.target.world().hops
        control = started(small, "proxy").address

        def carried() -> bool:
            with urllib.request.urlopen(f"http://{control}/routes", timeout=2.0) as answer:
                return any(route["name"] == hop.name and route["bytes_down"] > 0 for route in json.load(answer))

        eventually(carried)
        assert container(engine, started(small, "db").container)["HostConfig"]["CapDrop"] is None


def test_an_image_without_python_and_whose_user_is_nobody_is_pressed_by_a_shell(engine: str, tmp_path: Path) -> None:
    from stormdrill.targets.docker.starting import build_image

    (tmp_path / "Dockerfile").write_text(f"FROM {base_image()}\nRUN rm /usr/bin/python3*\nUSER 65534\n")
    build_image(tmp_path, "stormdrill-test-bare", {}, {})
    bare = ServiceInstance("back", "back", ("sleep", "600"), image="stormdrill-test-bare", memory_mb=128.0)
    one = injection("pressure", Pressure(mb_per_s=60.0, ceiling_mb=48.0), "bare")
    try:
        with rig("docker", tmp_path / "runs", System("bare", "back", (bare,), ready_timeout_s=20.0)) as small:
            assert container(engine, started(small, "back").container)["Config"]["User"] == "65534"
            small.harm(one)
            small.seen(one, lambda effect: effect.bit)
            assert small.revert(one) == "done"
            small.seen(one, lambda effect: effect.gone)
            small.well()
    finally:
        ask(engine, "DELETE", "/images/stormdrill-test-bare?force=1")
