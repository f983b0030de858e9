"""A system from a compose file, with a real engine and whichever compose tool is installed."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from mechanism_rig import Rig, injection, rig

from base_image import base_image
from stormdrill.api.targets import make
from stormdrill.errors import Refused
from stormdrill.keeper.engine import ask
from stormdrill.model.event import ContainerEvent, ContainerStarted, ResourcesClaimed
from stormdrill.model.mechanism import How, Sever, Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.system import Dependency, DockerSpec, Ready, ServiceInstance, System
from stormdrill.targets.docker.tool import find

pytestmark = pytest.mark.docker
ASKS = (  # a client that knows its database by a name of the file, and nothing of stormdrill
    "import http.server, urllib.request\n"
    "class Front(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        try:\n"
    "            code = urllib.request.urlopen('http://store:8080/', timeout=0.5).status\n"
    "        except OSError:\n"
    "            code = 503\n"
    "        self.send_response(code if self.path == '/' else 200)\n"
    "        self.send_header('Content-Length', '0')\n"
    "        self.end_headers()\n"
    "    def log_message(self, *said):\n"
    "        pass\n"
    "http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Front).serve_forever()\n"
)
FILE = {
    "services": {
        "web": {
            "image": base_image(),
            "command": ["python3", "-c", ASKS],
            "ports": ["8080:8080"],
            "restart": "always",
            "depends_on": ["db"],
        },
        "db": {
            "image": base_image(),
            "command": ["python3", "-m", "http.server", "8080", "--directory", "/data"],
            "volumes": ["data:/data"],
            "networks": {"default": {"aliases": ["store"]}},
        },
        "once": {"image": base_image(), "command": ["true"]},
    },
    "volumes": {"data": {"name": "somebodys"}},
}


def shop(file: Path) -> System:
    web = ServiceInstance("web", "web", (), ready=Ready(path="/healthz"), port=8080, memory_mb=96.0)
    db = ServiceInstance("db", "db", (), ready=Ready(path="/"), port=8080)
    return System(
        name="shop",
        entry="web",
        instances=(web, db),
        dependencies=(Dependency("db", ("web",), "db"),),
        docker=DockerSpec(compose=str(file)),
        ready_timeout_s=60.0,
    )


@pytest.fixture(scope="module")
def file(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shop") / "compose.yaml"
    place.write_text(json.dumps(FILE))
    try:
        find(engine, place.parent)
    except Refused as refused:
        pytest.skip(str(refused))
    return place


@pytest.fixture(scope="module")
def small(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with rig("docker", tmp_path_factory.mktemp("runs"), shop(file)) as found:
            run = found.run.dir.name
            yield found
    assert left(run) == []


def left(run: str) -> list[str]:
    wanted = quote(json.dumps({"label": [f"stormdrill={run}"]}), safe="")
    found = []
    for path in ("/containers/json?all=1&", "/networks?", "/volumes?"):
        listed = json.loads(ask("unix:///var/run/docker.sock", "GET", f"{path}filters={wanted}").body)
        found += [str(one) for one in (listed["Volumes"] or [] if isinstance(listed, dict) else listed)]
    return found


def started(small: Rig) -> dict[str, ContainerStarted]:
    return {item.instance: item for item in small.containers()}


def answer(small: Rig) -> int:
    try:
        with urllib.request.urlopen(f"http://{started(small)['web'].address}/", timeout=5.0) as heard:
            return int(heard.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def to_db(word: str, how: How | None) -> Injection:
    return msgspec.structs.replace(injection(word, how), instance="db")


def test_a_compose_files_services_are_the_runs_own_and_claimed_before_they_are_made(small: Rig) -> None:
    run, found = small.run.dir.name, started(small)
    assert {name: one.role for name, one in found.items()} == {
        "web": "system",
        "db": "system",
        "proxy": "proxy",
        "once": "companion",
    }
    words = small.run.words()
    assert words.index("resources-claimed") < words.index("container-started")
    assert set(small.run.events(ResourcesClaimed)[0].containers) == {f"stormdrill-{run}-{name}" for name in found}
    for one in found.values():
        told = json.loads(ask("unix:///var/run/docker.sock", "GET", f"/containers/{one.container}/json").body)
        assert told["Config"]["Labels"]["stormdrill"] == run
        assert told["HostConfig"]["RestartPolicy"]["Name"] in ("no", "")
        assert (told["HostConfig"]["PidsLimit"], told["HostConfig"]["DnsOptions"]) == (256, ["ndots:0"])
        bound = [place["HostIp"] for many in (told["HostConfig"]["PortBindings"] or {}).values() for place in many]
        assert set(bound) <= {"127.0.0.1"}
        assert list(told["NetworkSettings"]["Networks"]) == [f"stormdrill-{run}"]
    volumes = json.loads(ask("unix:///var/run/docker.sock", "GET", "/volumes").body)["Volumes"]
    assert f"stormdrill-{run}-data" in [one["Name"] for one in volumes]
    assert "somebodys" not in [one["Name"] for one in volumes]


@pytest.mark.parametrize(
    ("word", "how"), [("freeze", None), ("sever", Sever()), ("refuse", Toxic(("web>db",), "refuse"))]
)
def test_a_client_that_knows_a_name_alone_meets_the_fault_and_its_end(small: Rig, word: str, how: How | None) -> None:
    one = to_db(word, how)
    assert answer(small) == 200
    small.harm(one)
    small.seen(one, lambda effect: effect.bit)
    assert answer(small) == 503
    assert small.revert(one) == "done"
    small.seen(one, lambda effect: effect.gone)
    small.well()
    assert answer(small) == 200


def test_what_only_prepares_something_may_end(small: Rig) -> None:
    ends = [item for item in small.run.events(ContainerEvent) if item.instance == "once" and item.action == "die"]
    assert all(item.expected for item in ends)


def test_a_compose_file_changed_since_the_plan_is_refused(file: Path, tmp_path: Path) -> None:
    planned = make("docker", shop(file), tmp_path).world().system
    assert planned.docker is not None
    assert planned.docker.resolved
    make("docker", planned, tmp_path).preflight()
    other = tmp_path / "compose.yaml"
    changed = {**FILE, "services": {**FILE["services"], "once": {"image": base_image(), "command": ["false"]}}}
    other.write_text(json.dumps(changed))
    moved = msgspec.structs.replace(planned, docker=msgspec.structs.replace(planned.docker, compose=str(other)))
    with pytest.raises(Refused, match="has changed since the plan"):
        make("docker", moved, tmp_path).preflight()


def test_a_compose_file_that_cannot_be_read_is_refused_in_the_tools_own_words(file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "compose.yaml"
    bad.write_text("services: {web: {imag: x}}")
    with pytest.raises(Refused, match="imag"):
        make("docker", shop(bad), tmp_path).world()
