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

    def __init__(self, address: Callable[[str], str], look_limit_s: float = LOOK_LIMIT_S) -> None:
        self._address, self._look_limit_s = address, look_limit_s

    def refusal(self, injection: Injection) -> str:
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        """Raises Unreachable where the undo would not leave things as they are now."""
        tell = _tell(injection)
        path, _, _ = tell.look.partition(" == ")
        back, now = _value(tell.look, tell.undo_body), self._look(injection)
        if not isinstance(now, Effect) and back is not None and not same(now, str(back)):
            where = f"{path} at {tell.look_path} of {injection.instance}"
            raise Unreachable(f"{where} is {now} already, and the undo would make it {back}: set it to {back} first")
        return (Call(tell.undo_method, self._url(injection, tell.undo_path), tell.undo_body, TELL_LIMIT_S),)

    def apply(self, injection: Injection) -> None:
        tell = _tell(injection)
        url = self._url(injection, tell.path)
        heard = request(tell.method, url, tell.body, TELL_LIMIT_S)
        if heard.error or heard.status // 100 != 2:
            said = heard.error or f"answered {heard.status}: {heard.body[:200].decode('utf-8', 'replace')}"
            raise Unreachable(f"{tell.method} {url}: {said}")

    def observe(self, injection: Injection) -> Effect:
        found = self._look(injection)
        if isinstance(found, Effect):
            return found
        path, _, wanted = _tell(injection).look.partition(" == ")
        there = same(found, wanted)
        return Effect(there, not there, self._witness(injection), f"{path} is {found}")

    def _look(self, injection: Injection) -> object:
        """What stands there now; an Effect when nobody can tell."""
        tell, witness = _tell(injection), self._witness(injection)
        heard = request("GET", self._url(injection, tell.look_path), "", self._look_limit_s)
        if heard.error or heard.status != 200:
            return Effect(False, False, witness, heard.error or f"answered {heard.status}")
        try:
            return value_at(tell.look, json.loads(heard.body))
        except (ValueError, LookupError, TypeError):
            said = heard.body[:100].decode("utf-8", "replace")
            return Effect(False, False, witness, f"answered something else: {said}")

    @staticmethod
    def _witness(injection: Injection) -> str:
        return f"GET {_tell(injection).look_path} of {injection.instance}"

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
    """30 and 30.0 are the same number; anything else is compared as text: "1.10" is not the version "1.1"."""
    if isinstance(found, bool):
        return wanted == str(found).lower()
    if isinstance(found, int | float):
        try:
            return float(found) == float(wanted)
        except ValueError:
            return False
    return str(found) == wanted


def _value(look: str, body: str) -> object:
    """What a request's body sets where `look` looks; None when it doesn't say."""
    try:
        return value_at(look, json.loads(body))
    except (ValueError, LookupError, TypeError):
        return None


def _tell(injection: Injection) -> Tell:
    assert isinstance(injection.how, Tell)
    return injection.how
