"""What a run depends on, copied into its directory; and the review's templates, wherever they go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from stormdrill.api.session import Inputs


TEMPLATES = "reviews/templates"


def templates_in(roots: Sequence[Path]) -> Path | None:
    """The folder of the first repository that has one."""
    return next((root / TEMPLATES for root in roots if (root / TEMPLATES).is_dir()), None)


def files_of(templates: Path | None) -> Iterator[Path]:
    for path in sorted(templates.iterdir()) if templates is not None else ():
        if path.is_file():
            yield path


def texts(inputs: Inputs) -> dict[str, str]:
    """Every text that is copied into the run directory: no secret may stand in one of them."""
    found = {name: source.text for name, source in inputs.sources.items()}
    return found | {f"templates/{path.name}": path.read_text(errors="replace") for path in files_of(inputs.templates)}


def remove_empty(run_dir: Path) -> None:
    for sub in ("load", "logs"):
        (run_dir / sub).rmdir()
    run_dir.rmdir()


def copied(inputs: Inputs, run_dir: Path) -> dict[str, str]:
    """Copies of everything that the run depends on; returns their SHA-256."""
    files = {name: source.text.encode() for name, source in inputs.sources.items()}
    files["plan.json"] = msgspec.json.format(msgspec.json.encode(inputs.plan), indent=1) + b"\n"
    files |= {f"templates/{path.name}": path.read_bytes() for path in files_of(inputs.templates)}
    for name, data in files.items():
        place = run_dir / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
