"""Mechanisms that need only files and addresses: what they see, and what they make of silence."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Device, DeviceState, Tell
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Restore
from stormdrill.proxy import toxic
from stormdrill.targets.portable import proxied
from stormdrill.targets.portable.devices import Devices
from stormdrill.targets.portable.telling import Telling, same, value_at

STATES: tuple[DeviceState, ...] = ("lost", "slow", "hang", "cold")


def injection(how: Device | Tell, mechanism: str) -> Injection:
    return Injection("f/gpu-eu", "f", 0, "gpu-eu", mechanism, "undo", 0.0, 5.0, how=how)


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    folder = tmp_path / "gpu-eu" / "devices"
    folder.mkdir(parents=True)
    (folder / "gpu0").write_text("ok\n")
    (folder / "gpu0").chmod(0o640)
    return Devices(lambda name: tmp_path / name, lambda name: "")


@pytest.mark.parametrize("state", STATES)
def test_a_device_is_told_and_restored_as_it_was(devices: Devices, state: DeviceState, tmp_path: Path) -> None:
    path = tmp_path / "gpu-eu" / "devices" / "gpu0"
    wanted = injection(Device("gpu0", state), "device")
    assert devices.undo(wanted) == (Restore(path=str(path), text="ok\n", mode=0o640),)
    assert not devices.observe(wanted).bit
    devices.apply(wanted)
    seen = devices.observe(wanted)
    assert (seen.bit, seen.gone, seen.witness) == (True, False, "the device file")
    assert [item.name for item in path.parent.iterdir()] == ([] if state == "lost" else ["gpu0"]), (
        "nothing else is left"
    )
    path.write_text("ok\n")
    assert devices.observe(wanted).gone


def test_a_device_that_is_lost_already_is_nobody_s_to_lose(devices: Devices, tmp_path: Path) -> None:
    (tmp_path / "gpu-eu" / "devices" / "gpu0").unlink()
    wanted = injection(Device("gpu0", "slow"), "device")
    assert devices.undo(wanted) == ()
    with pytest.raises(Unreachable, match="was lost before"):
        devices.apply(wanted)


def test_a_system_that_does_not_answer_shows_neither_effect_nor_its_end() -> None:
    told = Tell("gateway", "POST", "/r", "{}", "POST", "/r", "{}", "/r", ".version == leaky")
    telling = Telling(lambda name: "127.0.0.1:9")
    seen = telling.observe(injection(told, "tell"))
    assert (seen.bit, seen.gone) == (False, False)
    with pytest.raises(Unreachable, match=r"POST http://127\.0\.0\.1:9/r"):
        telling.apply(injection(told, "tell"))


@pytest.mark.parametrize(
    ("found", "wanted", "yes"),
    [
        (30, "30", True),
        (30.0, "30", True),
        ("30", "30.0", True),
        ("leaky", "leaky", True),
        ("stable", "leaky", False),
        (True, "true", True),
        (True, "1", False),
        (None, "0", False),
    ],
)
def test_what_the_system_tells_is_compared_as_meant(found: object, wanted: str, yes: bool) -> None:
    assert same(found, wanted) is yes


@given(st.lists(st.text(alphabet="abc_", min_size=1), min_size=1, max_size=4), st.integers())
def test_a_dotted_path_finds_what_stands_there(names: list[str], value: int) -> None:
    answer: object = value
    for name in reversed(names):
        answer = {name: answer}
    assert value_at(f".{'.'.join(names)} == {value}", answer) == value
    with pytest.raises((LookupError, TypeError)):
        value_at(f".{'.'.join(names)}.more == 1", answer)


def test_what_is_told_when_planning_is_what_the_proxy_takes() -> None:
    assert (proxied.LONGEST_DELAY_MS, proxied.LONGEST_LIFE_S) == (toxic.LONGEST_DELAY_MS, toxic.LONGEST_LIFE_S)
    assert proxied.LONGEST_TAG == toxic.LONGEST_TAG
    assert dict(toxic.KINDS) == proxied.FIELDS
    for speed, takes in zip(proxied.SPEEDS_BYTES_PER_S, (0.99, 1.01), strict=True):
        for wanted, status in ((speed, None), (speed * takes, 400)):
            body = json.dumps({"routes": ["a>b"], "kind": "trickle", "bytes_per_s": wanted}).encode()
            with nullcontext() if status is None else pytest.raises(toxic.ToxicError):
                toxic.read("t", body, {"a>b": None})
