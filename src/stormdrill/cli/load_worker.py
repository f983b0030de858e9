"""`stormdrill load worker`: this machine sends its part of a load that a run on another machine begins and ends."""

from __future__ import annotations

import os
import sys

import click


@click.command("worker", short_help="Send a part of a load that another machine runs.")
@click.option(
    "--master", metavar="HOST:PORT", envvar="STORMDRILL_LOAD_MASTER", show_envvar=True, help="Where the run waits."
)
@click.option(
    "--name",
    metavar="NAME",
    envvar="STORMDRILL_LOAD_NAME",
    show_envvar=True,
    help="As the experiment names it under hosts:; this machine's own name by default.",
)
@click.option(
    "--wait",
    metavar="SECONDS",
    envvar="STORMDRILL_LOAD_WAIT",
    show_envvar=True,
    help="How long it looks for the run; 120 by default.",
)
def worker(master: str | None, name: str | None, wait: str | None) -> None:
    """Send a part of a load that a run on another machine begins and ends.

    The run prints the command to start it with. The token that both must know comes from
    $STORMDRILL_LOAD_TOKEN alone. What to send comes from the run, which is believed
    only because it knows the token too: its locustfile is executed here.

    It ends when the load does, and by itself when 1.5 s long nothing was heard of the run.
    """
    from stormdrill.errors import Refused
    from stormdrill.load.worker_environment import MASTER_VARIABLE, NAME_VARIABLE, WAIT_VARIABLE, worker_of

    given = {MASTER_VARIABLE: master, NAME_VARIABLE: name, WAIT_VARIABLE: wait}
    environment = {**os.environ, **{key: value for key, value in given.items() if value}}
    try:
        worker_of(environment)
    except ValueError as error:
        raise Refused(str(error)) from error
    # In the place of this process: Locust has one of its own, always, and a signal meant for us reaches it.
    os.execve(sys.executable, [sys.executable, "-P", "-m", "stormdrill.load.locust"], environment)  # noqa: S606  (an argument vector, no shell)
