"""Asking an API server again within one limit: what is worth repeating, and how long to wait before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stormdrill.cluster.api import JSON, Answer, Api, Lost
from stormdrill.errors import Unreachable

AGAIN = frozenset({401, 408, 409, 429, 500, 502, 503, 504})
"""Statuses after which the same may be asked again: a moment of overload, an outage, a token that is being replaced."""
BUSY = frozenset({429, 500, 502, 503, 504})
"""Of those, with which a server says that it can't answer now."""
IN_DOUBT = frozenset({500, 502, 503, 504})
"""Of those, after which a change may have been made all the same."""
AT_LEAST_S = 0.05
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.03, 1.0


@dataclass(slots=True)
class Until:
    """A time that is shared by all requests of one thing to do."""

    limit_s: float
    now: Callable[[], float] = field(default_factory=lambda: time.monotonic)
    sleep: Callable[[float], None] = field(default_factory=lambda: time.sleep)
    last: str = ""
    """What was heard last, for messages."""
    _end_s: float = 0.0
    _pause_s: float = FIRST_PAUSE_S

    def __post_init__(self) -> None:
        self._end_s = self.now() + self.limit_s

    @property
    def left_s(self) -> float:
        return self._end_s - self.now()

    def pause(self, heard: str, retry_after_s: float | None = None) -> None:
        """Wait before asking again, as long as the server says and a growing moment at least: told to come back at
        once, all would. Raises Unreachable when that would be too late."""
        self.last = heard
        wait_s = max(self._pause_s, retry_after_s or 0.0)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        if wait_s >= self.left_s:
            raise Unreachable(f"no success within {self.limit_s:g} s; the last that was heard: {heard}")
        self.sleep(wait_s)


def call(
    api: Api,
    until: Until,
    method: str,
    path: str,
    body: object = None,
    *,
    query: Mapping[str, str] | None = None,
    content_type: str = JSON,
) -> Answer:
    """One request within what is left of the time. Raises Lost."""
    limit_s = max(AT_LEAST_S, min(until.left_s, 5.0))
    return api.call(method, path, body, query=query, content_type=content_type, limit_s=limit_s)


def read(api: Api, path: str, until: Until) -> dict[str, object] | None:
    """An object, asked for again until it was read; None when it isn't there. Raises Unreachable."""
    while True:
        try:
            answer = call(api, until, "GET", path)
        except Lost as lost:
            until.pause(str(lost))
            continue
        if answer.good:
            if read := answer.read():
                return read
            until.pause(f"GET {path}: the answer is no object")
        elif answer.status == 404:
            return None
        elif answer.status in AGAIN:
            until.pause(f"GET {path}: {answer.said}", answer.retry_after_s)
        else:
            raise Unreachable(f"GET {path}: {answer.said}")


def patient(until: Until, ask: Callable[[], Answer]) -> Answer:
    """For what changes nothing: asked again while the server only says that it is busy, as long as there is time.
    Raises what `ask` does."""
    while True:
        answer = ask()
        if answer.status not in BUSY:
            return answer
        try:
            until.pause(answer.said, answer.retry_after_s)
        except Unreachable:
            return answer


def under(what: object, *path: str) -> dict[str, object]:
    """The map at that place of an object; an empty one when there is none."""
    for name in path:
        what = what.get(name) if isinstance(what, dict) else None
    return what if isinstance(what, dict) else {}


def text(what: object, *path: str) -> str:
    """The text at that place; empty when there is none."""
    value = under(what, *path[:-1]).get(path[-1])
    return value if isinstance(value, str) else ""
