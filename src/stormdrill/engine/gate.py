"""Law 3: no harm without health. The baseline objectives are judged before anything is injected."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from stormdrill.model.event import BaselineJudged, Recorded
from stormdrill.model.verdict import ObjectiveVerdict

IN_FLIGHT_S = 0.3
"""How long the records of the last requests of the baseline are waited for."""


class JudgeWindow(Protocol):
    """The baseline objectives' verdicts, from what is there now."""

    def __call__(self, events: Sequence[Recorded]) -> Sequence[ObjectiveVerdict]: ...


def gate(judge: JudgeWindow, *, load: bool, look: Callable[[], None]) -> Callable[[Sequence[Recorded]], BaselineJudged]:
    """The conductor's gate: `look` takes one more reading of everything, `judge` says what the baseline showed."""

    def judge_baseline(events: Sequence[Recorded]) -> BaselineJudged:
        if load:
            time.sleep(IN_FLIGHT_S)
        look()
        verdicts = judge(events)
        unmet = [f"{one.name} is {one.verdict} ({one.sentence})" for one in verdicts if one.verdict != "PASS"]
        if unmet:
            return BaselineJudged(False, "; ".join(unmet))
        return BaselineJudged(True, f"{len(verdicts)} baseline objectives hold")

    return judge_baseline
