"""One number from one HTTP answer: a place in its JSON, or whether it was a 2xx at all."""

from __future__ import annotations

import json
import math

from stormdrill.ports import Answer
from stormdrill.probes.call import http_call
from stormdrill.spec.runbook_path import Missing, kind_of, look_up, parse_path


class HttpProbe:
    """`path` as in `.capacity.headroom`; empty: 1 for a 2xx answer, 0 for any other."""

    def __init__(self, url: str, path: str = "", *, method: str = "GET") -> None:
        """Raises ValueError for a path that cannot be read."""
        self.url, self.method = url, method
        self._path = parse_path(path) if path else None

    def read(self, timeout_s: float) -> Answer:
        reply = http_call(self.method, self.url, "", timeout_s)
        if reply.error:
            return Answer((), reply.error, reply.took_ms)
        good = 200 <= reply.status < 300
        if self._path is None:
            return Answer((({}, float(good)),), took_ms=reply.took_ms)
        if not good:
            return Answer((), f"{self.url} answered {reply.status}", reply.took_ms)
        value, detail = number_at(reply.text, self._path)
        if detail:
            return Answer((), f"{self.url}: {detail}", reply.took_ms)
        return Answer((({}, value),), took_ms=reply.took_ms)


def number_at(text: str, path: tuple[str | int, ...]) -> tuple[float, str]:
    """The number in a JSON text (true is 1, false is 0), and why there is none."""
    try:
        found = look_up(json.loads(text), path)
    except (ValueError, RecursionError):
        return 0.0, "the answer is not JSON"
    if isinstance(found, Missing):
        return 0.0, found.detail
    if not isinstance(found, bool | int | float):
        return 0.0, f"there is {kind_of(found)}, not a number"
    try:
        value = float(found)
    except OverflowError:
        value = math.inf
    return (value, "") if math.isfinite(value) else (0.0, f"the number is {value}")
