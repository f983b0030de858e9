"""Refusals: the Status bodies of an API server, with its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fake_cluster.kinds import Kind


class Problem(Exception):
    """A request is refused. `body` is a Status; a string is sent as plain text."""

    def __init__(self, status: int, body: dict[str, object] | str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = headers or {}


def status(
    code: int, message: str, reason: str = "", details: dict[str, object] | None = None, **metadata: str
) -> dict[str, object]:
    body: dict[str, object] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": dict(metadata),
        "status": "Failure",
        "message": message,
    }
    if reason:
        body["reason"] = reason
    if details is not None:
        body["details"] = details
    body["code"] = code
    return body


def problem(code: int, message: str, reason: str = "", details: dict[str, object] | None = None) -> Problem:
    return Problem(code, status(code, message, reason, details))


def named(name: str, group: str, kind: str, **more: object) -> dict[str, object]:
    """Details of a Status; empty ones are left out."""
    parts = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in parts.items() if value}


def not_found(kind: Kind, name: str) -> Problem:
    return problem(404, f'{kind.resource} "{name}" not found', "NotFound", named(name, kind.group, kind.plural))


def already_exists(kind: Kind, name: str, ending: bool = False) -> Problem:
    message = f'{"object is being deleted: " if ending else ""}{kind.resource} "{name}" already exists'
    return problem(409, message, "AlreadyExists", named(name, kind.group, kind.plural))


def conflict(kind: Kind, name: str, why: str) -> Problem:
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return problem(409, message, "Conflict", named(name, kind.group, kind.plural))


def modified(kind: Kind, name: str) -> Problem:
    return conflict(
        kind,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def bad_request(message: str) -> Problem:
    return problem(400, message, "BadRequest")


def forbidden(kind_resource: str, group: str, plural: str, name: str, why: str) -> Problem:
    who = f'{kind_resource} "{name}"' if name else kind_resource
    return problem(403, f"{who} is forbidden: {why}", "Forbidden", named(name, group, plural))


def unknown_resource() -> Problem:
    return problem(404, "the server could not find the requested resource", "NotFound", {})


def not_allowed() -> Problem:
    message = "the server does not allow this method on the requested resource"
    return problem(405, message, "MethodNotAllowed", {})


def page_not_found() -> Problem:
    return Problem(404, "404 page not found\n")


def rejected() -> Problem:
    """What a failed operation of a JSON patch is answered: nothing is said of it."""
    return problem(422, "the server rejected our request due to an error in our request", "Invalid", {})


def unauthorized() -> Problem:
    return problem(401, "Unauthorized", "Unauthorized")


Cause = tuple[str, str, str]
"""Field, reason, message."""


def invalid(kind: str, group: str, name: str, causes: list[Cause]) -> Problem:
    """422 Invalid. One cause is told plainly, several in brackets; the same said twice is told once in the message."""
    full = f"{kind}.{group}" if group else kind
    said = list(dict.fromkeys(f"{field}: {message}" for field, _, message in causes))
    told = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    listed = [{"reason": reason, "message": message, "field": field} for field, reason, message in causes]
    return problem(
        422, f'{full} "{name}" is invalid: {told}', "Invalid", {**named(name, group, kind), "causes": listed}
    )


def gone(message: str) -> Problem:
    return problem(410, message, "Expired")
