"""Bearer tokens: the administrator's, those made for ServiceAccounts, and their end."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from fake_cluster.calls import ADMIN, User
from fake_cluster.problems import unauthorized

ADMINISTRATOR = "admin"


@dataclass(slots=True)
class Tokens:
    known: dict[str, tuple[User, float]] = field(default_factory=lambda: {ADMINISTRATOR: (ADMIN, float("inf"))})
    """Token → user, and until when on the monotonic clock."""

    def add(self, user: User, seconds: float = float("inf"), token: str = "") -> str:
        token = token or ".".join(secrets.token_urlsafe(24) for _ in range(3))
        self.known[token] = (user, time.monotonic() + seconds)
        return token

    def expire(self, token: str) -> None:
        """From now on it is answered with 401."""
        user, _ = self.known[token]
        self.known[token] = (user, 0.0)

    def revoke(self, uid: str) -> None:
        """Every token of a user with this uid."""
        for token, (user, _) in list(self.known.items()):
            if uid and user.uid == uid:
                self.expire(token)

    def user(self, headers: dict[str, str]) -> User:
        """Raises Problem 401."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        user, until = self.known.get(token.strip(), (None, 0.0))
        if kind.lower() != "bearer" or user is None or time.monotonic() > until:
            raise unauthorized()
        return user
