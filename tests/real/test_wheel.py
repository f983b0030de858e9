"""The wheel is what users get: it is built, installed into a clean environment, and compared with the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import stormdrill

ROOT = Path(__file__).resolve().parents[2]
CONTENT = ("experiments", "loadgen", "runbooks", "reviews/templates")
FILES = ("policy.yaml", "Dockerfile", "requirements.lock")
CATALOGUE = "stormdrill/catalogue/"
NOT_SHIPPED = {"__pycache__"}


def content_of(root: Path) -> dict[str, bytes]:
    """The catalogue below a folder: path → bytes."""
    files = [*(root / name for name in FILES), *(path for folder in CONTENT for path in (root / folder).rglob("*"))]
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in files
        if path.is_file() and not NOT_SHIPPED & set(path.parts)
    }


def ran(argv: list[str | Path], cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel."""
    place = tmp_path_factory.mktemp("dist")
    ran([sys.executable, "-m", "hatchling", "build", "-d", place], ROOT)
    return place


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel, and with this environment's dependencies in sight."""
    place = tmp_path_factory.mktemp("env")
    venv.create(place, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    (wheel,) = built.glob("*.whl")
    # Dependencies come from here and nothing is downloaded; a .pth would drag this environment's editable install in.
    ran([sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", packages, wheel], place)
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "stormdrill" not in path.name and path.suffix != ".pth" and not (packages / path.name).exists():
            (packages / path.name).symlink_to(path)
    command = place / "bin" / "stormdrill"
    command.write_text(
        f"#!{place / 'bin' / 'python'}\nfrom stormdrill.cli.main import main\nmain()\n", encoding="utf-8"
    )
    command.chmod(0o755)
    return place / "bin"


def test_the_wheel_carries_the_catalogue_of_the_repository(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        shipped = {name: file.read(name) for name in file.namelist() if name.startswith(CATALOGUE)}
    assert {name.removeprefix(CATALOGUE): text for name, text in shipped.items()} == content_of(ROOT)


def test_the_wheel_carries_types_licence_and_the_starter_files(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "stormdrill/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    starter = ROOT / "src" / "stormdrill" / "cli" / "starter"
    assert {f"stormdrill/cli/starter/{path.name}" for path in starter.iterdir() if path.is_file()} <= names


def test_the_sdist_holds_what_it_takes_to_build_and_test_and_no_run(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "policy.yaml", "src/stormdrill/ports.py", "Makefile"} <= names
    assert any(name.startswith("tests/") for name in names)
    assert not [name for name in names if name.startswith(("runs/", ".venv/", "build/"))]


def test_the_installed_command_is_the_wheel_and_knows_its_version(installed: Path, tmp_path: Path) -> None:
    assert ran([installed / "stormdrill", "--version"], tmp_path).strip() == f"stormdrill {stormdrill.__version__}"
    where = ran([installed / "python", "-c", "import stormdrill; print(stormdrill.__file__)"], tmp_path)
    assert not Path(where.strip()).is_relative_to(ROOT / "src")


def test_the_built_in_catalogue_validates_away_from_the_repository(installed: Path, tmp_path: Path) -> None:
    listed = ran([installed / "stormdrill", "list"], tmp_path)
    for path in (ROOT / "experiments").glob("*.yaml"):
        assert path.stem in listed
    code = "from stormdrill.spec.catalogue import root; print(root())"
    catalogue = Path(ran([installed / "python", "-c", code], tmp_path).strip())
    said = ran([installed / "stormdrill", "validate", catalogue / "experiments" / "region-loss.yaml"], tmp_path)
    assert "valid" in said


def test_an_editable_install_finds_the_same_catalogue() -> None:
    from stormdrill.spec.catalogue import root

    assert content_of(root()) == content_of(ROOT)
    assert os.fspath(root()) == os.fspath(ROOT)
