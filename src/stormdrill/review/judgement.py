"""What only people can say: the prompts, and carrying what they wrote into a newer rendering.

In the Markdown each prompt stands between `<!-- judgement: key -->` and `<!-- /judgement -->`. Everything outside of
these markers is computed and rewritten; what is inside belongs to people.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

from msgspec import Struct

_BLOCK = re.compile(r"<!-- judgement: (?P<key>[a-z-]+) -->\n(?P<text>.*?)<!-- /judgement -->", re.DOTALL)


class Prompt(Struct, frozen=True):
    key: str
    title: str
    ask: str
    columns: tuple[str, ...] = ()
    """A table with these columns, instead of free text."""


PROMPTS: tuple[Prompt, ...] = (
    Prompt(
        "factors",
        "Contributing factors",
        "Several, technical and organisational: what had to be true for the trigger to have this effect?",
    ),
    Prompt("well", "What went well", "What worked as designed, and what worked although nobody had designed it?"),
    Prompt("poorly", "What went poorly", "What was slow, confusing or missing: in the system, the tools, the runbook?"),
    Prompt("lucky", "Where we were lucky", "What makes this worse at another hour, load or place?"),
    Prompt(
        "surprises",
        "Surprises",
        "What did people expect, see, and know at the time? How and what; never who and why.",
    ),
    Prompt(
        "mitigation",
        "Mitigation and resolution",
        "What stopped the harm, and what removed the cause? Did the runbook do it alone?",
    ),
    Prompt(
        "similar",
        "Similar incidents",
        "Earlier incidents and runs with the same factors; what became of their actions?",
    ),
    Prompt(
        "actions",
        "Actions",
        "Specific and bounded: a change that can be seen to be done. Type: prevent, detect, mitigate, process.",
        ("Action", "Owner", "Due", "Priority", "Type", "Ticket"),
    ),
    Prompt(
        "declined", "Declined actions", "What was proposed and will not be done, with the reason.", ("Action", "Reason")
    ),
    Prompt(
        "customers", "Message to customers", "What happened to them, when, what was done, what changes. In their words."
    ),
    Prompt(
        "retest",
        "Re-test",
        "Which experiment, with which settings, shows that the actions worked? Its run and verdict.",
    ),
)


def carry_over(fresh: str, edited: str) -> str:
    """`fresh` with the judgement of `edited` in it; what `fresh` has no place for is kept at the end."""
    kept = {match["key"]: match["text"] for match in _BLOCK.finditer(edited)}

    def put(match: re.Match[str]) -> str:
        text = kept.pop(match["key"], match["text"])
        return f"<!-- judgement: {match['key']} -->\n{text}<!-- /judgement -->"

    merged = _BLOCK.sub(put, fresh)
    for key, text in kept.items():
        merged += f"\n## {key}\n\n<!-- judgement: {key} -->\n{text}<!-- /judgement -->\n"
    return merged


def due(ended: date) -> str:
    """When the review is to be shared, by severity: 1 within 3 days, 2 within 5 working days."""
    day, left = ended, 5
    while left:
        day += timedelta(days=1)
        left -= day.weekday() < 5
    return f"SEV-1 by {ended + timedelta(days=3)}, SEV-2 by {day}"
