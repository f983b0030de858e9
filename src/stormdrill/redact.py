"""Removes registered secrets by value, on every channel, before anything is recorded.

Standard library only: the keeper imports this.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import quote, quote_plus

MASK = "[redacted]"
SHORTEST = 4
"""A value shorter than this would blank out ordinary words; registering it is refused."""


class Redactor:
    """Knows the secrets of one run and removes them from text and from JSON values.

    A value is found as it is, within JSON text and percent-encoded; not in any other encoding, and not cut in pieces.
    """

    def __init__(self) -> None:
        self._secrets: list[str] = []
        self._lock = threading.Lock()

    def register(self, value: str) -> None:
        """Remember `value` as a secret. Raises ValueError when it is too short to remove safely."""
        if len(value) < SHORTEST:
            raise ValueError(f"a secret shorter than {SHORTEST} characters cannot be removed by value")
        with self._lock:
            self._secrets = sorted({*self._secrets, *_forms(value)}, key=lambda form: (-len(form), form))

    def text(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return text

    def json(self, value: object) -> object:
        """The same JSON value with every registered secret removed, keys included."""
        if not self._secrets:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.json(item) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [self.json(item) for item in value]
        return value


def _forms(value: str) -> set[str]:
    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(value, errors="surrogateescape"),
        quote(value, safe="", errors="surrogateescape"),
        quote_plus(value, errors="surrogateescape"),
    }
