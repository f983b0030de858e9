"""What looks like a secret in a cluster's objects and in a kubeconfig, by its name or by what it says. Pure.

No list is whole: what is neither named like one nor looks like one isn't told apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_NAME = r"(?:token|secret|passwd|password|passphrase|credentials?|cookie|authorization|(?:api|access|private)[-_]?key)"
_NAMED = re.compile(rf"{_NAME}|(?:key|dsn)$|(?:^|[-_])(?:pass|pw|pwd|auth)$", re.IGNORECASE)
_SAYS = re.compile(
    rf"""{_NAME}["']?\s*[=:]\s*["']?[^\s"'$]"""  # a reference ($PASSWORD) says nothing
    r"|://[^/\s:@]*:[^/\s@$]+@"
    r"|\b(?:bearer|basic)\s+[\w+/=.-]{8}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+_=-][A-Za-z0-9+/_=-]{19,}")
"""Longer than people's words, and of letters in both cases and digits."""


def named(name: str) -> bool:
    """Whether what bears that name is usually kept from others."""
    return _NAMED.search(name) is not None


def says(value: str) -> bool:
    """Whether the text itself looks like a secret, or like one beside its name."""
    return _SAYS.search(value) is not None or _RANDOM.fullmatch(value) is not None


def variable(name: str, value: str) -> bool:
    """Whether what an environment holds in clear looks like a secret."""
    return bool(value) and (named(name) or says(value))


def command(argv: Sequence[str]) -> bool:
    """Whether one of its words does, or follows an option that is named so."""
    after = any(
        option.startswith("-") and "=" not in option and named(option) and not word.startswith(("-", "$"))
        for option, word in pairwise(argv)
    )
    return after or any(map(says, argv))
