"""Ports of several runs on one machine: nobody gets what another one counts on."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from stormdrill.targets.process.wiring import BLOCK, FreePorts


@pytest.fixture
def runs() -> Iterator[list[FreePorts]]:
    made: list[FreePorts] = []
    yield made
    for one in made:
        one.close()


def test_no_two_runs_get_a_port_of_each_other_although_nobody_listens_yet(runs: list[FreePorts]) -> None:
    """Each run frees its ports before its programs bind them; another one that starts at that moment looks for some."""
    taken: list[int] = []
    for _ in range(20):
        runs.append(FreePorts())
        taken += [runs[-1].take() for _ in range(40)]
        runs[-1].release()
    assert len(set(taken)) == len(taken)


def test_a_run_may_need_more_than_a_block(runs: list[FreePorts]) -> None:
    runs.append(FreePorts())
    taken = [runs[0].take() for _ in range(2 * BLOCK)]
    assert len(set(taken)) == 2 * BLOCK


def test_what_was_taken_can_be_listened_on_once_it_is_released(runs: list[FreePorts]) -> None:
    runs.append(FreePorts())
    port = runs[0].take()
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    runs[0].release()
    socket.create_server(("127.0.0.1", port)).close()


def test_ports_in_use_by_strangers_are_left_out(runs: list[FreePorts]) -> None:
    runs.append(FreePorts())
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", runs[0].take() + 1))
        assert stranger.getsockname()[1] not in [runs[0].take() for _ in range(BLOCK)]
