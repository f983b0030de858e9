"""Every verdict and every exit code, each from a real run; and what is said when it is refused or stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drill import Repository, lives
from small_system import SERVER

import stormdrill
from stormdrill.model import event as ev
from stormdrill.store import journal

pytestmark = pytest.mark.real
SOURCE = Path(stormdrill.__file__).parent.parent


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "mine")


def reverted(repository: Repository) -> bool:
    events = [item.event for item in repository.events()]
    harmed = {event.injection for event in events if isinstance(event, ev.InjectStarted)}
    gone = {event.injection for event in events if isinstance(event, ev.Reverted | ev.RevertVerified)}
    return harmed <= gone


def test_0_pass_and_the_same_directory_gives_the_same_documents_to_the_byte(repository: Repository) -> None:
    outcome = repository.lay_out().conclude()
    assert outcome.words == (0, "completed", "PASS"), outcome.progress
    assert repository.alive() == []
    run = repository.run_dir.name
    assert repository.command("verify", run).returncode == 0
    names = ("verdict.json", "review.md", "review.html")
    before = {name: (repository.run_dir / name).read_bytes() for name in names}
    for name in names:
        (repository.run_dir / name).unlink()
    repository.environment["PYTHONHASHSEED"] = "7"
    assert repository.command("judge", run).returncode == 0
    assert repository.command("review", run).returncode == 0
    assert {name: (repository.run_dir / name).read_bytes() for name in names} == before


def test_1_fail_when_an_objective_does_not_hold(repository: Repository) -> None:
    outcome = repository.lay_out(during="success > 95%").conclude()
    assert outcome.words == (1, "completed", "FAIL"), outcome.progress


def test_1_fail_when_a_guard_trips_and_the_revert_does_not_wait_for_the_phase(repository: Repository) -> None:
    repository.lay_out(fault="60s", guards='["success < 80% for 500ms"]')
    outcome = repository.conclude()
    assert outcome.words == (1, "aborted", "FAIL"), outcome.progress
    assert repository.alive() == []
    assert reverted(repository)


def test_3_inconclusive_without_a_healthy_baseline_and_nothing_is_injected(repository: Repository) -> None:
    broken = SERVER.replace("self.send_response(200)", "self.send_response(200 if self.path == '/metrics' else 404)")
    outcome = repository.lay_out(server=broken).conclude()
    assert outcome.words[0] == 3, outcome.progress
    assert outcome.words[2] == "INCONCLUSIVE"
    assert not [item for item in repository.events() if isinstance(item.event, ev.Armed)]


def test_3_inconclusive_when_the_target_served_nobody(repository: Repository) -> None:
    """The load enters elsewhere: what is frozen was idle, and a perfect score would prove nothing."""
    outcome = repository.lay_out()
    system = repository.root / "experiments" / "systems" / "small.yaml"
    text = system.read_text().replace("labels: {region: $region}", "labels: {region: $region}\n      env: {}")
    idle = f"""
    idle:
      command: [python, {repository.root / "server.py"}, $port]
      labels: {{region: mars}}
      ready: GET /
served:"""
    system.write_text(text.replace("\nserved:", idle, 1).replace("from: web}\nmetrics", "from: idle}\nmetrics"))
    experiment = repository.root / "experiments" / "small.yaml"
    experiment.write_text(experiment.read_text().replace("region: eu", "region: mars"))
    outcome = repository.conclude()
    assert outcome.words == (3, "completed", "INCONCLUSIVE"), outcome.progress


def test_3_invalid_when_the_generator_was_killed(repository: Repository) -> None:
    run = repository.lay_out(fault="3s").bitten()
    spawned = repository.until(lambda r: isinstance(r.event, ev.ProcessSpawned) and r.event.role == "generator")
    os.kill(spawned.event.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    outcome = run.end()
    assert outcome.words == (3, "aborted", "INVALID"), outcome.progress  # what nobody asks shows nothing any more
    assert reverted(repository)


def test_3_inconclusive_when_the_system_never_gets_ready(repository: Repository) -> None:
    mute = "import time; time.sleep(600)"
    repository.lay_out(server=mute)
    system = repository.root / "experiments" / "systems" / "small.yaml"
    system.write_text(system.read_text().replace("process:", "process:\n  ready_timeout: 1s", 1))
    outcome = repository.conclude()
    assert outcome.words[0] == 3, outcome.progress
    assert outcome.words[2] == "INCONCLUSIVE"
    assert repository.alive() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_4_stopped_by_a_person_everything_is_reverted(repository: Repository, number: signal.Signals) -> None:
    run = repository.lay_out(fault="60s").bitten()
    run.send(number)
    run.send(number)
    outcome = run.end()
    assert outcome.words[:2] == (4, "aborted"), outcome.progress
    assert outcome.words[2] != "PASS"
    assert repository.alive() == []
    assert reverted(repository)


def test_4_abort_from_another_terminal_and_no_verdict_before_the_end(repository: Repository) -> None:
    run = repository.lay_out(fault="60s").bitten()
    idle = repository.command("recover").stdout
    assert idle == f"nothing was left behind; {repository.run_dir.name} goes on (stop it with: stormdrill abort)\n"
    early = repository.command("judge", repository.run_dir.name)
    assert early.returncode == 2, "a run that goes on has no verdict yet"
    said = repository.command("abort", repository.run_dir.name)
    assert said.returncode == 0, said.stderr
    assert run.end().words[:2] == (4, "aborted")
    assert [(e.by, e.reason) for r in repository.events() if isinstance(e := r.event, ev.AbortRequested)] == [
        ("person", "stormdrill abort")
    ]
    assert repository.alive() == []


def test_4_when_the_keeper_is_killed_the_runner_takes_over_and_reverts(repository: Repository) -> None:
    run = repository.lay_out(fault="60s").bitten()
    keeper = repository.until(lambda r: isinstance(r.event, ev.KeeperStarted))
    os.kill(keeper.event.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    outcome = run.end()
    assert outcome.words[:2] == (4, "aborted"), outcome.progress
    assert repository.alive() == []
    assert [item for item in repository.events() if isinstance(item.event, ev.JournalTakenOver)]
    assert reverted(repository)


def test_when_the_runner_is_killed_the_keeper_reverts_and_ends_everything(repository: Repository) -> None:
    run = repository.lay_out(fault="60s").bitten()
    run.send(signal.SIGKILL)
    run.process.communicate(timeout=10)
    repository.until(lambda r: isinstance(r.event, ev.RunEnded))
    assert reverted(repository)
    assert eventually(lambda: repository.alive() == [])
    assert repository.command("judge", repository.run_dir.name).returncode in (3, 4)


def test_when_both_are_killed_the_next_command_says_so_and_recover_mends_it(repository: Repository) -> None:
    run = repository.lay_out(fault="60s").bitten()
    keeper = repository.until(lambda r: isinstance(r.event, ev.KeeperStarted))
    run.send(signal.SIGSTOP)
    os.kill(keeper.event.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    run.send(signal.SIGKILL)
    run.process.communicate(timeout=10)
    refused = repository.drill().end()
    assert refused.code == 2
    assert "recover" in refused.progress
    mended = repository.command("recover")
    assert mended.returncode == 0, mended.stderr
    assert repository.alive() == []
    assert repository.command("recover").stdout == "nothing was left behind\n"


def test_5_dirty_when_the_undo_does_not_help_and_it_says_what_where_and_how_to_mend_it(repository: Repository) -> None:
    repository.lay_out(fault="1500ms")
    system = repository.root / "experiments" / "systems" / "small.yaml"
    system.write_text(system.read_text().replace("process:", "process:\n  ready_timeout: 2s", 1))
    run = repository.bitten("--set", "mode=crash")
    (repository.root / "server.py").write_text("raise SystemExit('gone for good')")
    outcome = run.end()
    assert outcome.words[:2] == (5, "dirty"), outcome.progress
    assert outcome.words[2] != "PASS"
    assert "web-eu" in outcome.progress
    assert "recover" in outcome.progress


def test_5_dirty_when_the_keeper_is_killed_and_the_record_is_gone(repository: Repository) -> None:
    run = repository.lay_out(fault="60s").bitten()
    keeper = repository.until(lambda r: isinstance(r.event, ev.KeeperStarted))
    pids = repository.pids()
    run.send(signal.SIGSTOP)
    (repository.run_dir / journal.NAME).unlink()
    os.kill(keeper.event.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    run.send(signal.SIGCONT)
    outcome = run.end()
    assert outcome.code == 5, outcome.progress
    assert "the record is gone" in " ".join(outcome.progress.split())  # lines are wrapped
    assert not [pid for pid in pids if lives(pid)]
    assert repository.command("recover").returncode == 5
    assert repository.command("recover", "--accept-left").returncode == 0


def test_2_a_second_run_on_the_same_system_is_told_who_holds_it(repository: Repository) -> None:
    run = repository.lay_out(fault="60s").drill()
    repository.until(lambda r: isinstance(r.event, ev.SystemReady))
    second = repository.command("run", "experiments/small.yaml", "--runs", "elsewhere")
    assert second.returncode == 2
    assert repository.run_dir.name in second.stderr
    assert not list((repository.root / "elsewhere").glob("*"))
    run.send(signal.SIGINT)
    assert run.end().code == 4


def test_2_a_fixed_port_that_is_taken_is_named_before_anything_is_touched(repository: Repository) -> None:
    repository.lay_out()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        services = "".join(
            f"    {name}:\n      command: [python, server.py, $port]\n      labels: {{region: {region}}}\n"
            f"      ready: GET /\n      port: {number}\n"
            for name, region, number in (("web", "eu", port), ("other", "us", free_port()))
        )
        (repository.root / "experiments" / "systems" / "small.yaml").write_text(
            f"name: small\nentry: web\nlabels: [region]\nprocess:\n  services:\n{services}"
        )
        refused = repository.command("run", "experiments/small.yaml")
    assert refused.returncode == 2
    assert f"port {port} of web is taken" in refused.stderr
    assert not list((repository.root / "runs").glob("*"))


@pytest.fixture
def ordinary_home(tmp_path: Path) -> Iterator[Path]:
    """A place that an ordinary user may write; pytest's own folders are closed to others."""
    home = Path(tempfile.mkdtemp(prefix="ordinary-"))
    home.chmod(0o777)
    yield home
    shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become an ordinary user; this user is one already")
def test_2_a_run_directory_that_cannot_be_written_is_noticed_before_anything_is_touched(ordinary_home: Path) -> None:
    """As an ordinary user; `test_first_drill` drills as one."""
    mine = Repository(ordinary_home / "mine").lay_out()
    packages = ":".join(path for path in sys.path if path.endswith("site-packages"))
    closed = ordinary_home / "closed"
    closed.mkdir(mode=0o755)
    for path in (mine.root, *mine.root.rglob("*")):
        os.chown(path, 65534, 65534)

    def as_nobody(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ordinary_python(), "-m", "stormdrill", "run", "experiments/small.yaml", "--json", *more],
            cwd=mine.root,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(ordinary_home),
                "XDG_STATE_HOME": str(mine.root / "state"),
                "PYTHONPATH": f"{SOURCE}:{packages}",
            },
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )

    refused = as_nobody("--runs", str(closed / "runs"))
    assert refused.returncode == 2, refused.stderr
    assert "cannot be written" in refused.stderr


def test_70_a_defect_of_our_own_reverts_everything_names_its_report_and_shows_no_traceback(
    repository: Repository, tmp_path: Path
) -> None:
    repository.lay_out(fault="60s")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys\n"
        "if sys.argv[:1] and sys.argv[-1:] and 'run' in sys.argv:\n"
        "    import stormdrill.engine.conductor as c\n"
        "    import stormdrill.engine.injecting as i\n"
        "    def broken(self, *a): raise ZeroDivisionError('planted')\n"
        "    c.Conductor._start_runbook = broken\n"
        "    real = i.Injecting._look\n"
        "    def look(self, *a):\n"
        "        real(self, *a)\n"
        "        raise ZeroDivisionError('planted')\n"
        "    i.Injecting._look = look\n"
    )
    repository.environment["PYTHONPATH"] = str(broken)
    run = repository.drill()
    outcome = run.end()
    assert outcome.code == 70, outcome.progress
    assert "Traceback" not in outcome.progress
    assert "report" in outcome.progress
    assert reverted(repository)
    assert repository.alive() == []


def test_the_journal_of_a_killed_run_is_readable_to_the_last_line(repository: Repository) -> None:
    run = repository.lay_out(fault="60s").drill()
    repository.until(lambda r: isinstance(r.event, ev.Armed))
    run.send(signal.SIGKILL)
    run.process.communicate(timeout=10)
    repository.until(lambda r: isinstance(r.event, ev.RunEnded))
    assert journal.salvage(repository.run_dir / journal.NAME).torn == b""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ordinary_python() -> str:
    """An interpreter of this version that another user may execute; the tests' own may lie in root's home."""
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(PermissionError):
            if not subprocess.run([candidate, "-c", ""], user=65534, check=False).returncode:
                return candidate
    raise AssertionError("no python that an ordinary user may execute: install Debian's python3")


def eventually(true: Callable[[], bool], limit_s: float = 2.0) -> bool:
    deadline = time.monotonic() + limit_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()
