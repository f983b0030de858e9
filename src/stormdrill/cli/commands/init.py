"""`stormdrill init`: the four folders, and a first honest drill of the user's own system."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stormdrill.cli.scaffold import Own

ARGV = "stormdrill.argv"


class WithCommand(click.Command):
    """Keeps what stands after `--` as the argument vector of the user's system."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[ARGV] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(
    "init",
    cls=WithCommand,
    epilog="Example: stormdrill init drills -- python3 -m http.server --bind 127.0.0.1 '$port'",
)
@click.argument("folder", metavar="[DIR] -- COMMAND...", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--command", default=None, help="The command as one text instead of after --; no shell reads it.")
@click.option("--port", default=None, metavar="N|env", help="Its fixed port; env: it reads STORMDRILL_PORT.")
@click.option("--ready", default="GET /", show_default=True, help="A request that it answers when it is ready.")
@click.pass_context
def init(ctx: click.Context, folder: Path, command: str | None, port: str | None, ready: str) -> None:
    """Lay out experiments/, loadgen/, runbooks/ and reviews/ in DIR, with a first drill of COMMAND.

    COMMAND follows after --, and is anything that listens on a port on this machine: write '$port' (quoted, so that
    your shell leaves it alone) or {port} where the port belongs, and each instance gets a free one. Nothing that is
    there already is overwritten.
    """
    from stormdrill import api
    from stormdrill.cli.scaffold import files_for
    from stormdrill.spec import catalogue

    own = _own(ctx.meta.get(ARGV, ()), command, port, ready)
    files = files_for(own, (catalogue.root() / "loadgen" / "http_user.py").read_text(encoding="utf-8"))
    _write(folder, files | _schemas())
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("runs/\n", encoding="utf-8")
    drill = folder / "experiments" / "first-drill.yaml"
    api.validate(str(drill), {}, False)
    for name in files:
        click.echo(f"  {folder / name}")
    click.echo()
    if folder != Path():
        click.echo(f"  next     cd {shlex.quote(str(folder))}")
    click.echo(f"  {'next' if folder == Path() else '':<8} stormdrill run experiments/first-drill.yaml")


def _own(argv: tuple[str, ...], command: str | None, port: str | None, ready: str) -> Own:
    from stormdrill.cli.scaffold import Own, names_port
    from stormdrill.errors import Refused

    if command is not None:
        if argv:
            raise Refused("the command is given twice, with --command and after --; write it once")
        try:
            argv = tuple(shlex.split(command))
        except ValueError as error:
            raise Refused(f"--command {command!r}: {error}; write it after -- instead") from error
    if not argv:
        raise Refused("no command: write it after --, as in stormdrill init drills -- python3 server.py '$port'")
    if shutil.which(argv[0]) is None:
        raise Refused(f"there is no program {argv[0]!r} here; write its path, or install it")
    if not ready.startswith(("GET /", "HEAD /")) or len(ready.split()) != 2:
        raise Refused(f"--ready {ready!r} is no request; write GET and a path: --ready 'GET /healthz'")
    if port is None or port == "env":
        if port is None and not names_port(argv):
            raise Refused(
                "the command doesn't say where its port belongs; write '$port' there, in quotes since a shell would "
                "remove it, or --port 8080 when it is fixed, or --port env when the command reads STORMDRILL_PORT"
            )
        return Own(argv, "free", ready)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Refused(f"--port {port!r} is no port; write a number from 1 to 65535, or env")
    if names_port(argv):
        raise Refused(f"the command has $port in it and --port {port} fixes it; write one of the two")
    return Own(argv, int(port), ready)


def _schemas() -> dict[str, str]:
    """What editors read: the first line of each file points here."""
    import json

    from stormdrill import api
    from stormdrill.spec.schema import schema

    kinds = ("experiment", "system", "policy", "profile")
    parameters = api.fault_parameters()
    return {f".stormdrill/{kind}.schema.json": json.dumps(schema(kind, parameters), indent=1) + "\n" for kind in kinds}


def _write(folder: Path, files: dict[str, str]) -> None:
    """All of them or none: refused when any is there, or the folder cannot be written."""
    from stormdrill.errors import Problem, Refused

    there = [name for name in files if (folder / name).exists()]
    if there:
        raise Refused(
            Problem(str(folder / name), 0, 0, "is there already", "choose another folder, or move it away")
            for name in there
        )
    try:
        for name, text in files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}; choose a folder that you may write") from error
