"""Mechanisms that need only files and addresses: what they see, and what they make of silence."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Device, DeviceState, Tell, Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Restore
from stormdrill.proxy import toxic
from stormdrill.targets.portable import proxied
from stormdrill.targets.portable.devices import Devices
from stormdrill.targets.portable.telling import Telling, same, value_at

STATES: tuple[DeviceState, ...] = ("lost", "slow", "hang", "cold")


def injection(how: Device | Tell, mechanism: str, id: str = "f/gpu-eu") -> Injection:
    return Injection(id, "f", 0, "gpu-eu", mechanism, "undo", 0.0, 5.0, how=how)


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
    assert devices.undo(wanted) == (Restore(str(path), "ok\n", 0o640, "" if state == "lost" else state),)
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
        ("30", "30", True),
        ("1.10", "1.1", False),
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


def test_a_device_is_harmed_only_as_its_undo_was_written_down(devices: Devices, tmp_path: Path) -> None:
    path = tmp_path / "gpu-eu" / "devices" / "gpu0"
    wanted = injection(Device("gpu0", "lost"), "device")
    with pytest.raises(Unreachable, match="never written down"):
        devices.apply(wanted)
    path.unlink()
    assert devices.undo(wanted) == ()
    path.write_text("ok\n")
    with pytest.raises(Unreachable):
        devices.apply(wanted)
    assert len(devices.undo(wanted)) == 1
    path.write_text("cold")
    with pytest.raises(Unreachable, match="changed since"):
        devices.apply(wanted)
    assert path.read_text() == "cold", "and nobody is harmed without an undo"


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe", "bytes", "folder"])
def test_what_is_no_plain_device_file_is_neither_read_nor_written(devices: Devices, tmp_path: Path, kind: str) -> None:
    """The instance may put there what it likes; the runner may be root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "gpu0").write_text("precious")
    folder = tmp_path / "gpu-eu" / "devices"
    path = folder / "gpu0"
    path.unlink()
    if kind == "link":
        path.symlink_to(outside / "gpu0")
    elif kind == "folder link":
        folder.rmdir()
        folder.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe")
    else:
        path.mkdir()
    for state in STATES:
        wanted = injection(Device("gpu0", state), "device")
        assert devices.undo(wanted) == ()
        with pytest.raises(Unreachable):
            devices.apply(wanted)
        assert not devices.observe(wanted).bit
    assert (outside / "gpu0").read_text() == "precious"


def test_a_device_s_new_word_is_not_written_through_a_link_on_its_way(devices: Devices, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "gpu-eu" / ".gpu0.part").symlink_to(precious)
    wanted = injection(Device("gpu0", "slow"), "device")
    devices.undo(wanted)
    devices.apply(wanted)
    assert devices.observe(wanted).bit
    assert precious.read_text() == "precious"


def test_one_lost_device_that_is_noticed_does_not_speak_for_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "gpu-eu" / "devices"
    folder.mkdir(parents=True)
    for name in ("gpu0", "gpu1"):
        (folder / name).write_text("ok\n")
    with served(b'gpu_devices{state="lost"} 1\ngpu_devices{state="ok"} 1\n') as address:
        devices = Devices(lambda name: tmp_path / name, lambda name: address)
        first, second = (injection(Device(name, "lost"), "device", f"f/{name}") for name in ("gpu0", "gpu1"))
        for one, bit in ((first, True), (second, False)):
            devices.undo(one)
            devices.apply(one)
            assert devices.observe(one).bit is bit


LAG = Tell("feed", "PUT", "/lag", '{"seconds": 30}', "PUT", "/lag", '{"seconds": 0}', "/lag", ".seconds == 30")


@pytest.mark.parametrize("now", [30, 5])
def test_what_the_undo_would_not_leave_as_it_is_now_is_not_armed(now: int) -> None:
    """30: the fault would do nothing and be seen to bite. 5: the undo would write over what somebody has set."""
    with served(f'{{"seconds": {now}}}'.encode()) as address, pytest.raises(Unreachable, match=f"is {now} already"):
        Telling(lambda name: address).undo(injection(LAG, "tell"))


@pytest.mark.parametrize("answer", [b'{"seconds": 0.0}', b"{}", b"what?"])
def test_what_is_as_the_undo_leaves_it_or_untold_is_armed(answer: bytes) -> None:
    with served(answer) as address:
        assert len(Telling(lambda name: address).undo(injection(LAG, "tell"))) == 1


@contextmanager
def served(body: bytes) -> Iterator[str]:
    """The address of a server that answers every GET with this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_proxy_that_is_gone_shapes_nothing_any_more_and_one_that_only_fails_may() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    cut = Injection("p/eu", "p", 0, "eu", "cut", "join again", 0.0, 5.0, how=Toxic(("a>b",), "cut"))
    seen = proxied.Toxics(lambda: address, lambda: frozenset({"a>b"})).observe(cut)
    assert (seen.bit, seen.gone) == (False, True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen(1)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        threading.Thread(target=lambda: silent.accept()[0].close(), daemon=True).start()
        seen = proxied.Toxics(lambda: address, lambda: frozenset({"a>b"})).observe(cut)
    assert (seen.bit, seen.gone) == (False, False)
