"""How containers are made: on the engine that is claimed, and with a sentence when it goes away."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fake_engine import fake_engine
from stormdrill.api.targets import make
from stormdrill.errors import Refused, StormdrillError, SystemNotReady
from stormdrill.keeper.heard import Heard
from stormdrill.keeper.sweep import sweep
from stormdrill.model.system import System
from stormdrill.targets.docker import starting
from stormdrill.targets.docker.engine import unusable

ELSEWHERE = "tcp://192.0.2.1:2375"
WANTED = starting.Wanted("box", "an-image", (), {}, {}, "10.0.0.9", ("box",), 80, 8080)
MAKES: dict[str, tuple[Callable[[], object], str, type[StormdrillError]]] = {
    "subnets": (starting.taken_subnets, "GET /v1.41/networks", SystemNotReady),
    "network": (
        lambda: starting.make_network("net", ["10.0.0.0/24", "10.0.1.0/24"], {}, way_out=False),
        "POST /v1.41/networks/create",
        SystemNotReady,
    ),
    "container": (lambda: starting.start_container("net", WANTED), "POST /v1.41/containers/create", SystemNotReady),
    "helper": (
        lambda: starting.start_helper("help", "an-image", "box", {}),
        "POST /v1.41/containers/create",
        SystemNotReady,
    ),
    "image": (lambda: starting.build_image(Path(__file__).parent, "tag", {}, {}), "POST /v1.41/build", Refused),
    "question": (lambda: starting.ask_image("an-image", ["true"]), "POST /v1.41/containers/create", Refused),
}


@pytest.mark.parametrize(
    ("named", "claimed"),
    [
        ("", "unix:///var/run/docker.sock"),
        ("unix:///run/mine.sock", "unix:///run/mine.sock"),
        ("tcp://127.0.0.1:2375", "http://127.0.0.1:2375"),
    ],
)
def test_things_are_made_on_the_engine_that_is_claimed_whatever_context_or_file_names_another(
    named: str, claimed: str, tmp_path: Path
) -> None:
    (tmp_path / ".testcontainers.properties").write_text(f"tc.host={ELSEWHERE}\n")
    context = tmp_path / ".docker/contexts/meta" / hashlib.sha256(b"far").hexdigest()
    context.mkdir(parents=True)
    meta = {"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": ELSEWHERE, "SkipTLSVerify": False}}}
    (context / "meta.json").write_text(json.dumps(meta))
    (tmp_path / ".docker/config.json").write_text(json.dumps({"currentContext": "far"}))
    tells = (
        "from stormdrill.targets.docker import starting\n"
        "from stormdrill.targets.docker.engine import address, as_docker_host\n"
        "from testcontainers.core.docker_client import get_docker_host\n"
        "print(address(), as_docker_host(address()) == get_docker_host())"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "DOCKER_HOST": named}
    said = subprocess.run(
        [sys.executable, "-c", tells], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == f"{claimed} True\n"


@pytest.mark.parametrize("what", MAKES)
def test_an_engine_that_goes_away_in_the_middle_is_told_as_that_and_not_as_a_defect(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, call, problem = MAKES[what]
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        engine.troubles.append((call, "cut"))
        with pytest.raises(problem, match=r"the engine at unix://.*e\.sock gave no answer"):
            make()
        assert not engine.troubles
        engine.stop()
        with pytest.raises(problem, match=r"the engine at unix://.*e\.sock gave no answer"):
            make()


@pytest.mark.parametrize("trouble", ["500", "cut"])
def test_an_image_that_cannot_be_asked_leaves_no_container(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        engine.troubles.append(("/start", trouble))
        with suppress(Refused):
            assert starting.ask_image("an-image", ["python3"]) == "a bad day"
        assert not engine.troubles
        assert not engine.boxes


def test_a_question_that_was_cut_short_is_found_by_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        engine.troubles.append(("/containers/create", "lost"))
        with pytest.raises(Refused):
            starting.ask_image("an-image", ["python3"])
        (left,) = engine.boxes.values()
        assert left.name == f"stormdrill-{left.labels['stormdrill']}"
        assert left.labels["stormdrill.expires"]
        swept = sweep(left.labels["stormdrill"], engine=engine.url)
        assert [(one.name, one.outcome) for one in swept.things] == [(left.name, "removed")]
        assert not engine.boxes


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("unix:///e.sock: no such file or directory", r"at unix:///e.sock \(no such file or directory\); start"),
        ("unix:///e.sock: connection refused", r"answers at unix:///e.sock \(connection refused\); start one"),
        ("unix:///e.sock did not answer GET /_ping within 4 s", r"\(did not answer GET /_ping within 4 s\); start one"),
        ("unix:///e.sock: permission denied", "^unix:///e.sock: this user may not use it; be root, or in the group"),
        ("", r"\(it answered 500\)"),
    ],
)
def test_why_an_engine_cannot_be_used_is_told_with_what_helps_against_that(said: str, told: str) -> None:
    assert re.search(told, unusable("unix:///e.sock", Heard(500, b"", said)))


def test_a_target_without_an_engine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(Refused, match=r"no container engine answers at unix://.*none\.sock \(no such file"):
        make("docker", System("shop", "web", ()), tmp_path).world()


def test_a_library_that_is_missing_is_to_be_installed_from_the_checkout(tmp_path: Path) -> None:
    """An index may have something of somebody else's under the name."""
    (tmp_path / "testcontainers.py").write_text("raise ModuleNotFoundError('no', name='testcontainers')\n")
    asks = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import stormdrill.targets.docker.starting"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=False, timeout=60)
    assert "needs testcontainers, which is not installed" in done.stderr
    assert "pip install 'PATH-TO-THE-CHECKOUT[docker]'" in done.stderr
