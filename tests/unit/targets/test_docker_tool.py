"""The compose tool as a child: it ends when it should."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stormdrill.store.identity import Identity, identity_of
from stormdrill.targets.docker.composition import read
from stormdrill.targets.docker.tool import Tool, ToolFailedError, resolved
from waiting import eventually

LASTS = "import os, pathlib, sys, time; pathlib.Path(sys.argv[-1]).write_text(f'{os.getpid()}\\n'); time.sleep(60)"
PLUGIN = (  # as a command line that runs its plugin in a process group of its own
    f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LASTS!r}, sys.argv[-1]], process_group=0)"
)


def tool(script: str, place: Path) -> Tool:
    return Tool((sys.executable, "-c", script), "unix:///nowhere.sock", place)


def told(said: Path) -> Identity:
    """Who wrote its pid there."""
    eventually(lambda: said.exists() and said.read_text().endswith("\n"))
    child = identity_of(int(said.read_text()))
    assert child is not None
    assert child.lives
    return child


@pytest.mark.parametrize("script", [LASTS, PLUGIN], ids=["alone", "with a plugin"])
def test_the_tool_dies_with_the_runner(script: str, tmp_path: Path) -> None:
    said = tmp_path / "pid"
    runs = (
        "import sys; from pathlib import Path; from stormdrill.targets.docker.tool import Tool; "
        "Tool((sys.executable, '-c', sys.argv[1]), 'unix:///nowhere.sock', Path('.')).ask(sys.argv[2], limit_s=50.0)"
    )
    with subprocess.Popen([sys.executable, "-c", runs, script, str(said)]) as runner:
        child = told(said)
        runner.kill()
    eventually(lambda: not child.lives)


def test_a_plugin_that_goes_on_is_ended_with_the_tool(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    gives_up = (
        f"import pathlib, subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {LASTS!r}, sys.argv[-1]])\n"
        "while not (pathlib.Path(sys.argv[-1]).exists() and pathlib.Path(sys.argv[-1]).read_text()): time.sleep(0.01)\n"
        "sys.exit('given up')"
    )
    with pytest.raises(ToolFailedError, match="given up"):
        tool(gives_up, tmp_path).ask(str(said), limit_s=20.0)
    plugin = identity_of(int(said.read_text()))
    assert plugin is None or not plugin.lives


def test_a_tool_that_takes_too_long_is_ended_with_its_plugin(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(tool(PLUGIN, tmp_path).ask, str(said), limit_s=3.0)
        plugin = told(said)
        with pytest.raises(ToolFailedError, match="no end after 3 s"):
            asked.result()
    assert not plugin.lives


def test_a_tool_without_an_end_is_ended_and_one_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ToolFailedError, match=r"no end after 0\.2 s"):
        tool("import time; time.sleep(60)", tmp_path).ask("up", limit_s=0.2)
    with pytest.raises(ToolFailedError, match="no such image"):
        tool("import sys; sys.exit('no such image')", tmp_path).ask("up")


def test_what_is_given_arrives_and_the_callers_own_project_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "precious")
    monkeypatch.setenv("COMPOSE_FILE", "precious.yaml")
    script = "import os, sys; print(sys.stdin.read(), [name for name in os.environ if name.startswith('COMPOSE')])"
    assert tool(script, tmp_path).ask("config", given="services").decode() == "services []\n"


PLUGINS_CONFIG = (  # `docker compose config`: without a profile, only what belongs to none
    "import json, sys\n"
    "asked = {sys.argv[n + 1] for n, word in enumerate(sys.argv) if word == '--profile'}\n"
    "file = json.load(open(sys.argv[sys.argv.index('--file') + 1]))\n"
    "for name, one in list(file['services'].items()):\n"
    "    if one.get('profiles') and not ({'*', *one['profiles']} & asked): del file['services'][name]\n"
    "print(json.dumps(file))"
)


def test_a_service_of_a_profile_is_there_for_the_system_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    held_back = {"image": "b", "profiles": ["drill"]}
    file.write_text(json.dumps({"services": {"web": {"image": "a"}, "db": held_back, "other": held_back}}))
    said = resolved(tool(PLUGINS_CONFIG, tmp_path), file)
    assert list(read(said, ["web", "db"]).services) == ["web", "db"]
