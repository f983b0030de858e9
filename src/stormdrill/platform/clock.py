"""Time as the deciding parts see it, so that tests can hold it still, jump it, or let a region sleep."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    def mono_s(self) -> float: ...
    def wall_ms(self) -> float: ...
    def boot_id(self) -> str:
        """Monotonic times of different boots can't be compared."""
        ...


class SystemClock:
    def mono_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> float:
        return time.time() * 1000.0

    def boot_id(self) -> str:
        """Empty where the kernel doesn't tell."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
