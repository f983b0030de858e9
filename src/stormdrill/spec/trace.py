"""Reads recorded moments: a file of timestamps, or an access log. Of a log nothing but the times is kept.

Each line that isn't blank or a comment (`#`) holds one moment at its beginning, or, in an access log, in brackets:

    1732262400.25                                     seconds since 1970 or since anything, also milliseconds
    2026-11-22T08:00:00.250Z GET /cart                ISO 8601; without a zone it is UTC
    203.0.113.7 - - [22/Nov/2026:08:00:00 +0000] …    the common and the combined log format
"""

from __future__ import annotations

import hashlib
import math
import re
from calendar import timegm
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from stormdrill.errors import Problem, Refused
from stormdrill.model.profile import Trace

MAX_BYTES = 64 * 1024 * 1024
MAX_MOMENTS = 500_000
MAX_COURSE = 86_400
"""A second each, of a day at least: a burst that is averaged away would slip past the limits on a rate."""
MAX_BAD_LINES = 5
_MILLISECONDS_FROM = 1e11
"""Seconds since 1970 reach it in the year 5138."""

_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?=[\s,;]|$)")
_ISO = re.compile(
    r"""\s*["'\[]?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d+))?[ ]?(Z|[-+]\d\d:?\d\d(?!\d))?(?![\d:])"""
)
_LOGGED = re.compile(r"\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):([0-5]\d|60) ([-+])(\d\d)(\d\d)\]")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MEANT = {
    "seconds": "seconds at the line's beginning",
    "milliseconds": "milliseconds at the line's beginning",
    "iso": "a time such as 2026-11-22T08:00:00.250Z at the line's beginning",
    "access-log": "a time such as [22/Nov/2026:08:00:00 +0000] in the line",
}


class Recorded(NamedTuple):
    """A trace, and the text of the copy that a run replays: seconds since the first moment, a line each."""

    trace: Trace
    text: str


def read_trace(path: Path, name: str, form: str = "auto", time_scale: float = 1.0, rate_scale: float = 1.0) -> Recorded:
    """The moments that `path` holds, in order; `name` is the copy's in the run directory.

    Raises Refused: no such file, too large, lines without a moment (the first few, with their numbers), or fewer than
    two different moments.
    """
    moments = sorted(_moments(path, form))
    if len(moments) < 2 or moments[0] == moments[-1]:
        what = f"{len(moments)} moment{'s' if len(moments) != 1 else ''}, and no time between them"
        raise Refused([Problem(str(path), 0, 0, what, "name a recording with at least two different moments")])
    if all(moment.is_integer() for moment in moments):
        moments = list(_spread(moments))
    first = moments[0]
    text = "".join(f"{moment - first:.6f}\n" for moment in moments)
    count = len(moments)
    length_s = (moments[-1] - first) * count / (count - 1)  # as many gaps as moments: the last one is followed by one
    parts = min(MAX_COURSE, max(1, math.ceil(length_s * time_scale)))
    fallen = Counter(min(int((moment - first) / length_s * parts), parts - 1) for moment in moments)
    trace = Trace(
        file=name,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        count=count,
        length_s=length_s,
        time_scale=time_scale,
        rate_scale=rate_scale,
        course=tuple(fallen[index] for index in range(parts)),
    )
    return Recorded(trace, text)


def _moments(path: Path, form: str) -> list[float]:
    found: list[float] = []
    bad: list[Problem] = []
    read: Callable[[str], float | None] | None = _READERS.get(form)
    for number, line in enumerate(_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if read is None:
            form = _form_of(line)
            read = _READERS.get(form)
        moment = read(line) if read else None
        if moment is not None:
            found.append(moment)
        else:
            meant = MEANT.get(form) or f"a moment is meant: {', or '.join(list(MEANT.values())[0::2])}, …"
            if form == "milliseconds" and re.match(r"\s*\d{15,}", line):
                meant += "; micro- and nanoseconds have to be divided first"
            said = "".join(letter if letter.isprintable() else "?" for letter in " ".join(line[:200].split()))
            what = f"no moment in {said[:40]}{'…' if len(said) > 40 else ''}"
            bad.append(Problem(str(path), number, 1, what, f"write {meant}" if form in MEANT else meant))
        if len(bad) == MAX_BAD_LINES or (bad and read is None):
            break
        if len(found) > MAX_MOMENTS:
            fix = "replay a part of it"
            raise Refused([Problem(str(path), number, 1, f"more than {MAX_MOMENTS:,} moments", fix)])
    if bad:
        raise Refused(bad)
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        if not path.is_file():
            what = "no such file" if not path.exists() else "not an ordinary file"
            raise Refused([Problem(str(path), 0, 0, what, "check replay.file; it is relative to the profile")])
        if path.stat().st_size > MAX_BYTES:
            what = f"more than {MAX_BYTES >> 20} MB"
            raise Refused([Problem(str(path), 0, 0, what, "replay a part of it, or keep the timestamps alone")])
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            yield from file
    except OSError as error:
        raise Refused([Problem(str(path), 0, 0, f"cannot be read: {error.strerror}", "check the path")]) from None


def _form_of(line: str) -> str:
    """What the first line is; empty for none that is known."""
    if _LOGGED.search(line):
        return "access-log"
    if _ISO.match(line):
        return "iso"
    number = _NUMBER.match(line)
    if number is None:
        return ""
    return "milliseconds" if float(number[1]) >= _MILLISECONDS_FROM else "seconds"


def _spread(moments: list[float]) -> Iterator[float]:
    """What is known to the second is spread over it: m requests of one second come evenly in it."""
    within, position = Counter(moments), Counter[float]()
    for moment in moments:
        position[moment] += 1
        yield moment + (position[moment] - 0.5) / within[moment]


def _seconds(line: str) -> float | None:
    match = _NUMBER.match(line)
    moment = float(match[1]) if match else math.inf
    return moment if moment < 1e15 else None


def _milliseconds(line: str) -> float | None:
    moment = _seconds(line)
    return None if moment is None else moment / 1000


def _iso(line: str) -> float | None:
    match = _ISO.match(line)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    if int(clock[6:]) > 60:  # 60: a leap second
        return None
    try:
        base = _minute(f"{day}T{clock[:5]}{zone or 'Z'}") + int(clock[6:])
    except (ValueError, OverflowError):
        return None
    return base + (float(f"0.{fraction}") if fraction else 0.0)


_known: dict[str, float] = {}
"""Minutes that were read before: neighbours share theirs, and reading a date is slow."""


def _minute(text: str) -> float:
    found = _known.get(text)
    if found is None:
        if len(_known) > 10_000:
            _known.clear()
        read = datetime.fromisoformat(text)
        found = _known[text] = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    return found


def _logged(line: str) -> float | None:
    match = _LOGGED.search(line)
    if match is None or match[2] not in _MONTHS:
        return None
    day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
    date = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
    if not (date[0] and 1 <= date[2] <= 31 and date[3] < 24 and date[4] < 60):
        return None
    zone_s = (int(hours) * 60 + int(minutes)) * 60 * (-1 if sign == "-" else 1)
    return float(timegm(date) - zone_s)


_READERS: dict[str, Callable[[str], float | None]] = {
    "seconds": _seconds,
    "milliseconds": _milliseconds,
    "iso": _iso,
    "access-log": _logged,
}
