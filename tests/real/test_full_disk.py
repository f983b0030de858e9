"""A disk that fills up in the middle of a fault, on a real file system of 8 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real
SCRIPT = Path(__file__).with_name("full_disk.py")
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


def on_a_small_disk(disk: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run it in a mount namespace of its own, where `disk` is 8 MB."""
    mount_then_run = ["sh", "-c", 'mount -t tmpfs -o size=8m none "$1" && shift && exec "$@"', "sh", str(disk), *argv]
    return subprocess.run([*UNSHARE, *mount_then_run], capture_output=True, text=True, check=False, timeout=60)


def test_on_a_full_disk_the_fault_is_reverted_first_and_the_record_gets_its_end(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if on_a_small_disk(disk, "true").returncode:
        pytest.skip("no mount namespace is permitted here")
    ended = on_a_small_disk(disk, sys.executable, str(SCRIPT), str(disk))
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert "disk is full" in said["refusal"]
    assert (said["outcome"], said["frozen"], said["alive"], said["left"], said["open"]) == ("done", False, False, [], 0)
    assert said["problems"] == []
    assert said["words"][-3:] == ["process-exited", "torn-down", "run-ended"]
    assert "reverted" in said["words"]
