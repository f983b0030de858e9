"""Where files are looked for: the user's repository, then what stormdrill ships, however it was installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stormdrill
from stormdrill.spec import catalogue

ROOT = Path(__file__).parents[3]


def test_an_editable_install_finds_the_checkout_around_it() -> None:
    if (Path(stormdrill.__file__).parent / "catalogue").exists():
        assert (catalogue.root() / "policy.yaml").is_file()
    else:
        assert catalogue.root() == ROOT
    assert (catalogue.root() / "experiments" / "region-loss.yaml").is_file()


def test_a_wheel_s_catalogue_lies_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "stormdrill"
    (package / "catalogue").mkdir(parents=True)
    (package / "catalogue" / "policy.yaml").write_text("max_share: 10%\n")
    monkeypatch.setattr(stormdrill, "__file__", str(package / "__init__.py"))
    assert catalogue.root() == package / "catalogue"


def test_a_broken_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stormdrill, "__file__", str(tmp_path / "a" / "b" / "stormdrill" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="install stormdrill again"):
        catalogue.root()


def test_the_repository_of_an_experiment_is_around_its_experiments_folder(tmp_path: Path) -> None:
    nested = tmp_path / "drills" / "experiments" / "nightly" / "loss.yaml"
    assert catalogue.roots_for(nested) == (tmp_path / "drills", catalogue.root())
    assert catalogue.roots_for(tmp_path / "loose" / "loss.yaml")[0] == tmp_path
    shipped = catalogue.root() / "experiments" / "region-loss.yaml"
    assert catalogue.roots_for(shipped) == (catalogue.root(),)


def test_the_first_root_wins_and_names_are_listed_once(tmp_path: Path) -> None:
    for number in ("1", "2"):
        (tmp_path / number / "loadgen").mkdir(parents=True)
        (tmp_path / number / "loadgen" / "peak.yaml").write_text(number)
    (tmp_path / "2" / "loadgen" / "steady.yaml").write_text("")
    (tmp_path / "2" / "loadgen" / "_hidden.yaml").write_text("")
    roots = (tmp_path / "1", tmp_path / "2", tmp_path / "missing")
    assert catalogue.find(roots, "loadgen/peak.yaml") == tmp_path / "1" / "loadgen" / "peak.yaml"
    assert catalogue.find(roots, "loadgen/none.yaml") is None
    assert catalogue.names(roots, "loadgen") == ["peak", "steady"]


def test_paths_below_the_working_directory_are_shown_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert catalogue.display(tmp_path / "a" / "b.yaml") == Path("a/b.yaml")
    assert catalogue.display(Path("/elsewhere/b.yaml")) == Path("/elsewhere/b.yaml")


def test_reading_an_experiment_imports_nothing_heavy() -> None:
    experiment = str(ROOT / "experiments" / "region-loss.yaml")
    script = (
        "import sys; from pathlib import Path; from stormdrill.spec.load import read_experiment\n"
        "from stormdrill.faults.region_loss import Parameters\n"
        f"read_experiment(Path({experiment!r}), faults={{'region-loss': Parameters}})\n"
        "heavy = {'locust', 'kubernetes', 'numpy', 'jinja2', 'aiohttp', 'rich', 'markdown_it', 'importlib.metadata',"
        " 'difflib', 'zoneinfo', 'dataclasses', 'asyncio'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "\n")
