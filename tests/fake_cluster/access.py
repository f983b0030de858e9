"""How a client of the fake cluster says who it is."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TokenAccess:
    """Satisfies `stormdrill.cluster.api.Access`: a bearer token that nobody renews."""

    server: str
    token: str
    ca: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=str(self.ca)) if self.ca else None

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def refresh(self) -> bool:
        return False


def kubeconfig(path: Path, server: str, token: str, namespace: str, context: str, ca: Path | None = None) -> Path:
    """JSON is YAML."""
    cluster: dict[str, object] = {"server": server}
    if ca:
        cluster["certificate-authority"] = str(ca)
    written = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": {"token": token}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context, "namespace": namespace}}],
        "current-context": context,
    }
    path.write_text(json.dumps(written, indent=2), encoding="utf-8")
    return path
