"""Device files: what an instance is told of its simulated devices, `devices/NAME` in its data directory."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from stormdrill.errors import Unreachable
from stormdrill.keeper import plain
from stormdrill.keeper.limited import request
from stormdrill.model.mechanism import Device
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Restore, Undo
from stormdrill.ports import Effect

FOLDER = "devices"
LOST = "lost"
LOOK_LIMIT_S = 0.5
METRIC = "gpu_devices"
_SAMPLE = re.compile(rf"^{METRIC}\{{[^}}]*state=\"(?P<state>[a-z]+)\"[^}}]*\}} (?P<count>\d+)", re.MULTILINE)


class Devices:
    """A device is lost when its file is gone; else the file's one word says how it does. That a device is lost the
    worker itself must say, where it serves the metric `gpu_devices{state}`; else the file is the witness."""

    permission = "write the device files in the run's directory"

    def __init__(self, data: Callable[[str], Path], address: Callable[[str], str]) -> None:
        self._data = data
        self._address = address
        self._armed: dict[str, plain.Plain | str] = {}
        """Injection → what its undo brings back, or why there is none."""
        self._taken: set[tuple[str, str]] = set()
        """Instance and device that were made lost here."""

    def refusal(self, injection: Injection) -> str:
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        found = self._armed[injection.id] = self._found(injection)
        if isinstance(found, str):
            return ()  # not ours to bring back, and `apply` says so
        data = os.path.realpath(self._data(injection.instance))
        state = _device(injection).state
        path = f"{data}/{FOLDER}/{_device(injection).device}"
        ours = "" if state == LOST else state
        return (Restore(path=path, text=found.data.decode(), mode=found.mode, ours=ours),)

    def apply(self, injection: Injection) -> None:
        """Only to what its undo brings back."""
        how, armed = _device(injection), self._armed.get(injection.id, "its undo was never written down")
        if isinstance(armed, str):
            raise Unreachable(f"{how.device} of {injection.instance}: {armed}")
        if self._found(injection) != armed:
            raise Unreachable(f"{how.device} of {injection.instance} was changed since its undo was written down")
        with (
            plain.folder(os.path.realpath(self._data(injection.instance))) as data,
            plain.folder(FOLDER, data) as there,
        ):
            if how.state == LOST:
                os.unlink(how.device, dir_fd=there)
                self._taken.add((injection.instance, how.device))
            else:  # by way of the folder above, since the worker may list its devices
                new = armed._replace(data=how.state.encode())
                plain.write(there, how.device, new, f".{how.device}.part", beside=data)

    def observe(self, injection: Injection) -> Effect:
        state, found = _device(injection).state, self._state(injection)
        what = f"{_device(injection).device} is {found or 'unreadable'}"
        if found != state:
            return Effect(False, bool(found), "the device file", what)
        told = self._told(injection.instance)
        if told is None:
            return Effect(True, False, "the device file", what)
        said = ", ".join(f"{count} {word}" for word, count in told.items() if count)
        if state != LOST:  # nobody announces a grey failure, and whether the worker notices it is what is drilled
            return Effect(True, False, "the device file", f"{what}; it tells of {said}")
        return Effect(
            told.get(LOST, 0) >= self._missing(injection.instance),
            False,
            f"its own metric {METRIC}",
            f"{what}; it tells of {said}",
        )

    def _found(self, injection: Injection) -> plain.Plain | str:
        """The device's file, or why it can't be told of."""
        try:
            with (
                plain.folder(os.path.realpath(self._data(injection.instance))) as data,
                plain.folder(FOLDER, data) as there,
            ):
                found = plain.read(there, _device(injection).device)
        except FileNotFoundError:
            found = None
        except OSError as error:
            return error.strerror or str(error)
        if found is None:
            return "it was lost before"
        try:
            found.data.decode()
        except UnicodeDecodeError:
            return "its file holds no text"
        return found

    def _missing(self, instance: str) -> int:
        """How many of those that were made lost here are lost now: one that the worker knows of is none the other."""
        folder = self._data(instance) / FOLDER
        return max(1, sum(not (folder / name).exists() for one, name in self._taken if one == instance))

    def _state(self, injection: Injection) -> str:
        """The file's word; empty when it can't be read."""
        found = self._found(injection)
        if isinstance(found, str):
            return LOST if found == "it was lost before" else ""
        return found.data.decode().strip() or "ok"

    def _told(self, instance: str) -> dict[str, int] | None:
        """State → how many devices, as the instance says; None when it doesn't."""
        address = self._address(instance)
        heard = request("GET", f"http://{address}/metrics", "", LOOK_LIMIT_S) if address else None
        if heard is None or heard.error or heard.status != 200:
            return None
        told: dict[str, int] = {}
        with contextlib.suppress(UnicodeDecodeError):
            for found in _SAMPLE.finditer(heard.body.decode()):
                told[found["state"]] = told.get(found["state"], 0) + int(found["count"])
        return told or None


def _device(injection: Injection) -> Device:
    assert isinstance(injection.how, Device)
    return injection.how
