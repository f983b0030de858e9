"""What an objective, a guard or a wait-until says, parsed. The grammar lives in `stormdrill.spec.expression`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Op = Literal["<", "<=", ">", ">=", "="]


class Comparison(Struct, frozen=True, tag="comparison"):
    """`metric{label=value} <op> limit [unit] [within|for|after duration]`."""

    text: str
    """As the person wrote it, blanks folded: the objective's name everywhere."""
    metric: str
    op: Op
    limit: float
    """Percent for shares, seconds for times, per second for rates, plain for counts; a factor when `relative`."""
    unit: str = ""
    """As written: "%", "ms", "s", "/s" or empty."""
    relative: bool = False
    """True for `< 1.5 x baseline`: the limit is a multiple of the baseline's value."""
    labels: dict[str, str] = {}
    within_s: float | None = None
    for_s: float | None = None
    after_s: float | None = None


class AlertWithin(Struct, frozen=True, tag="alert"):
    """`alert(NAME) within 10s`; in a trigger, `alert(NAME)` alone."""

    text: str
    alert: str
    labels: dict[str, str] = {}
    within_s: float | None = None


Expression = Comparison | AlertWithin
