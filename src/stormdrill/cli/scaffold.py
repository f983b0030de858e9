"""The four folders and a first drill for a user's own system, as texts by path. Writes nothing by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Literal

from msgspec import Struct

STARTER = Path(__file__).parent / "starter"
PORT_WORDS = re.compile(r"\$\{port\}|\$port\b|\{port\}")
"""`{port}` reaches us from any shell; `$port` only when it was quoted."""


class Starter(Template):
    """Texts with @name to fill in: `$name` is the experiments' own."""

    delimiter = "@"


class Own(Struct, frozen=True):
    """The user's system, as `init` was told."""

    argv: tuple[str, ...]
    port: int | Literal["free"]
    """A number that the command listens on, or a free one an instance."""
    ready: str = "GET /"

    @property
    def instances(self) -> Literal["one", "two"]:
        return "two" if self.port == "free" else "one"


def files_for(own: Own, user_file: str) -> dict[str, str]:
    """Path in the new repository → text. `user_file` is the text of the Locust user that requests are sent by."""
    path = json.dumps(own.ready.partition(" ")[2])
    values = {
        "command": command_text(own.argv),
        "ready": own.ready,
        "port": str(own.port),
        "path": path,
        "share": "50%" if own.instances == "two" else "100%",
    }

    def starter(name: str, **more: str) -> str:
        return Starter((STARTER / name).read_text(encoding="utf-8")).substitute(values | more)

    return {
        "policy.yaml": starter("policy.yaml"),
        "experiments/first-drill.yaml": starter(f"{own.instances}-first-drill.yaml"),
        "experiments/systems/app.yaml": starter(f"{own.instances}-app.yaml"),
        "loadgen/steady.yaml": starter("steady.yaml"),
        "loadgen/http_user.py": user_file,
        "runbooks/instance-silent.md": starter("instance-silent.md", path=json.loads(path)),
        "reviews/README.md": starter("reviews.md"),
    }


def command_text(argv: Sequence[str]) -> str:
    """The argument vector as a YAML list that reads back the same: `$port` filled in by stormdrill, other $ kept."""
    words = []
    for word in argv:
        marked = PORT_WORDS.sub("\0", word).replace("$", "$$").replace("\0", "$port")
        plain = re.fullmatch(r"[A-Za-z0-9_./$+-]*[A-Za-z_./$][A-Za-z0-9_./$+-]*", marked) and not marked.startswith("-")
        tame = plain and marked.lower() not in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
        words.append(marked if tame else json.dumps(marked, ensure_ascii=False))
    return f"[{', '.join(words)}]"


def names_port(argv: Sequence[str]) -> bool:
    return any(PORT_WORDS.search(word) for word in argv)
