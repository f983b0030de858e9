"""Words in, exit code out: every way to end is an exit code of the contract, and nobody sees a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from stormdrill.cli import main as line
from stormdrill.cli.commands.doctor import _conclusion
from stormdrill.cli.defect import without_values
from stormdrill.cli.host import Finding, State, targets
from stormdrill.errors import JournalBroken, Problem, Refused, StormdrillError, SystemNotReady, Unreachable
from stormdrill.targets.docker import look
from stormdrill.targets.process.look import Seen

HEAVY = ("locust", "gevent", "kubernetes", "numpy", "pydantic", "rich", "aiohttp", "jinja2", "yaml", "msgspec")


def modules_after(*argv: str) -> set[str]:
    """Top-level packages that a command has loaded when it leaves."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules})))\n"
        "from stormdrill.cli.main import main\n"
        f"main({list(argv)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(word: str) -> None:
    assert not modules_after(word) & set(HEAVY)


def test_doctor_loads_nothing_heavy() -> None:
    assert not modules_after("doctor") & set(HEAVY)


@pytest.mark.parametrize("name", sorted(line.COMMANDS))
def test_every_command_is_there_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave([name, "--help"]) == 0
    assert "Usage: stormdrill" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run"], "Where the system runs."),
        (["run"], "Accepted for scripts; nothing is asked yet."),
        (["plan"], "the least rights on the cluster"),
        ([], "Show exactly what a run would do, without doing it."),
    ],
)
def test_help_promises_nothing_that_is_not_so(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave([*argv, "--help"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def leave(argv: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        line.main(argv)
    code = left.value.code
    assert isinstance(code, int)
    return code


def ending_with(error: BaseException) -> Callable[..., None]:
    def fails(*_: object, **__: object) -> None:
        raise error

    return fails


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Put a command `doctor` in place that ends with an exception."""

    def put(error: BaseException) -> None:
        made = click.Command("doctor", callback=ending_with(error))
        monkeypatch.setattr(line.LazyGroup, "get_command", lambda *_: made)

    return put


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("no"), 2),
        (SystemNotReady("gateway-eu never answered GET /healthz"), 3),
        (JournalBroken("line 7 does not follow line 6"), 2),
        (Unreachable("no answer"), 70),
        (KeyboardInterrupt(), 4),
        (ValueError("surprise"), 70),
        (StormdrillError("unexplained"), 70),
    ],
)
def test_each_kind_of_trouble_has_its_exit_code(
    command: Callable[[BaseException], None], error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command(error)
    assert leave(["doctor"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_all_problems_are_said_each_with_its_place(
    command: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(
        Refused([Problem("a.yaml", 3, 5, "unknown key 'falts'", "write faults"), Problem("a.yaml", 9, 1, "no unit")])
    )
    leave(["doctor"])
    assert capsys.readouterr().err.splitlines() == [
        "a.yaml:3:5: unknown key 'falts'; write faults",
        "a.yaml:9:1: no unit",
    ]


def test_a_defect_leaves_a_report_that_only_its_owner_reads(
    command: Callable[[BaseException], None], state_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(ValueError("surprise"))
    assert leave(["doctor"]) == 70
    (report,) = (state_home / "stormdrill" / "reports").iterdir()
    assert str(report) in capsys.readouterr().err
    assert "ValueError: surprise" in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


def test_a_report_keeps_no_value_of_a_setting() -> None:
    assert without_values(["run", "a.yaml", "--set", "token=hunter22"]) == ["run", "a.yaml", "--set", "token=…"]


def test_a_command_that_is_misspelt_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["vaildate"]) == 2
    assert "did you mean validate?" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["region", "=us", "  =us"])
def test_a_setting_without_name_or_value_is_refused(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["validate", "a.yaml", "--set", setting]) == 2
    assert "--set region=us" in capsys.readouterr().err


def test_a_name_that_is_set_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["validate", "a.yaml", "--set", "region=us", "--set", "region=eu"]) == 2
    assert "set twice" in capsys.readouterr().err


def test_looking_live_ends_with_whether_the_system_is_as_expected(repository: Path) -> None:
    check = ["runbook", "check", str(repository / "runbooks" / "region-loss.md"), "--live", "--set", "region=eu"]
    assert leave(check) == 2, "a parameter is missing"
    assert leave([*check, "--set", "admin=http://127.0.0.1:1"]) == 1, "nobody answers there"


def test_a_reader_that_leaves_early_is_no_trouble() -> None:
    stormdrill = Path(sys.executable).parent / "stormdrill"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([stormdrill, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("lacking", "state", "said"),
    [
        ((), "ok", "drills on processes can run here, and in containers too"),
        (("cpu-limit",), "weak", "drills on processes can run here, in containers in part: no cpu-limit"),
        (
            ("testcontainers", "engine"),
            "missing",
            "drills on processes can run here, in containers nothing can run: no testcontainers, no engine",
        ),
        (
            ("base image",),
            "missing",
            "drills on processes can run here, in containers nothing can be started: no base image",
        ),
    ],
)
def test_doctor_says_and_ends_with_where_drills_can_run(
    lacking: tuple[str, ...], state: State, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [Seen(part, "missing" if part in lacking else "ok", "") for part in (*lacking, "freeze crash")]
    monkeypatch.setattr(look, "findings", lambda: seen)
    found = targets()
    (containers,) = (one for one in found if one.part == "containers")
    assert containers.state == state
    assert [one.part for one in found].count("Kubernetes") == 1
    assert _conclusion(found, []) == said
    assert _conclusion(found, [Finding("loopback", "missing", "")]) == "cannot run here: loopback"
