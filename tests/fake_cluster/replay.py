"""Replays exchanges recorded from a real API server against the fake one, and says where they differ.

The rules of the files stand in tests/corpus/kubernetes/README.md. Placeholders are bound when they are first seen;
ranked ones (versions, times) must keep their order.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from fake_cluster import FakeCluster
from fake_cluster.store import now

CORPUS = Path(__file__).resolve().parents[1] / "corpus" / "kubernetes"
PLACE = re.compile(r"<(uid|ip|digest|gen|hash|event|token|continue|rv|time|microtime):(\d+)>")
MANAGED = ',\\"managedFields\\":['
SAME_S = 20.0
"""Times that were one second in the recording may lie so far apart here."""
WATCH_S = 0.4
"""What a watch's timeoutSeconds is shortened to when nothing happens while it is open."""
LIMIT_S = 20.0
ANY = ("<winner>", "<last>")
CUT = {
    "GET /api/v1: the resources of the core group (cut to pods, nodes, services, configmaps)": (
        "pods",
        "nodes",
        "services",
        "configmaps",
    )
}
"""Lists of resources of which the file keeps some."""
NOBODY = ("401: no credentials at all (anonymous access is off)",)
"""Exchanges whose missing Authorization means nobody, and not the administrator."""

Difference = str


def topic(name: str) -> list[dict[str, Any]]:
    read = json.loads((CORPUS / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(read, list)
    return read


@dataclass(slots=True)
class Told:
    """An answer of the fake."""

    status: int
    headers: dict[str, str]
    body: Any
    lines: list[Any] = field(default_factory=list)
    """Of a watch."""


class Bindings:
    """What the placeholders of a file stand for here."""

    def __init__(self, ordered: bool = True) -> None:
        """`ordered`: versions keep the order of the recording. Controllers that write at the same time don't."""
        self.ordered = ordered
        self.bound: dict[tuple[str, int], str] = {}

    def fill(self, value: Any, current: str, escape: bool = False) -> Any:
        """The value as it is sent; an unknown version is the current one."""
        if isinstance(value, dict):
            return {self.fill(k, current): self.fill(item, current) for k, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, current) for item in value]
        if not isinstance(value, str):
            return value

        def put(found: re.Match[str]) -> str:
            key = (found[1], int(found[2]))
            known = self.bound.get(key, current if found[1] == "rv" else found[0])
            return quote(known, safe="") if escape else known

        return PLACE.sub(put, value)

    def meet(self, expected: str, actual: str) -> Difference:
        """A string with placeholders against what came; binds those that are new."""
        keys = [(found[1], int(found[2])) for found in PLACE.finditer(expected)]
        pattern = "".join(
            re.escape(part) if place % 3 == 0 else "(.+?)" if place % 3 == 1 else ""
            for place, part in enumerate(PLACE.split(expected))
        )
        matched = re.fullmatch(pattern, actual, re.DOTALL)
        if matched is None:
            return f"{actual!r} is not like {expected!r}"
        for key, found in zip(keys, matched.groups(), strict=True):
            if wrong := self._bind(key, found):
                return wrong
        return ""

    def _bind(self, key: tuple[str, int], found: str) -> Difference:
        kind, number = key
        if kind == "gen":  # the file numbers them without their prefixes: one number can stand for two
            self.bound[key] = found
            return ""
        known = self.bound.setdefault(key, found)
        if kind in ("time", "microtime"):
            if not abs(_seconds(known) - _seconds(found)) <= SAME_S:
                return f"<{kind}:{number}> is {found}, was {known}"
        elif known != found:
            return f"<{kind}:{number}> is {found}, was {known}"
        return self._order(kind, number, found) if kind == "rv" and self.ordered else ""

    def _order(self, kind: str, number: int, found: str) -> Difference:
        for (other, rank), value in self.bound.items():
            if other == kind and rank != number and (int(value) < int(found)) is not (rank < number):
                return f"<{kind}:{number}> is {found}, but <{kind}:{rank}> is {value}"
        return ""


def _seconds(text: str) -> float:
    """Not a number, and so equal to nothing, where it is no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return math.nan


@dataclass(slots=True)
class Open:
    """A watch that stands open while what follows is replayed."""

    exchange: dict[str, Any]
    thread: threading.Thread
    connection: http.client.HTTPConnection
    told: Told


class Replay:
    """One file against one cluster. With `patience_s` reads are repeated until they agree: controllers act."""

    def __init__(self, cluster: FakeCluster, name: str, patience_s: float = 0.0, *, ordered: bool = True) -> None:
        self.cluster = cluster
        self.before: dict[str, Callable[[Replay], None]] = dict(MEANWHILE)
        """Name of an exchange → what its notes say was done before it."""
        self.exchanges = topic(name)
        cluster.registry.patience_s = 0.1
        self.bindings = Bindings(ordered)
        self.patience_s = patience_s
        self.managed = name == "apply"
        """managedFields are left out of the other files."""
        self._open: list[Open] = []

    def run(self) -> dict[str, list[Difference]]:
        """Name of each exchange → what differs; empty where it is reproduced."""
        found: dict[str, list[Difference]] = {}
        for place, exchange in enumerate(self.exchanges):
            found[exchange["name"]] = self.one(exchange, place)
            for watch in [each for each in self._open if _last(each.exchange) == exchange["name"]]:
                self._open.remove(watch)
                found[watch.exchange["name"]] = self._closed(watch)
        for watch in self._open:
            found[watch.exchange["name"]] = self._closed(watch)
        return found

    def one(self, exchange: dict[str, Any], place: int) -> list[Difference]:
        expected = exchange["response"]
        if "events" in expected:
            return self._watch(exchange, place)
        if exchange["name"] in self.before:
            self.before[exchange["name"]](self)
        if self.patience_s:
            self.cluster.settle()  # who recorded waited where a controller acts
        deadline = time.monotonic() + self.patience_s
        while True:
            kept = dict(self.bindings.bound)
            told = self.ask(exchange)
            wrong = self.compare(exchange, told)
            if not wrong or exchange["request"]["method"] != "GET" or time.monotonic() >= deadline:
                return wrong
            self.bindings.bound = kept
            time.sleep(0.05)

    # -- asking

    def ask(self, exchange: dict[str, Any]) -> Told:
        connection, response = self.send(exchange)
        try:
            raw = response.read()
        finally:
            connection.close()
        headers = {name: value for name, value in response.getheaders()}
        return Told(response.status, headers, self._parsed(raw, headers.get("Content-Type", "")))

    def _parsed(self, raw: bytes, content_type: str) -> Any:
        read = _parsed(raw, content_type)
        return read if self.managed else _unmanaged(read)

    def send(
        self, exchange: dict[str, Any], limit_s: float | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        request = exchange["request"]
        if _lists(request):
            self.cluster.store.bump()  # something else was written before most lists
        current = str(self.cluster.store.version)
        path = self.bindings.fill(request["path"], current, escape=True)
        if limit_s is not None:
            path = re.sub(r"timeoutSeconds=\d+", f"timeoutSeconds={limit_s}", path)
        headers = {"Authorization": "Bearer admin", "Accept": "application/json", "User-Agent": "exchange"}
        headers |= {name: self.bindings.fill(value, current) for name, value in (request.get("headers") or {}).items()}
        headers = {name: value for name, value in headers.items() if value is not None}
        if exchange["name"] in NOBODY:
            del headers["Authorization"]
        body = self.body(request, current)
        if request["content_type"]:
            headers["Content-Type"] = request["content_type"]
        connection = http.client.HTTPConnection("127.0.0.1", self.cluster.port, timeout=LIMIT_S)
        connection.request(request["method"], path, body, headers)
        return connection, connection.getresponse()

    def body(self, request: dict[str, Any], current: str) -> bytes | None:
        body = request["body"]
        if body is None:
            return None
        if isinstance(body, str):
            return _described(body)
        return json.dumps(self.bindings.fill(body, current)).encode()

    # -- comparing

    def compare(self, exchange: dict[str, Any], told: Told) -> list[Difference]:
        expected = exchange["response"]
        wrong: list[Difference] = []
        if expected["status"] != told.status:
            wrong.append(f"status {told.status}, not {expected['status']}: {json.dumps(told.body)[:400]}")
        setup = exchange.get("setup")
        if not setup:
            for name in ("Content-Type", "Retry-After", "Warning"):
                want, got = (expected["headers"] or {}).get(name), told.headers.get(name)
                if want != got:
                    wrong.append(f"{name} {got!r}, not {want!r}")
        if "body" in expected:
            body = told.body
            if "kept" in expected and not (isinstance(body, dict) and body.get("kind") == "Status"):
                body = _kept(body, expected["kept"])
            if exchange["name"] in CUT and isinstance(body, dict):
                body = {name: item for name, item in body.items() if name in expected["body"]}
                kept = CUT[exchange["name"]]
                body["resources"] = [one for one in body["resources"] if one["name"].split("/")[0] in kept]
            differs = self.differences(expected["body"], body, "")
            wrong += [] if setup else differs
        return wrong

    def differences(self, expected: Any, actual: Any, where: str, whole: bool = True) -> list[Difference]:
        """`whole`: nothing may be there that is not expected."""
        if expected in ANY and isinstance(actual, str):
            return []
        if isinstance(expected, str) and MANAGED in expected:
            expected = _unmanaged_text(expected)
        if isinstance(expected, str) and PLACE.search(expected):
            told = self.bindings.meet(expected, actual if isinstance(actual, str) else json.dumps(actual))
            return [f"{where}: {told}"] if told else []
        if isinstance(expected, dict) and isinstance(actual, dict):
            found: list[Difference] = []
            for key in expected:
                if key not in actual:
                    found.append(f"{where}.{key} is missing, not {json.dumps(expected[key])[:300]}")
                else:
                    found += self.differences(expected[key], actual[key], f"{where}.{key}", whole)
            more = [key for key in actual if key not in expected and whole]
            return found + [f"{where}.{key} is there: {json.dumps(actual[key])[:300]}" for key in more]
        if isinstance(expected, list) and isinstance(actual, list):
            found = []
            if "nonResourceRules" in where:  # their order is not promised
                expected, actual = (sorted(each, key=json.dumps) for each in (expected, actual))
            if len(expected) != len(actual):
                found.append(f"{where} has {len(actual)} elements, not {len(expected)}: {json.dumps(actual)[:300]}")
            for place, (want, got) in enumerate(zip(expected, actual, strict=False)):
                found += self.differences(want, got, f"{where}[{place}]", whole)
            return found
        if expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
            return [f"{where} is {json.dumps(actual)[:900]}, not {json.dumps(expected)[:900]}"]
        return []

    # -- watches

    def _watch(self, exchange: dict[str, Any], place: int) -> list[Difference]:
        response = exchange["response"]
        # it ended before the next one was sent when nothing of the others shows in it
        alone = response["ended"] == "by the server" and all(
            event["after"] == exchange["name"] for event in response["events"]
        )
        connection, answer = self.send(exchange, WATCH_S if alone else 3.0 if "server" in response["ended"] else None)
        told = Told(answer.status, dict(answer.getheaders()), None)
        thread = threading.Thread(target=_read_lines, args=[answer, told], daemon=True)
        thread.start()
        opened = Open(exchange, thread, connection, told)
        if alone:
            return self._closed(opened)
        self._open.append(opened)
        return []

    def _closed(self, watch: Open) -> list[Difference]:
        response = watch.exchange["response"]
        wanted = response["events"]
        if response["ended"] == "by the client":
            deadline = time.monotonic() + max(self.patience_s, 2.0)
            while len(watch.told.lines) < len(wanted) and time.monotonic() < deadline:
                time.sleep(0.01)
            sock = watch.connection.sock
            if sock is not None:
                sock.close()
        else:
            self.cluster.store.bump()  # a bookmark tells of a version that others wrote
            watch.thread.join(LIMIT_S)
        wrong = [f"status {watch.told.status}"] if watch.told.status != response["status"] else []
        lines, expected = list(watch.told.lines), [event["line"] for event in wanted]
        if "kept" in response:
            lines = [{**line, "object": _kept(line["object"], response["kept"])} for line in lines]
        if "how many BOOKMARKs" in (watch.exchange["notes"] or ""):
            lines, expected = _counted(lines), _counted(expected)
        # where controllers act, the files keep of each event only what matters
        return wrong + self.differences(expected, lines, "events", self.bindings.ordered)


def _last(exchange: dict[str, Any]) -> str:
    """The exchange that had been sent when the last event of a watch came."""
    events = exchange["response"]["events"]
    return str(events[-1]["after"]) if events else ""


def _counted(lines: list[Any]) -> list[Any]:
    """Without the bookmarks whose number is up to the server."""
    return [line for line in lines if line["type"] != "BOOKMARK" or "annotations" in line["object"]["metadata"]]


def _read_lines(answer: http.client.HTTPResponse, told: Told) -> None:
    try:
        while line := answer.readline():
            told.lines.append(_unmanaged(_parsed(line, "application/json")))
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return


def _lists(request: dict[str, Any]) -> bool:
    path, _, query = request["path"].partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    if request["method"] not in ("GET", "DELETE") or {"watch", "resourceVersion"} & asked.keys():
        return False
    parts = path.strip("/").split("/")
    rest = parts[2 if parts[0] == "api" else 3 :]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return len(rest) == 1


def _parsed(raw: bytes, content_type: str) -> Any:
    if "json" not in content_type:
        return raw.decode("utf-8", "replace")
    return json.loads(raw) if raw.strip() else None


def _unmanaged(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmanaged(item) for key, item in value.items() if key != "managedFields"}
    return [_unmanaged(item) for item in value] if isinstance(value, list) else value


def _unmanaged_text(text: str) -> str:
    """A message that shows a whole object, without the part that is left out everywhere else."""
    start = text.index(MANAGED)
    depth, place = 0, start + len(MANAGED) - 1
    while True:
        depth += {"[": 1, "]": -1}.get(text[place], 0)
        place += 1
        if not depth:
            return text[:start] + text[place:]


def _kept(body: Any, paths: list[str]) -> Any:
    """A body cut to some fields; of a list each element is."""
    if isinstance(body, dict) and isinstance(body.get("items"), list):
        return {**body, "items": [_kept(item, paths) for item in body["items"]]}
    cut: Any = {}
    for path in paths:
        _keep(body, cut, path.split("."))
    return cut


def _keep(body: Any, cut: Any, parts: list[str]) -> None:
    """Annotations have dots in their names: the longest name that is there wins."""
    if not isinstance(body, dict):
        return
    for count in range(len(parts), 0, -1):
        name = ".".join(parts[:count])
        if name in body:
            if count == len(parts):
                cut[name] = body[name]
            elif isinstance(body[name], dict):
                _keep(body[name], cut.setdefault(name, {}), parts[count:])
            return


def _together(replay: Replay, ask: Callable[[int], int]) -> list[int]:
    with ThreadPoolExecutor(12) as pool:
        return sorted(pool.map(ask, range(12)))


def _lease(replay: Replay, method: str, content_type: str, body: dict[str, Any]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", replay.cluster.port, timeout=LIMIT_S)
    path = "/apis/coordination.k8s.io/v1/namespaces/exchange-leases/leases/race"
    headers = {"Authorization": "Bearer admin", "Content-Type": content_type}
    connection.request(method, path, json.dumps(body), headers)
    status = connection.getresponse().status
    connection.close()
    return status


def _twelve_puts(replay: Replay) -> None:
    version = replay.bindings.bound["rv", 13]

    def put(number: int) -> int:
        spec = {"holderIdentity": f"holder-{number}", "leaseTransitions": 2}
        meta = {"name": "race", "resourceVersion": version}
        return _lease(replay, "PUT", "application/json", {"metadata": meta, "spec": spec})

    assert _together(replay, put) == [200] + [409] * 11


def _twelve_patches(replay: Replay) -> None:
    def patch(number: int) -> int:
        body = {"spec": {"holderIdentity": f"last-{number}"}}
        return _lease(replay, "PATCH", "application/merge-patch+json", body)

    assert _together(replay, patch) == [200] * 12


def _compaction(replay: Replay) -> None:
    replay.cluster.store.compact()


def _next_second(replay: Replay) -> None:
    """Managers are listed in the order of their times, which are whole seconds."""
    start = now()
    while now() == start:
        time.sleep(0.01)


MEANWHILE: dict[str, Callable[[Replay], None]] = {
    "After twelve simultaneous PUTs with one version: one 200, eleven 409": _twelve_puts,
    "After twelve simultaneous merge patches without a version: all 200, the last holds": _twelve_patches,
    "continue with a token whose version was compacted: 410 Expired, with a new token in metadata.continue": (
        _compaction
    ),
    "Apply with dryRun=All: 200 with the merged object": _next_second,
}


def _described(body: str) -> bytes:
    """A body that the file only describes."""
    sized = re.match(r"<a ConfigMap (?:named (\w+) )?whose data\.k has (\d+) bytes>", body)
    if sized:
        obj = {"metadata": {"name": sized[1] or "large"}, "data": {"k": "x" * int(sized[2])}}
        return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", **obj}).encode()
    return body.encode()
