"""A secret goes from its source into a process's environment, and into nothing that stormdrill writes or shows."""

from __future__ import annotations

from pathlib import Path

from drill import Repository
from small_system import SERVER

from stormdrill.model.event import Recorded

VALUE = "kV7-qe4f/x9-Zw"
# Refuses to serve without it, and gives it away in a metric's label, which stormdrill reads.
TELLTALE = SERVER.replace("served = 0\n", 'served = 0\nTOKEN = os.environ["TOKEN"]\n', 1).replace(
    'queue_depth 3\\n".encode()', 'queue_depth{{by=\\"{TOKEN}\\"}} 3\\n".encode()'
)


def repository(folder: Path, declared: str = "{secret: true, env: SHOP_TOKEN}") -> Repository:
    made = Repository(folder, environment={"SHOP_TOKEN": VALUE}).lay_out(TELLTALE)
    path = folder / "experiments" / "systems" / "small.yaml"
    text = path.read_text().replace("parameters: {", f"parameters: {{token: {declared}, ")
    path.write_text(text.replace("      ready: GET /\n", "      ready: GET /\n      env: {TOKEN: $token}\n"))
    return made


def files_with(value: str, folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and value.encode() in path.read_bytes()]


def command_lines() -> list[bytes]:
    """What `ps` shows of every process to everybody."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:  # it ended meanwhile
            continue
    return found


def test_no_file_of_a_run_and_no_argument_holds_the_secret_that_its_system_works_with(tmp_path: Path) -> None:
    home = repository(tmp_path)
    under_way = home.drill("--set", "mode=crash")  # started again by the keeper: it needs the value once more

    def serving(recorded: Recorded) -> bool:
        return recorded.event.type == "process-spawned"

    home.until(serving)
    shown = command_lines()
    assert any(b"server.py" in line for line in shown)
    assert not any(VALUE.encode() in line for line in shown)
    outcome = under_way.end()
    assert outcome.told["status"] == "completed", outcome.progress
    spawned = [recorded.event for recorded in home.events() if recorded.event.type == "process-spawned"]
    eu = [event for event in spawned if event.instance == "web-eu"]  # type: ignore[attr-defined]
    assert len(eu) == 2
    assert [event.env["TOKEN"] for event in eu] == ["${secret:token}"] * 2  # type: ignore[attr-defined]
    assert files_with(VALUE, home.run_dir) == []
    assert VALUE not in outcome.progress + str(outcome.told)
    assert home.run_dir.stat().st_mode & 0o777 == 0o700


def test_another_source_is_named_on_the_command_line_and_only_the_source_is_recorded(tmp_path: Path) -> None:
    home = repository(tmp_path, "{secret: true, env: NOT_SET_ANYWHERE}")
    (tmp_path / "token").write_text(VALUE + "\n")
    outcome = home.drill("--set", "token=file:token").end()
    assert outcome.told["status"] == "completed", outcome.progress
    (started,) = [recorded.event for recorded in home.events() if recorded.event.type == "run-started"]
    assert started.settings == {"token": "file:token"}  # type: ignore[attr-defined]
    assert files_with(VALUE, home.run_dir) == []


def test_a_missing_source_and_a_literal_value_are_refused_before_anything_is_touched(tmp_path: Path) -> None:
    home = repository(tmp_path, "{secret: true, env: NOT_SET_ANYWHERE}")
    outcome = home.drill().end()
    assert outcome.code == 2
    assert "the variable NOT_SET_ANYWHERE is not set" in str(outcome.told) + outcome.progress
    refused = home.drill("--set", f"token={VALUE}").end()
    assert refused.code == 2
    assert VALUE not in str(refused.told) + refused.progress
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
