"""One request on its way through the server, and what it is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from socket import socket
from typing import TYPE_CHECKING, Any

from fake_cluster.kinds import Kind
from fake_cluster.problems import bad_request, page_not_found
from fake_cluster.store import Object, dump

if TYPE_CHECKING:
    from fake_cluster.registry import Registry

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Request:
    """What was asked, for tests to read. `status` is 0 until it was answered, and for one that never was."""

    method: str
    path: str
    query: dict[str, str]
    user: str = ""
    status: int = 0
    body: bytes = b""
    besides: str = ""
    """The verb that it was allowed besides that of its method."""

    def read(self) -> Any:
        return json.loads(self.body) if self.body else None

    def took(self) -> list[tuple[str, str, str]]:
        """What it had to be allowed: verb, resource and subresource, as rules have them."""
        parts = self.path.strip("/").split("/")[2 if self.path.startswith("/api/") else 3 :]
        if parts[0] == "namespaces" and len(parts) > 2:
            parts = parts[2:]
        resource, name, sub = (*parts, "", "")[:3]
        reads = {"GET": "get" if name else "list"}
        verbs = {**reads, "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
        return [(verb, resource, sub) for verb in (verbs[self.method], self.besides) if verb]


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""

    @property
    def admin(self) -> bool:
        return "system:masters" in self.groups


ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


@dataclass(slots=True)
class Call:
    """A request with what its path means."""

    request: Request
    headers: dict[str, str]
    """Names in lower case."""
    user: User
    registry: Registry
    verb: str = ""
    kind: Kind | None = None
    group: str = ""
    version: str = ""
    plural: str = ""
    namespace: str = ""
    name: str = ""
    sub: str = ""
    rest: str = ""
    """What the path says behind the subresource (proxy)."""
    warnings: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    """The query with every value of each name (exec: command=a&command=b)."""

    @property
    def query(self) -> dict[str, str]:
        return self.request.query

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def body(self) -> bytes:
        return self.request.body

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def served(self) -> Kind:
        if self.kind is None:
            raise page_not_found()
        return self.kind

    def json(self) -> Object:
        try:
            read = json.loads(self.body)
        except ValueError:
            raise bad_request("the body of the request is no JSON") from None
        if not isinstance(read, dict):
            raise bad_request("the body of the request is no object")
        return read


@dataclass(slots=True)
class Reply:
    status: int
    body: bytes | str | Object | list[Any]
    headers: dict[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None
    """Sent in chunks until it ends; the body is not used then."""

    def payload(self) -> tuple[bytes, str]:
        if isinstance(self.body, bytes):
            return self.body, JSON
        if isinstance(self.body, str):
            return self.body.encode(), TEXT
        return dump(self.body), JSON


Handler = Callable[[Call], Reply]
"""Of a subresource: registered for (resource, subresource, method)."""
Upgrade = Callable[[Call, socket, bytes], None]
"""Takes the connection over: the socket, and what was read beyond the request. It answers (101 or a refusal) itself."""
