"""What a list or a watch asks for in its query, refused with the recorded words."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass

from fake_cluster.calls import Call
from fake_cluster.problems import Problem, bad_request, gone, invalid, problem
from fake_cluster.store import Key, Store

TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
NOW = -1
"""The version in a token that goes on with things as they are."""


@dataclass(frozen=True, slots=True)
class ListOptions:
    limit: int
    version: str
    """As asked; empty and "0" have their own meaning."""
    match: str
    token: str


def list_options(call: Call) -> ListOptions:
    """Raises Problem."""
    query = call.query
    asked = query.get("limit") or "0"
    try:
        limit = int(asked)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{asked}": invalid syntax') from None
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    options = ListOptions(max(0, limit), version, match, query.get("continue", ""))
    _check_match(options, query.get("sendInitialEvents", ""))
    if options.version and not options.version.isdigit():
        raise no_number(options.version)
    if options.token and options.version not in ("", "0"):
        raise bad_request("specifying resource version is not allowed when using continue")
    return options


def _check_match(options: ListOptions, initial: str) -> None:
    told = ""
    if initial:
        if options.match != "NotOlderThan":
            told = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    elif options.match and not options.version:
        told = "resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif options.match == "Exact" and options.version == "0":
        told = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    if told:
        cause = ("resourceVersionMatch", "FieldValueForbidden", f"Forbidden: {told}")
        raise invalid("ListOptions", "meta.k8s.io", "", [cause])


def no_number(version: str) -> Problem:
    parsing = f'strconv.ParseUint: parsing "{version}": invalid syntax'
    return problem(500, f'resourceVersion: Invalid value: "{version}": {parsing}')


def wait_for(store: Store, version: int, patience_s: float) -> None:
    """A list of a version that isn't there yet waits for it. Raises Problem 504."""
    deadline = time.monotonic() + patience_s
    with store.changed:
        while store.version < version:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _too_new(version, store.version)
            store.changed.wait(left)


def _too_new(version: int, current: int) -> Problem:
    details: dict[str, object] = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    refused = problem(504, f"Timeout: Too large resource version: {version}, current: {current}", "Timeout", details)
    refused.headers["Retry-After"] = "1"
    return refused


def token(version: int, last: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, *last]).encode()).decode().rstrip("=")


def continued(store: Store, text: str) -> tuple[int, list[str]]:
    """The version to list at, and the name behind which to go on. Raises Problem."""
    decoded = b""
    try:
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        version, *last = json.loads(decoded)
    except (ValueError, TypeError):
        if not decoded:
            why = "illegal base64 data at input byte 0"
        else:
            why = f"invalid character '{_character(decoded[0])}' looking for beginning of value"
        raise bad_request(f"invalid continue token: continue key is not valid: {why}") from None
    if version == NOW:
        return store.version, last
    if version < store.compacted:
        refused = gone(TOO_OLD)
        assert isinstance(refused.body, dict)
        refused.body["metadata"] = {"continue": token(NOW, (last[0], last[1]))}
        raise refused
    return version, last


def _character(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\u{byte:04x}"


def exact(store: Store, version: int) -> int:
    if version < store.compacted:
        raise gone("The resourceVersion for the provided list is too old.")
    return version
