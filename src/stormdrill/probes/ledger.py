"""What a system says of the jobs that it accepted: who lost one, who did one twice."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from stormdrill.errors import Unreachable
from stormdrill.ports import LedgerRow
from stormdrill.probes.call import http_call

BODY_LIMIT = 64 << 20
"""About half a million jobs."""
MOST_DIGITS = 10
"""Of a job's number: what record files can hold."""


class _Row(Struct):
    id: str
    state: str
    done: int
    took_ms: float | None = None
    region: str = ""


_LINES: msgspec.json.Decoder[list[_Row]] = msgspec.json.Decoder(list[_Row])
_LINE: msgspec.json.Decoder[_Row] = msgspec.json.Decoder(_Row)


def read_ledger(url: str, timeout_s: float, run: str) -> tuple[LedgerRow, ...]:
    """Every job of one instance: a JSON list, or one JSON object a line.

    The load names its jobs `<run>-<number>`; all other ids are somebody else's jobs and left out: those of earlier
    runs on the same system, or of its other users. Raises Unreachable when there is no complete, readable answer.
    """
    reply = http_call("GET", url, "", timeout_s, body_limit=BODY_LIMIT)
    if reply.error or reply.status != 200:
        raise Unreachable(reply.error or f"{url} answered {reply.status}")
    try:
        text = reply.text.strip()
        rows = _LINES.decode(text) if text.startswith("[") else [_LINE.decode(line) for line in text.splitlines()]
    except msgspec.MsgspecError as error:
        raise Unreachable(f"{url}: not a ledger: {error}") from error
    ours = re.compile(rf"{re.escape(run)}-([0-9]{{1,{MOST_DIGITS}}})")
    found = []
    for row in rows:
        number = ours.fullmatch(row.id)
        if number is not None:
            found.append(LedgerRow(int(number[1]), row.state, row.done, row.took_ms, row.region))
    return tuple(found)
