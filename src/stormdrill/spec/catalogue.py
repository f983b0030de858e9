"""Where the four content folders are: the user's repository first, then the catalogue that stormdrill ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import stormdrill


def root() -> Path:
    """The built-in catalogue: inside the package when installed from a wheel, else the source checkout around it.

    Raises FileNotFoundError when neither is there, which means a broken installation.
    """
    package = Path(stormdrill.__file__).resolve().parent
    shipped = package / "catalogue"
    if (shipped / "policy.yaml").is_file():
        return shipped
    checkout = package.parent.parent
    if (checkout / "policy.yaml").is_file() and (checkout / "experiments").is_dir():
        return checkout
    raise FileNotFoundError(f"no catalogue in {package} and none around it: install stormdrill again")


def roots_for(experiment: Path) -> tuple[Path, ...]:
    """Where an experiment's other files are looked for: its own repository, then the built-in catalogue."""
    absolute = experiment.absolute()
    around = next((parent for parent in absolute.parents if parent.name == "experiments"), absolute.parent)
    builtin = root()
    return (around.parent,) if around.parent == builtin else (around.parent, builtin)


def find(roots: Sequence[Path], relative: str) -> Path | None:
    """The first of the roots' files with this relative path."""
    for folder in roots:
        if (folder / relative).is_file():
            return display(folder / relative)
    return None


def names(roots: Sequence[Path], folder: str, ending: str = ".yaml") -> list[str]:
    """The names of a content folder's files, without their ending, over all roots, sorted."""
    return sorted(
        {
            path.stem
            for place in roots
            for path in (place / folder).glob(f"*{ending}")
            if not path.name.startswith((".", "_"))
        }
    )


def display(path: Path) -> Path:
    """The path as messages show it: relative when it is below the working directory."""
    here = Path.cwd()
    absolute = path.absolute()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else absolute
