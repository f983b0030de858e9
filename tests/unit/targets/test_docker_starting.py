"""How containers are made: on the engine that is claimed, and with a sentence when it goes away."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ELSEWHERE = "tcp://192.0.2.1:2375"


@pytest.mark.parametrize(
    ("named", "claimed"),
    [
        ("", "unix:///var/run/docker.sock"),
        ("unix:///run/mine.sock", "unix:///run/mine.sock"),
        ("tcp://127.0.0.1:2375", "http://127.0.0.1:2375"),
    ],
)
def test_things_are_made_on_the_engine_that_is_claimed_whatever_context_or_file_names_another(
    named: str, claimed: str, tmp_path: Path
) -> None:
    (tmp_path / ".testcontainers.properties").write_text(f"tc.host={ELSEWHERE}\n")
    context = tmp_path / ".docker/contexts/meta" / hashlib.sha256(b"far").hexdigest()
    context.mkdir(parents=True)
    meta = {"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": ELSEWHERE, "SkipTLSVerify": False}}}
    (context / "meta.json").write_text(json.dumps(meta))
    (tmp_path / ".docker/config.json").write_text(json.dumps({"currentContext": "far"}))
    tells = (
        "from stormdrill.targets.docker import starting\n"
        "from stormdrill.targets.docker.engine import address, as_docker_host\n"
        "from testcontainers.core.docker_client import get_docker_host\n"
        "print(address(), as_docker_host(address()) == get_docker_host())"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "DOCKER_HOST": named}
    said = subprocess.run(
        [sys.executable, "-c", tells], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == f"{claimed} True\n"
