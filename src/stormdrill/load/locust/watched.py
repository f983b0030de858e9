"""Watches the two HTTP clients of Locust: who asks, and is not answered yet. Locust only tells of what is over."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable

from locust.clients import HttpSession
from locust.contrib.fasthttp import FastHttpSession

ASKING = "stormdrill_asking"
"""Where a request's context, which Locust hands on to its listeners, says which one it is."""

_BEFORE = 3
"""self, method and url, before what may be given by position too."""


class Asking:
    """A request that was not answered yet."""

    __slots__ = ("answer", "context", "done_s", "method", "name", "start_s")

    def __init__(self, method: str, name: str, context: dict[str, object]) -> None:
        self.context = context
        self.answer: object = None
        self.done_s = 0.0
        self.method = method
        self.name = name
        self.start_s = time.monotonic()


def watch_clients(asks: Callable[[Asking], None], leaves: Callable[[Asking, BaseException | None], None]) -> None:
    """For the rest of this process. `leaves` is told of each that `asks` was told of."""
    for session in (HttpSession, FastHttpSession):
        session.request = _watched(session.request, asks, leaves)


def _watched(
    original: Callable[..., object],
    asks: Callable[[Asking], None],
    leaves: Callable[[Asking, BaseException | None], None],
) -> Callable[..., object]:
    place = list(inspect.signature(original).parameters).index("context") - _BEFORE

    @functools.wraps(original)
    def request(self: object, method: str, url: str, *more: object, **options: object) -> object:
        name = more[0] if more else options.get("name")
        by_position = len(more) > place
        given = more[place] if by_position else options.get("context")
        context = given if isinstance(given, dict) else {}
        asking = Asking(str(method), str(name or getattr(self, "request_name", None) or url), context)
        if by_position:
            more = (*more[:place], {**context, ASKING: asking}, *more[place + 1 :])
        else:
            options["context"] = {**context, ASKING: asking}
        asks(asking)
        try:
            answer = original(self, method, url, *more, **options)
        except BaseException as error:
            leaves(asking, error)
            raise
        asking.answer, asking.done_s = answer, time.monotonic()
        leaves(asking, None)
        return answer

    return request
