"""The secrets of one run: kept in memory, handed to processes in their environment, written nowhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from stormdrill.errors import SystemNotReady
from stormdrill.keeper.family import Child, Family, Spec
from stormdrill.redact import Redactor

_PLACEHOLDER = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass
class Vault(Family):
    """A family whose members' environment may name secrets, as `${secret:NAME}`.

    What is remembered of a child, and by that what is journalled and what it is started again from, keeps the
    placeholder; the value is in this process's memory and in the child's environment only.
    """

    redactor: Redactor = field(default_factory=Redactor)
    _values: dict[str, str] = field(default_factory=dict, repr=False)

    def entrust(self, name: str, value: str) -> None:
        """Keep a value, and remove it from what is recorded from now on. Raises ValueError when it is too short."""
        self.redactor.register(value)
        self._values[name] = value

    def spawn(self, spec: Spec) -> Child:
        """Raises, besides what Family raises, SystemNotReady for a secret that was not entrusted or is in argv."""
        if any(_PLACEHOLDER.search(argument) for argument in spec.argv):
            raise SystemNotReady(f"{spec.instance}: a secret in its command, which ps shows; give it by env")
        filled = {name: _PLACEHOLDER.sub(self._value, text) for name, text in spec.env.items()}
        child = super().spawn(replace(spec, env=filled))
        child.spec = spec
        return child

    def _value(self, found: re.Match[str]) -> str:
        try:
            return self._values[found[1]]
        except KeyError:
            raise SystemNotReady(f"nobody gave the keeper the secret {found[1]}") from None
