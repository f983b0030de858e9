"""`python -m stormdrill.keeper RUN JSON`: started by `client` only, in a session of its own."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path

from stormdrill.errors import Refused
from stormdrill.keeper.loop import Loop
from stormdrill.keeper.vault import Vault
from stormdrill.keeper.warden import END_NOW, Warden
from stormdrill.keeper.wire import Channel
from stormdrill.store import holds
from stormdrill.store.identity import own_identity
from stormdrill.store.journal import NAME, JournalWriter


def main() -> int:
    run, settings = sys.argv[1], json.loads(sys.argv[2])
    run_dir = Path(settings["run_dir"])
    channel = Channel(socket.socket(fileno=settings["fd"]))
    try:
        journal = JournalWriter.create(run_dir / NAME)
    except Refused as refused:
        channel.send({"push": "refused", "data": {"text": str(refused)}})
        return refused.exit_code
    me = own_identity()
    hold = holds.hold_of(run) if settings["held"] else None
    if hold is not None:
        hold = holds.set_keeper(hold, me)
    family = Vault(run, run_dir, redactor=journal.redactor)
    family.adopt_orphans()
    loop = Loop()
    warden = Warden(journal, channel, family, loop, hold, settings["grace_s"])

    def remember(number: int, _frame: object) -> None:
        warden.signalled = signal.Signals(number).name

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, END_NOW):
        signal.signal(number, remember)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # only to be woken
    loop.on_readable(channel.sock, warden.readable)
    channel.send({"push": "started", "data": {"pid": me.pid, "start_ticks": me.start_ticks}})
    try:
        loop.run(warden.tick)
    except Exception:
        sys.excepthook(*sys.exc_info())
        from stormdrill.keeper.takeover import take_over

        journal.close()
        take_over(run_dir, by="keeper", redactor=journal.redactor)
        return 70
    channel.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
