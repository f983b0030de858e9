"""Reads a locustfile and makes of it what sends.

`python -m stormdrill.load.locust.locustfile FILE open|closed` only reads it: exit code 2, and the reason in the last
line of standard error, where it can't be used.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import locust
from locust import User
from locust.argument_parser import get_parser
from locust.env import Environment

from stormdrill.load.locust.source import Source, Terms
from stormdrill.load.locust.user import OpenLoopUser


class BadLocustfileError(Exception):
    """The user's own file can't be used."""


def load_users(path: str) -> tuple[type[User], ...]:
    """The user classes of a locustfile, imported under a name that shadows no module."""
    file = Path(path)
    # Not Locust's own loader: it would put a file named http.py or platform.py in the place of Python's.
    spec = importlib.util.spec_from_file_location(f"stormdrill_locustfile_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise BadLocustfileError(f"{path}: not a Python file; write a locustfile that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadLocustfileError(f"{path}: {where(error, path)}{type(error).__name__}: {error}") from error
    classes = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, User)]
    return tuple(dict.fromkeys(user for user in classes if not getattr(user, "abstract", False)))


def open_user(path: str, users: Sequence[type[User]]) -> type[OpenLoopUser]:
    """The one open-loop user class among them."""
    found = [user for user in users if issubclass(user, OpenLoopUser)]
    if len(found) != 1:
        names = ", ".join(user.__name__ for user in found) or "none"
        raise BadLocustfileError(f"{path}: needs exactly one subclass of OpenLoopUser with serve(); found {names}")
    return found[0]


def closed_users(path: str, users: Sequence[type[User]]) -> tuple[type[User], ...]:
    """All of them, if they can make a crowd."""
    if not users:
        raise BadLocustfileError(f"{path}: has no user class; write one that extends locust.User, with a @task")
    for user in users:
        if issubclass(user, OpenLoopUser):
            raise BadLocustfileError(
                f"{path}: {user.__name__} is an open-loop user, which a profile drives; write `load: {{profile: ..., "
                "rate: ...}` instead of `locustfile:`"
            )
        if not user.tasks:
            raise BadLocustfileError(f"{path}: {user.__name__} has no @task, so it would do nothing")
    if not any(user.weight > 0 or user.fixed_count > 0 for user in users):
        raise BadLocustfileError(f"{path}: every user class has weight 0, so none would be started")
    return tuple(users)


def where(error: BaseException, path: str) -> str:
    """`line 7: `, as far as the error comes from this file."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"line {error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"line {frames[-1].lineno}: " if frames else ""


def source_from(path: str, terms: Terms) -> Source:
    """What sends for this worker. Raises BadLocustfileError, with the line where there is one."""
    users = load_users(path)
    if terms.profile is not None:
        from stormdrill.load.locust.open_loop import OpenLoop

        return OpenLoop(path, open_user(path, users), terms, terms.profile)
    from stormdrill.load.locust.crowd import Crowd

    return Crowd(path, closed_users(path, users), terms)


def environment_for(source: Source, terms: Terms) -> Environment:
    """Locust's environment with the source attached: what is left to do is to make a runner of it, and to fire `init`.

    Options have Locust's defaults, its LOCUST_* variables and configuration files, and what the locustfile added.
    Raises BadLocustfileError where one of them can't be read.
    """
    try:
        options = get_parser().parse_args(args=[])
    except SystemExit as error:
        raise BadLocustfileError(
            "Locust's options can't be read: an option that the locustfile adds is required and has no default, or a "
            "LOCUST_* variable or configuration file is wrong"
        ) from error
    environment = Environment(
        user_classes=list(source.user_classes),
        events=locust.events,
        host=terms.entries[0],
        tags=options.tags or None,
        exclude_tags=options.exclude_tags or None,
        parsed_options=options,
    )
    source.attach(environment)
    return environment


def _main(path: str, kind: str) -> int:
    try:
        users = load_users(path)
        if kind == "open":
            open_user(path, users)
        else:
            closed_users(path, users)
    except BadLocustfileError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
