"""Requests to the system itself that its file declares: a release that is rolled out, data that are made old."""

from __future__ import annotations

import json
from collections.abc import Callable

from stormdrill.errors import Unreachable
from stormdrill.keeper.limited import request
from stormdrill.model.mechanism import Tell
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Call, Undo
from stormdrill.ports import Effect

TELL_LIMIT_S = 3.0
LOOK_LIMIT_S = 0.8


class Telling:
    """One request does it and one takes it back; a third one, which only looks, is the witness."""

    permission = "ask the system's own admin interface"

    def __init__(self, address: Callable[[str], str]) -> None:
        self._address = address

    def refusal(self, injection: Injection) -> str:
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        tell = _tell(injection)
        return (Call(tell.undo_method, self._url(injection, tell.undo_path), tell.undo_body, TELL_LIMIT_S),)

    def apply(self, injection: Injection) -> None:
        tell = _tell(injection)
        url = self._url(injection, tell.path)
        heard = request(tell.method, url, tell.body, TELL_LIMIT_S)
        if heard.error or heard.status // 100 != 2:
            said = heard.error or f"answered {heard.status}: {heard.body[:200].decode('utf-8', 'replace')}"
            raise Unreachable(f"{tell.method} {url}: {said}")

    def observe(self, injection: Injection) -> Effect:
        tell = _tell(injection)
        url, witness = self._url(injection, tell.look_path), f"GET {tell.look_path} of {injection.instance}"
        heard = request("GET", url, "", LOOK_LIMIT_S)
        if heard.error or heard.status != 200:
            return Effect(False, False, witness, heard.error or f"answered {heard.status}")
        try:
            found = value_at(tell.look, json.loads(heard.body))
        except (ValueError, LookupError, TypeError):
            return Effect(
                False, False, witness, f"answered something else: {heard.body[:100].decode('utf-8', 'replace')}"
            )
        path, _, wanted = tell.look.partition(" == ")
        there = same(found, wanted)
        return Effect(there, not there, witness, f"{path} is {found}")

    def _url(self, injection: Injection, path: str) -> str:
        return f"http://{self._address(injection.instance)}{path}"


def value_at(look: str, answer: object) -> object:
    """What stands at the dotted path of `.version == leaky`. Raises LookupError or TypeError."""
    found = answer
    for name in look.partition(" == ")[0].strip(".").split("."):
        if not isinstance(found, dict):
            raise TypeError(f"{name} of what is no object")
        found = found[name]
    return found


def same(found: object, wanted: str) -> bool:
    """30, 30.0 and "30" are the same number; anything else is compared as text."""
    if isinstance(found, bool):
        return wanted == str(found).lower()
    try:
        return float(str(found)) == float(wanted)
    except ValueError:
        return str(found) == wanted


def _tell(injection: Injection) -> Tell:
    assert isinstance(injection.how, Tell)
    return injection.how
