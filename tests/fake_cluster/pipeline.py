"""The way of a request: trouble, who asks, what is asked, may they, the answer."""

from __future__ import annotations

import time
import traceback

from fake_cluster.calls import Call, Reply, Request, User
from fake_cluster.decoding import BODIES
from fake_cluster.discovery import plain
from fake_cluster.handling import dispatch
from fake_cluster.ownership import Manager
from fake_cluster.problems import Problem, page_not_found, problem
from fake_cluster.rbac import Asked, Rights, asked_by, denied
from fake_cluster.registry import Registry
from fake_cluster.routing import ONE, is_resource, resolve
from fake_cluster.server import LARGEST_BODY, Hangup, refused
from fake_cluster.tokens import Tokens
from fake_cluster.trouble import Moment, Troubles, refusal
from fake_cluster.watching import too_old

ACCEPTED = ("", "*/*", "application/*", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf")


class Pipeline:
    def __init__(self, registry: Registry, rights: Rights, tokens: Tokens, troubles: Troubles) -> None:
        self.requests: list[Request] = []
        self.mistakes: list[str] = []
        self.warned: list[str] = []
        self._registry, self._rights, self._tokens, self._troubles = registry, rights, tokens, troubles

    def answer(self, request: Request, headers: dict[str, str], values: dict[str, list[str]]) -> Reply | Call:
        self.requests.append(request)
        what = self._troubles.next(request)
        if what == "drop-before":
            raise Hangup
        if what.startswith("slow:"):
            time.sleep(float(what[5:]))
        moments = self._troubles.moment(request)
        _call_back(moments, "before", request)
        call = Call(request, headers, User(""), self._registry, values=values)
        reply = self._answered(call, what)
        _call_back(moments, "after", request)
        if what == "drop-after":
            raise Hangup
        return reply

    def _answered(self, call: Call, what: str) -> Reply | Call:
        request = call.request
        try:
            asked_for = refusal(what)
            if what == "410" and request.query.get("watch", "").lower() in ("1", "true"):
                return Reply(200, b"", {"Content-Type": "application/json"}, stream=too_old(self._registry.store))
            if asked_for is not None:
                raise asked_for
            reply = self._allowed(call)
        except Problem as told:
            reply = refused(told)
        except Exception as mistake:  # of the fake: told, and kept for the test to fail by
            self.mistakes.append(f"{request.method} {request.path}: {traceback.format_exc()}")
            reply = refused(problem(500, f"the fake cluster made a mistake: {mistake!r}", "InternalError", {}))
        if isinstance(reply, Reply):
            request.status = reply.status
            if call.warnings:
                self.warned += [f"{request.method} {request.path}: {text}" for text in call.warnings]
                reply.headers["Warning"] = ", ".join(f'299 - "{_quoted(text)}"' for text in call.warnings)
        return reply

    def _allowed(self, call: Call) -> Reply | Call:
        call.user = self._tokens.user(call.headers)
        call.request.user = call.user.name
        path = call.request.path
        if not is_resource(path):
            verb = ONE.get(call.method, call.method.lower()).replace("update", "put")
            self._check(call.user, Asked(verb, path=path))
            return plain(call)
        resolve(call)
        self._check(call.user, asked_by(call))
        if call.group and call.group not in self._registry.kinds.groups():
            raise page_not_found()
        check_headers(call)
        call.request.besides = self._rights.besides(call)
        wanted = call.kind and (call.kind.resource, call.sub) in self._registry.upgrades
        if wanted and "upgrade" in call.headers.get("connection", "").lower():
            return call
        self._registry.writing.manager = _manager(call)
        try:
            return dispatch(call)
        finally:
            self._registry.writing.manager = None

    def _check(self, user: User, asked: Asked) -> None:
        if self._rights.allows(user, asked) is None:
            raise denied(user, asked)


def _manager(call: Call) -> Manager:
    told = call.query.get("fieldManager", "")
    return Manager(told or call.headers.get("user-agent", "").partition("/")[0] or "unknown", call.sub, bool(told))


def _call_back(moments: list[Moment], when: str, request: Request) -> None:
    for moment in moments:
        if moment.when == when:
            moment.callback(request)


def check_headers(call: Call) -> None:
    accepted = [part.partition(";")[0].strip() for part in call.headers.get("accept", "*/*").split(",")]
    if not any(part in ACCEPTED for part in accepted) and not call.sub:
        message = f"406: Not Acceptable\n\nAvailable representations: {BODIES}"
        raise problem(406, message, "NotAcceptable", {})
    if len(call.body) > LARGEST_BODY:
        raise problem(413, f"Request entity too large: limit is {LARGEST_BODY}", "RequestEntityTooLarge")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
