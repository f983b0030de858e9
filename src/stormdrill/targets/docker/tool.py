"""The program that reads compose files, whichever is installed: `docker compose`, or `docker-compose` by itself.

testcontainers has a class for it, which calls the first alone and takes files only; what is given here may hold secrets
of the caller's environment, and stands in no file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

from stormdrill.errors import Refused, StormdrillError
from stormdrill.targets.docker.engine import as_docker_host
from stormdrill.targets.docker.here import ASK_LIMIT_S, compose_tool

PROJECT = "stormdrill"
"""For questions alone: a run's own is `stormdrill-<run>`."""
HELP = "install docker-compose, or Docker's compose plugin; or start it yourself, with a label, and use attach"
_OVERRIDING = ("COMPOSE_FILE", "COMPOSE_PROJECT", "COMPOSE_PROFILES", "DOCKER_CONTEXT", "DOCKER_HOST")


class ToolFailedError(StormdrillError):
    """What it said last."""


class Tool(Struct, frozen=True):
    argv: tuple[str, ...]
    engine: str
    folder: Path
    """From where the compose file's relative paths are read."""

    def ask(self, *words: str, given: str = "", project: str = PROJECT, limit_s: float = ASK_LIMIT_S) -> bytes:
        """Its standard output. `given` stands for the compose file. Raises ToolFailedError."""
        argv = [*self.argv, "--project-name", project, "--project-directory", str(self.folder), *words]
        tied = [sys.executable, "-m", "stormdrill.targets.docker.tied", str(os.getpid()), *argv]
        with subprocess.Popen(
            tied,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(self.engine),
            start_new_session=True,
        ) as running:
            try:
                said, complaint = running.communicate(given.encode(), limit_s)
            except subprocess.TimeoutExpired:
                raise ToolFailedError(f"{self.argv[0]} had no end after {limit_s:g} s") from None
            finally:
                running.terminate()  # ends its whole session; nothing when it has ended
        if running.returncode:
            lines = (complaint or said).decode("utf-8", "replace").strip().splitlines()
            last = "; ".join(line.strip() for line in lines[-3:])
            raise ToolFailedError(last or f"exit code {running.returncode}")
        return said


def find(engine: str, folder: Path) -> Tool:
    """Raises Refused."""
    argv = compose_tool()
    if not argv:
        raise Refused(f"target docker: neither docker compose nor docker-compose answers here; {HELP}")
    return Tool(argv, engine, folder)


def resolved(tool: Tool, path: Path) -> bytes:
    """A file as the tool reads it, with the services of every profile, which the plugin leaves out unless it is asked.
    Raises ToolFailedError."""
    return tool.ask("--profile", "*", "--file", str(path.resolve()), "config")


def _environment(engine: str) -> dict[str, str]:
    """The same engine as everything else; no file, project or profile that the caller's environment names."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_OVERRIDING)}
    return {**own, "DOCKER_HOST": as_docker_host(engine)}
