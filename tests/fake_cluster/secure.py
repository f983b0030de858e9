"""A certificate for 127.0.0.1, made when it is needed: kubectl sends no token without TLS."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def certificate(place: Path) -> tuple[ssl.SSLContext, Path]:
    """The server's side, and the file that clients trust."""
    key, cert = place / "key.pem", place / "ca.pem"
    made = subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=fake-cluster",
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )  # fmt: skip
    if made.returncode:
        raise RuntimeError(f"no certificate for the fake cluster: {made.stderr.strip()}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert
