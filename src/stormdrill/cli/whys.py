"""Why a verdict is what it is, line by line: each reason once, however many objectives and checks it weighs on."""

from __future__ import annotations

import re

from stormdrill.core.sentences import plural
from stormdrill.model.verdict import Verdict

_DISTRUST = re.compile(r"not to be believed: (?P<why>.*?)\. ", re.DOTALL)
_FIGURES = re.compile(r"[\d.,%]+")


def whys(verdict: Verdict) -> list[str]:
    """What speaks against a PASS, besides the verdict's own sentence."""
    said = [one.sentence for one in verdict.objectives if one.verdict != "PASS" and one.sentence]
    said += [f"{one.name}: {one.sentence}" for one in verdict.backpressure if one.verdict != "PASS" and one.sentence]
    said += [f"{one.name} on {one.target}: {one.detail}" for one in verdict.faults if not (one.bit and one.exposed)]
    if verdict.runbook is not None and verdict.runbook.verdict != "PASS":
        said.append(verdict.runbook.sentence)
    return told_once(verdict.sentence, list(dict.fromkeys((*said, *verdict.reasons))))


def told_once(sentence: str, said: list[str]) -> list[str]:
    """Where several are distrusted for one reason, whatever its figures, the first stands for all of them."""
    found: list[str] = []
    first = {reason: -1 for reason in (_reason(sentence),) if reason}
    more: dict[str, int] = {}
    for text in said:
        reason = _reason(text)
        if text == sentence:
            continue
        if reason and reason in first:
            more[reason] = more.get(reason, 0) + 1
            continue
        if reason:
            first[reason] = len(found)
        found.append(text)
    for reason, at in first.items():
        count = more.get(reason, 0)
        if count and at < 0:
            found.insert(0, f"{plural(count, 'other')} can't be believed for the same reason; the review has each")
        elif count:
            found[at] += f"; so it is with {plural(count, 'other')}, see the review"
    return found


def _reason(text: str) -> str:
    """Without the figures of the one window that it speaks of; empty for what is believed."""
    match = _DISTRUST.search(text)
    return _FIGURES.sub("", match["why"]) if match else ""
