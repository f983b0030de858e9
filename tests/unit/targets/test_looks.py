"""What `doctor` says of mechanisms agrees with what the targets do, and nothing is left by looking."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from fake_engine import fake_engine
from stormdrill.faults.acting import UNDO_WORDS
from stormdrill.model.mechanism import ToxicKind
from stormdrill.targets.docker import look as docker
from stormdrill.targets.docker.image import Base
from stormdrill.targets.portable.elsewhere import ON_CLUSTERS
from stormdrill.targets.process import look as process
from stormdrill.targets.process.look import Seen

MECHANISMS = {*UNDO_WORDS, "tell"} - set(ON_CLUSTERS)
"""Of processes and containers. What is told has no word of its own for its undo: that is a request."""
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "mechanisms.md"


def words(found: list[Seen]) -> set[str]:
    return {word for one in found for word in one.mechanism.split()}


def test_every_mechanism_is_looked_at_on_processes_and_stands_on_its_page() -> None:
    assert words(list(process.findings())) == MECHANISMS
    assert set(get_args(ToxicKind)) <= words(list(process.findings()))
    text = PAGE.read_text(encoding="utf-8")
    assert [word for word in MECHANISMS if text.count(f"`{word}`") < 2] == []


def test_what_is_missing_says_what_would_help() -> None:
    for one in process.findings():
        assert one.state != "missing" or one.cost


def test_without_an_engine_its_lack_is_said_and_nothing_else_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    engine = [one for one in docker.findings() if one.mechanism == "engine"]
    assert [(one.state, one.seen) for one in engine] == [("missing", f"no socket {tmp_path}/none.sock")]
    assert not words(list(docker.findings())) & MECHANISMS


def test_an_engine_is_asked_by_reading_alone_and_its_limits_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "e.sock"
    asked: list[str] = []
    answers = {
        "/version": b'{"Version": "20.10.24", "ApiVersion": "1.41"}',
        "/info": b'{"CgroupVersion": "1", "MemoryLimit": true, "SwapLimit": false, "CpuCfsQuota": false}',
    }

    def serve(listener: socket.socket) -> None:
        for _ in range(5):
            with listener.accept()[0] as one:
                line = one.recv(4096).partition(b"\r\n")[0].decode()
                asked.append(line)
                body = answers.get(line.split(" ")[1])
                status = b"200 OK" if body else b"404 Not Found"
                head = b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body or b"")
                one.sendall(head + (body or b""))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
        monkeypatch.delenv("STORMDRILL_BASE_IMAGE", raising=False)
        found = {one.mechanism: one for one in docker.findings()}
        thread.join(10)
    assert asked
    assert all(line.startswith("GET ") for line in asked)
    assert words(list(found.values())) >= MECHANISMS
    assert "20.10.24, API 1.41, cgroup v1" in found["engine"].seen
    assert found["base image"].state == "missing"
    assert (found["pressure"].state, found["cpu-limit"].state) == ("weak", "missing")


@pytest.mark.parametrize(
    ("iptables", "state", "says"),
    [
        (True, "ok", "by packet rules of a helper"),
        (False, "weak", "my-base has no iptables"),
        (None, "weak", "unknown until the first plan"),
    ],
)
def test_a_cut_from_some_peers_works_only_where_the_base_was_seen_to_have_iptables(
    iptables: bool | None, state: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STORMDRILL_BASE_IMAGE", "my-base")
    if iptables is not None:
        kept = tmp_path / "cache/stormdrill/images/my-base.json"
        kept.parent.mkdir(parents=True)
        kept.write_bytes(msgspec.json.encode(Base("my-base", "sha256:my-base", "3.11", iptables)))
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        (sever,) = (one for one in docker.findings() if one.mechanism == "sever")
    assert (sever.state, says in sever.seen) == (state, True)


@pytest.mark.parametrize("there", [True, False])
def test_the_compose_tool_is_looked_at(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "docker-compose"
    tool.write_text('#!/bin/sh\n[ "$1" = version ]\n')
    tool.chmod(0o755 if there else 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        (compose,) = (one for one in docker.findings() if one.mechanism == "compose")
    assert compose.state == ("ok" if there else "weak")
    assert ("a system with compose: is refused" in compose.cost) == (not there)
