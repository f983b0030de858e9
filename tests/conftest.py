"""What every test gets: a state home of its own; and what the whole session owes: nothing of ours left alive."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from base_image import base_image
from together_then_alone import TogetherThenAlone, alone

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScheduling
    from xdist.workermanage import WorkerController

REPOSITORY = Path(__file__).resolve().parent.parent
MARK = "STORMDRILL_TEST_SESSION"
LEAVE_TIME_S = 5.0
"""How long a keeper may take, after the last test, to end what it owns."""

# Set here and not in a fixture: whatever any test starts, at whatever depth, inherits it. Workers share it; a pytest
# that a test starts gets its own, so that it doesn't end the outer session's processes.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ[MARK] = uuid.uuid4().hex
os.environ.pop("STORMDRILL_POLICY", None)

skipped: dict[str, str] = {}
left_out: dict[str, int] = {}
survivors: list[str] = []


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The private `$XDG_STATE_HOME` of this test: its locks and open runs meet nobody else's."""
    home = tmp_path / "state-home"
    home.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def engine() -> str:
    """The container engine of this machine, with the base image; skips, with the reason, where there is none."""
    from stormdrill.keeper.engine import ask

    address = "unix:///var/run/docker.sock"
    heard = ask(address, "GET", "/version", timeout_s=10.0)
    if heard.status != 200:
        pytest.skip(f"no container engine: {heard.error or heard.status}")
    if ask(address, "GET", f"/images/{quote(base_image(), safe='')}/json").status != 200:
        pytest.skip(f"no image {base_image()}: make base-image, or name one in $STORMDRILL_BASE_IMAGE")
    return address


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts real processes comes last: a mistake in a law is told before the long part begins."""
    for item in items:
        if (REPOSITORY / "tests" / "real") in item.path.parents:
            item.add_marker("real")
    items.sort(key=lambda item: (item.get_closest_marker("real") is not None, alone(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScheduling | None:
    """Ours where nobody asked for another one."""
    return TogetherThenAlone(config, log) if config.getoption("dist") == "load" else None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # The session that spreads the tests over workers hears every report, too.
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped[report.nodeid] = reason.removeprefix("Skipped: ")


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.nodeid.split("::")[0].rsplit("/", 1)[0]
        left_out[folder] = left_out.get(folder, 0) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    # Each worker leaves out the same.
    left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        session.config.workeroutput["left_out"] = left_out
        return
    survivors.extend(_end_what_is_left())
    if survivors:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    allowed = _may_skip()
    build = REPOSITORY / "build"
    build.mkdir(exist_ok=True)
    unasked = [f"{test}\t{why}\n" for test, why in sorted(skipped.items()) if test not in allowed]
    (build / "skipped-unasked").write_text("".join(unasked), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    say = terminalreporter.write_line
    if survivors:
        terminalreporter.section("left alive by the tests, now ended: this is a failure", red=True)
        for line in survivors:
            say(line)
    if skipped or left_out:
        terminalreporter.section("left out")
        for test, why in sorted(skipped.items()):
            say(f"{test}: {why}")
        for folder, count in sorted(left_out.items()):
            say(f"{folder}: {count} not chosen")


def _may_skip() -> set[str]:
    lines = (REPOSITORY / ".ci" / "may-skip").read_text(encoding="utf-8").splitlines()
    return {line.split("\t")[0] for line in lines if line and not line.startswith("#")}


def _ours() -> dict[int, str]:
    """Processes that inherited this session's mark, by pid. State Z has an empty environment: it counts as gone."""
    wanted = f"{MARK}={os.environ[MARK]}".encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and int(folder.name) != os.getpid():
            found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def _end_what_is_left() -> list[str]:
    deadline = time.monotonic() + LEAVE_TIME_S
    while (alive := _ours()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in alive:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return [f"{pid}: {command}" for pid, command in alive.items()]
