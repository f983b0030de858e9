"""What goes into an image: readable by whoever runs it, whoever has built it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from stormdrill.targets.docker import image, starting
from stormdrill.targets.docker.image import Base


def test_a_careful_umask_keeps_nothing_of_it_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}

    def looked_at(context: Path, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> None:
        seen.update({str(path.relative_to(context)): path.stat().st_mode & 0o777 for path in context.rglob("*")})

    monkeypatch.setattr(starting, "build_image", looked_at)
    base = Base("base", "sha256:1", image._own_python(), iptables=False)
    before = os.umask(0o077)
    try:
        image._make("tag", "fingerprint", base, b"FROM base", ())
    finally:
        os.umask(before)
    assert {"Dockerfile", "site", "own/stormdrill/__init__.py"} <= set(seen)
    assert set(seen.values()) == {0o755, 0o644}
    assert (seen["site"], seen["own/stormdrill/__init__.py"]) == (0o755, 0o644)
