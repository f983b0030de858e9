"""Reads the judgement that people wrote into a review and names what a good review avoids.

Blame, counterfactuals, a single cause, actions too vague to be done. It reads prose only: code, comments, quotes
and everything that was computed (tables of figures, the timeline, the journal) are left alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stormdrill.errors import Problem


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    what: str
    fix: str


def _rule(pattern: str, what: str, fix: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), what, fix)


RULES: tuple[_Rule, ...] = (
    _rule(
        r"\b(should|could|would|ought to|must) (?:not |never |n't )?have\b|\b(shouldn|couldn|wouldn)['’]t have\b"
        r"|\bhad (?:\w+ ){1,4}(?:only|simply)\b|\bif only\b",
        "a counterfactual tells what did not happen",
        "write what people knew then and what they did; put the change into the actions",
    ),
    _rule(
        r"\b(careless\w*|negligen\w*|incompeten\w*|lazy|sloppy|stupid\w*|fault of|to blame|blame[sd]?|forgot"
        r"|(?:human|operator|user) error|neglected to|fail(?:ed|ure) to (?:follow|notice|check|read|tell|page|act))\b",
        "blaming wording",
        "write what happened and how the system made it easy, not who",
    ),
    _rule(
        r"\b(?:the|a single|one) root cause\b|\broot cause\s*(?:was|is|:)|\bthe (?:only|sole|real) (?:cause|reason)\b",
        "a single cause",
        "name several contributing factors, technical and organisational",
    ),
)

VAGUE = _rule(
    r"^(?:be more careful|improve|investigate|look into|think about|consider|review|monitor|ensure|make sure|try to"
    r"|better|communicate|train|raise awareness|pay attention)\b"
    r"|\b(?:as needed|where possible|in the future|soon|somehow|etc\.?)(?:\W|$)",
    "a vague action",
    "write a change that can be seen to be done, with its limit: what, where, how much",
)

_ACTIONS = re.compile(r"^#{1,6}\s+.*\bactions?\b", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6}\s")
_CODE = re.compile(r"`[^`]*`")
_QUOTED = re.compile(r"[\"“][^\"”]*[\"”]")
_BEGIN = re.compile(r"<!-- judgement: [a-z-]+ -->")
_END = "<!-- /judgement -->"


def lint(markdown: str, where: str = "") -> list[Problem]:
    """Problems of the judgement text, in order of their place. `where` names the file in each.

    Where the review carries judgement markers, only what stands between them is read; else the whole text.
    """
    marked = _BEGIN.search(markdown) is not None
    inside = not marked
    fenced = comment = actions = False
    found: list[Problem] = []
    for number, raw in enumerate(markdown.splitlines(), start=1):
        if _BEGIN.fullmatch(raw.strip()):
            inside = True
        elif raw.strip() == _END:
            inside = not marked
        if raw.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            continue
        text, comment = _outside_comment(raw, comment)
        if not inside or fenced or raw.lstrip().startswith(">"):
            continue
        if _HEADING.match(raw):
            actions = bool(_ACTIONS.match(raw))
            continue
        found += _line(_blank(text), where, number, actions)
    return found


def _line(text: str, where: str, number: int, actions: bool) -> list[Problem]:
    found = [
        Problem(where, number, match.start() + 1, f"{rule.what}: {match[0].strip()!r}", rule.fix)
        for rule in RULES
        for match in rule.pattern.finditer(text)
    ]
    if actions:
        for start, cell in _cells(text):
            match = VAGUE.pattern.search(cell)
            if match is not None:
                what = f"{VAGUE.what}: {match[0].strip()!r}"
                found.append(Problem(where, number, start + match.start() + 1, what, VAGUE.fix))
                break
    return sorted(found, key=lambda problem: problem.column)


def _cells(text: str) -> list[tuple[int, str]]:
    """A table row's first cell, or a list item's text, with where it starts."""
    match = re.match(r"\s*(?:\|\s*|[-*+]\s+|\d+[.)]\s+)(?P<cell>[^|]*)", text)
    return [(match.start("cell"), match["cell"])] if match else []


def _blank(text: str) -> str:
    """The same line with code and quotations blanked, so that columns stay true."""
    for pattern in (_CODE, _QUOTED):
        text = pattern.sub(lambda match: " " * len(match[0]), text)
    return text


def _outside_comment(text: str, comment: bool) -> tuple[str, bool]:
    """The line with HTML comments blanked, and whether one is still open at its end."""
    kept: list[str] = []
    position = 0
    while position < len(text):
        marker = text.find("-->" if comment else "<!--", position)
        end = len(text) if marker < 0 else marker + (3 if comment else 4)
        piece = text[position:end]
        if comment:
            kept.append(" " * len(piece))
        else:
            kept.append(piece if marker < 0 else piece[:-4] + "    ")
        if marker >= 0:
            comment = not comment
        position = end
    return "".join(kept), comment
