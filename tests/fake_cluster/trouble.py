"""What goes wrong on request: refusals, lost requests and answers, slowness; and callbacks at the nth change."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from fake_cluster.calls import Request
from fake_cluster.problems import Problem, gone, problem, unauthorized

WORDS = ("500", "429", "503", "401", "403", "410", "drop-before", "drop-after")
REVIEWS = ("accessreviews", "rulesreviews", "tokenreviews", "subjectreviews")


@dataclass(slots=True)
class Trouble:
    method: str
    """Regular expressions, whole method, part of the path."""
    path: str
    what: str
    left: int

    def meets(self, request: Request) -> bool:
        return bool(re.fullmatch(self.method, request.method) and re.search(self.path, request.path))


@dataclass(slots=True)
class Moment:
    """At the nth changing request from when it was asked for."""

    left: int
    callback: Callable[[Request], None]
    when: str


@dataclass(slots=True)
class Troubles:
    due: list[Trouble] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, match: tuple[str, str], what: str, times: int) -> None:
        if what not in WORDS and not re.fullmatch(r"slow:\d+(\.\d+)?", what):
            raise ValueError(f"trouble {what!r}: one of {', '.join(WORDS)}, slow:SECONDS")
        with self.lock:
            self.due.append(Trouble(match[0], match[1], what, times))

    def next(self, request: Request) -> str:
        """What happens to this request; empty for nothing."""
        with self.lock:
            for trouble in self.due:
                if trouble.left and trouble.meets(request):
                    trouble.left -= 1
                    return trouble.what
        return ""

    def moment(self, request: Request) -> list[Moment]:
        """Whose moment this request is."""
        if not changes(request):
            return []
        with self.lock:
            for moment in self.moments:
                moment.left -= 1
            now = [moment for moment in self.moments if moment.left == 0]
            self.moments = [moment for moment in self.moments if moment.left > 0]
        return now

    def clear(self) -> None:
        with self.lock:
            self.due.clear()
            self.moments.clear()


def changes(request: Request) -> bool:
    """It would change something: no dry run, no question about rights."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return False
    if request.query.get("dryRun") or b'"dryRun"' in request.body:
        return False
    return not request.path.endswith(REVIEWS)


def refusal(what: str) -> Problem | None:
    """The answer that stands for a word; None for what is no answer."""
    if what == "401":
        return unauthorized()
    if what == "403":
        return problem(403, "forbidden for the test", "Forbidden", {})
    if what == "410":
        return gone("The resourceVersion for the provided list is too old.")
    if what == "429":
        refused = problem(
            429, "Too many requests, please try again later.", "TooManyRequests", {"retryAfterSeconds": 1}
        )
        refused.headers["Retry-After"] = "1"
        return refused
    if what == "500":
        return problem(500, "Internal error occurred: etcdserver: request timed out", "InternalError", {})
    if what == "503":
        return problem(503, "the server is currently unable to handle the request", "ServiceUnavailable", {})
    return None
