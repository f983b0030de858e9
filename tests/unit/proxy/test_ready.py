"""A proxy that begins with its toxics, and the program beside it that says whether it may be used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hop_world import free_port

from stormdrill.proxy.config import ConfigError, parse

TOXIC = {"routes": ["a"], "kind": "refuse", "expires_in_s": 60}


def told(config: dict[str, object], *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "stormdrill.proxy.ready", *words]
    env = {**os.environ, "STORMDRILL_PROXY": json.dumps(config)}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20, check=False)


@contextmanager
def proxy(config: dict[str, object]) -> Iterator[None]:
    env = {**os.environ, "STORMDRILL_PROXY": json.dumps(config)}
    with subprocess.Popen([sys.executable, "-m", "stormdrill.proxy"], env=env, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def configuration(to: int, **more: object) -> dict[str, object]:
    route = {"name": "a", "listen": free_port(), "to": f"127.0.0.1:{to}"}
    return {"control": free_port(), "routes": [route], **more}


def test_it_is_ready_once_it_answers_and_what_it_leads_to_does() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as callee:
        config = configuration(callee.getsockname()[1])
        early = told(config)
        assert (early.returncode, "the control at" in early.stderr) == (1, True)
        with proxy(config):
            end_s = time.monotonic() + 15
            while told(config).returncode:
                assert time.monotonic() < end_s
            callee.close()
            late = told(config)
            assert (late.returncode, "where it leads" in late.stderr) == (1, True)


def test_a_toxic_of_the_configuration_is_in_force_from_the_first_connection_on() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as callee:
        config = configuration(callee.getsockname()[1], toxics={"late/feed": TOXIC})
        with proxy(config):
            end_s = time.monotonic() + 15
            while told(config).returncode:
                assert time.monotonic() < end_s
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", config["routes"][0]["listen"]), 5)  # type: ignore[index]
            (shown,) = json.loads(told(config, "--toxics").stdout)
    assert (shown["tag"], shown["kind"]) == ("late/feed", "refuse")


def test_a_toxic_that_is_none_is_refused_before_anything_listens() -> None:
    with pytest.raises(ConfigError, match="write an object"):
        parse(json.dumps({"routes": [], "toxics": []}))
    config = configuration(9, toxics={"late": {"routes": ["a"], "kind": "sleep"}})
    env = {**os.environ, "STORMDRILL_PROXY": json.dumps(config)}
    argv = [sys.executable, "-m", "stormdrill.proxy"]
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, "toxics: late" in ended.stderr) == (2, True)
