"""Device files: what an instance is told of its simulated devices, `devices/NAME` in its data directory."""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Callable
from pathlib import Path

from stormdrill.errors import Unreachable
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

    def refusal(self, injection: Injection) -> str:
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        path = self._path(injection)
        try:
            text, mode = path.read_text(), stat.S_IMODE(path.stat().st_mode)
        except OSError:
            return ()  # somebody else's doing: not ours to bring back, and `apply` says so
        return (Restore(path=str(path), text=text, mode=mode),)

    def apply(self, injection: Injection) -> None:
        path, state = self._path(injection), _device(injection).state
        if not path.exists():
            raise Unreachable(f"{path.name} of {injection.instance} was lost before")
        if state == LOST:
            path.unlink()
            return
        part = path.parent.parent / f".{path.name}.part"  # beside the folder, which the worker may list
        part.write_text(state)
        part.chmod(stat.S_IMODE(path.stat().st_mode))
        part.replace(path)

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
        return Effect(told.get(LOST, 0) > 0, False, f"its own metric {METRIC}", f"{what}; it tells of {said}")

    def _path(self, injection: Injection) -> Path:
        return self._data(injection.instance) / FOLDER / _device(injection).device

    def _state(self, injection: Injection) -> str:
        try:
            return self._path(injection).read_text().strip() or "ok"
        except FileNotFoundError:
            return LOST
        except OSError:
            return ""

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
