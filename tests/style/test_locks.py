"""The locks hold what pyproject asks for, with hashes, and no address of an index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ASKED = {
    "requirements.lock": [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["build"]],
    "requirements-dev.lock": [one for one in PROJECT["dependency-groups"]["dev"] if isinstance(one, str)],
}


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]).lower()


@pytest.mark.parametrize("lock", sorted(ASKED))
def test_the_lock_holds_everything_that_is_asked_for(lock: str) -> None:
    locked = {name_of(line) for line in (ROOT / lock).read_text(encoding="utf-8").splitlines() if "==" in line}
    assert {name_of(one) for one in ASKED[lock]} <= locked


@pytest.mark.parametrize("lock", sorted(ASKED))
def test_the_lock_names_no_place_to_download_from(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|^-", text, re.MULTILINE)


@pytest.mark.parametrize("lock", sorted(ASKED))
def test_every_locked_package_is_pinned_by_hash(lock: str) -> None:
    blocks = re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf-8").strip())
    assert [block.split("==")[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_both_locks_agree_on_what_they_share() -> None:
    pins = [dict(re.findall(r"^(\S+?)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE)) for lock in sorted(ASKED)]
    dev, runtime = pins
    assert {name: (version, dev.get(name)) for name, version in runtime.items() if dev.get(name) != version} == {}
