"""Access to the API server from a pod: by the ServiceAccount's token, which the kubelet replaces while the pod runs."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from stormdrill.errors import Refused

PLACE = "/var/run/secrets/kubernetes.io/serviceaccount"
DIRECTORY = "STORMDRILL_SERVICEACCOUNT"
"""Environment variable: another place of the three files `token`, `ca.crt` and `namespace`."""
PLAIN = "STORMDRILL_API_PLAIN"
"""Environment variable: 1 for HTTP, which is accepted on loopback only."""

TOLD_AS = "serviceaccount"
LEAST = 8
"""Characters: what is shorter can't be told from ordinary words."""


def place() -> Path:
    return Path(os.environ.get(DIRECTORY) or PLACE)


def there() -> bool:
    """Whether this process has a ServiceAccount of its own."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (place() / "token").exists()


def trusting(authority: Path) -> ssl.SSLContext:
    """Certificates of that authority alone are believed, by their host's name. Not by the strict reading of RFC 5280
    that Python's default context takes from 3.13 on: authorities that clusters' tools make by hand lack what it asks.
    Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=str(authority))
    return context


class InCluster:
    """`cluster.api.Access` of the pod's own ServiceAccount. Raises Refused where there is none."""

    def __init__(self) -> None:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        self._place = place()
        if not there():
            raise Refused(
                f"no ServiceAccount here: KUBERNETES_SERVICE_HOST is {'set' if host else 'not set'}, and "
                f"{self._place}/token is {'there' if (self._place / 'token').exists() else 'missing'}; run it in a "
                "pod with automountServiceAccountToken, or name a kubeconfig"
            )
        self._plain = os.environ.get(PLAIN) == "1"
        if self._plain and not host.startswith("127."):
            raise Refused(f"{PLAIN}=1 is for 127.0.0.0/8 only, not for {host}: a token would travel in the clear")
        shown = f"[{host}]" if ":" in host else host
        self._server = f"{'http' if self._plain else 'https'}://{shown}:{port}"
        self._lock = threading.Lock()
        self._token = ""
        self._context: ssl.SSLContext | None = None
        self._tell: Callable[[str, str], None] | None = None
        self._told = ""

    @property
    def server(self) -> str:
        return self._server

    def context(self) -> ssl.SSLContext | None:
        if self._plain:
            return None
        with self._lock:
            if self._context is None:
                try:
                    self._context = trusting(self._place / "ca.crt")
                except OSError as error:
                    raise Refused(f"{self._place}/ca.crt can't be used: {error}; it is the API server's") from error
            return self._context

    def headers(self) -> Mapping[str, str]:
        """The token as the file has it now; the last one where the file is just being replaced."""
        try:
            self._token = (self._place / "token").read_text(encoding="ascii").strip() or self._token
        except (OSError, ValueError):
            if not self._token:
                raise Refused(f"{self._place}/token can't be read; it is the ServiceAccount's") from None
        token = self._token
        if self._tell is not None and token != self._told and len(token) >= LEAST:
            self._tell(TOLD_AS, token)
            self._told = token
        return {"Authorization": f"Bearer {token}"}

    def refresh(self) -> bool:
        """Each request reads the file anyway: it may have been replaced since the last one did."""
        return bool(self.headers())

    def hide(self, tell: Callable[[str, str], None]) -> None:
        """`tell` is told the token with a name, and each later one before it is sent."""
        self._tell = tell
        self.headers()

    @property
    def namespace(self) -> str:
        """The pod's own; empty where the file is missing."""
        try:
            return (self._place / "namespace").read_text(encoding="utf-8").strip()
        except OSError:
            return ""
