"""The one grammar for objectives, guards and wait-until.

    metric{label=value, ...} <op> value[unit] [within|for|after duration]
    metric{label=value, ...} <op> factor x baseline [within|for|after duration]
    alert(NAME{label=value, ...}) [within duration]

A tokenizer and a descent, by hand: messages point at the character and say what to write there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

from stormdrill.model.expression import AlertWithin, Comparison, Expression, Op
from stormdrill.model.units import parse_duration

Measure = Literal["share", "time", "rate", "size", "count", "any"]

LOAD_METRICS: dict[str, Measure] = {
    "success": "share",
    "goodput": "rate",
    "throughput": "rate",
    **{name: "time" for name in ("p50", "p75", "p90", "p95", "p99", "p99.9")},
    **{name: "time" for name in ("completion_p50", "completion_p95", "completion_p99")},
    "jobs_lost": "count",
    "jobs_doubled": "count",
    "jobs_strayed": "count",
}
UNITS: dict[Measure, dict[str, float]] = {
    "share": {"%": 1.0},
    "time": {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0},
    "rate": {"/s": 1.0, "/m": 1 / 60, "/h": 1 / 3600},
    "size": {"KB": 1024.0, "MB": 1024.0**2, "GB": 1024.0**3},
    "count": {"": 1.0},
}
UNITS["any"] = {unit: factor for units in tuple(UNITS.values()) for unit, factor in units.items()}
_WRITE: dict[Measure, str] = {
    "share": "a share needs %: write {0}%",
    "time": "a time needs its unit: write {0}ms or {0}s",
    "rate": "a rate needs its unit: write {0}/s",
    "size": "a size needs its unit: write {0}MB",
    "count": "a count has no unit: write {0}",
    "any": "write {0}, {0}%, {0}ms, {0}s or {0}/s",
}
_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_-]*(?:\.\d+)?)|(?P<number>\d+(?:\.\d+)?)|(?P<op><=|>=|=>|=<|==|!=|=|<|>)"
    r"|(?P<string>\"[^\"]*\")|(?P<mark>[{}(),%/]))"
)
_OPS = ("<", "<=", ">", ">=", "=")
_TAILS = ("within", "for", "after")


def measure_of(sample: str) -> Measure:
    """What a sample of a system's metrics is measured in, by Prometheus' convention of names."""
    base = sample.removesuffix("_total")
    return "time" if base.endswith("_seconds") else "size" if base.endswith("_bytes") else "count"


class ExpressionError(ValueError):
    """What is wrong, where (0-based offset into the text), and what to write."""

    def __init__(self, offset: int, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}" if fix else what)
        self.offset = offset
        self.what = what
        self.fix = fix


class _Token(NamedTuple):
    kind: str
    text: str
    begin: int
    end: int


def parse_expression(text: str, metrics: Mapping[str, Measure] | None = None) -> Expression:
    """What `text` says. `metrics`: the known names, with what they measure; None: the built-in ones, and any other
    name with any unit. Raises ExpressionError."""
    return _Parser(text, metrics).expression()


def show(expression: Expression) -> str:
    """The expression in its canonical spelling; parsing it again gives the same meaning."""
    labels = ", ".join(f"{key}={_quoted(value)}" for key, value in expression.labels.items())
    chosen = f"{{{labels}}}" if labels else ""
    if isinstance(expression, AlertWithin):
        text = f"alert({expression.alert}{chosen})"
        return text if expression.within_s is None else f"{text} within {_seconds(expression.within_s)}"
    factor = 1.0 if expression.relative else UNITS["any"][expression.unit]
    text = f"{expression.metric}{chosen} {expression.op} {_number(expression.limit / factor)}{expression.unit}"
    if expression.relative:
        text += " x baseline"
    for word in _TAILS:
        seconds = getattr(expression, f"{word}_s")
        if seconds is not None:
            text += f" {word} {_seconds(seconds)}"
    return text


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*|\d+", value) else f'"{value}"'


def _number(value: float) -> str:
    return f"{value:.12g}" if abs(value) < 1e12 else f"{value:.0f}"


def _seconds(value: float) -> str:
    return f"{_number(value)}s" if value >= 1e-3 or value == 0 else f"{_number(value * 1000)}ms"


class _Parser:
    def __init__(self, text: str, metrics: Mapping[str, Measure] | None) -> None:
        self.text = text
        self.metrics = metrics
        self.tokens: list[_Token] = []
        self.position = 0
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                offset = at + len(text[at:]) - len(text[at:].lstrip())
                raise ExpressionError(offset, f"{text[offset]!r} does not belong here", _odd(text[offset]))
            kind = str(match.lastgroup)
            self.tokens.append(_Token(kind, match[kind], match.start(kind), match.end(kind)))
            at = match.end()

    @property
    def here(self) -> _Token:
        if self.position < len(self.tokens):
            return self.tokens[self.position]
        end = len(self.text.rstrip())
        return _Token("end", "", end, end)

    def take(self) -> _Token:
        token = self.here
        self.position += 1
        return token

    def mark(self, mark: str, fix: str) -> _Token:
        if self.here.text != mark or self.here.kind == "string":
            raise ExpressionError(self.here.begin, f"{mark} is missing {self.seen()}", fix)
        return self.take()

    def seen(self) -> str:
        return f"before {self.here.text}" if self.here.text else "at the end"

    def expression(self) -> Expression:
        first = self.here
        if first.kind != "name":
            what = "nothing is compared" if first.kind == "end" else f"{first.text} is not a metric"
            raise ExpressionError(first.begin, what, "write for instance success > 98%")
        self.take()
        folded = " ".join(self.text.split())
        if first.text == "alert":
            found: Expression = self.alert(folded)
        else:
            found = self.comparison(first, folded)
        if self.here.kind != "end":
            raise ExpressionError(
                self.here.begin, f"{self.here.text} after the end of the expression", "write one expression an entry"
            )
        return found

    def alert(self, folded: str) -> AlertWithin:
        self.mark("(", "write alert(NAME)")
        name = self.take()
        if name.kind != "name":
            raise ExpressionError(name.begin, "an alert's name is missing", "write alert(NAME)")
        labels = self.labels()
        self.mark(")", "write alert(NAME)")
        tail, seconds = self.tail()
        if tail not in ("", "within"):
            raise ExpressionError(self.tokens[self.position - 2].begin, f"{tail} after an alert", "write within 10s")
        return AlertWithin(text=folded, alert=name.text, labels=labels, within_s=seconds)

    def comparison(self, metric: _Token, folded: str) -> Comparison:
        measure = self.measure(metric)
        labels = self.labels()
        op = self.take()
        if op.kind != "op" or op.text not in _OPS:
            meant = {"==": "=", "=>": ">=", "=<": "<="}.get(op.text)
            fix = f"write {meant}" if meant else "write one of < <= > >= ="
            raise ExpressionError(
                op.begin,
                f"a comparison is missing after {metric.text}"
                if op.kind != "op"
                else f"{op.text} is not a comparison here",
                fix,
            )
        limit = self.take()
        if limit.kind != "number":
            raise ExpressionError(limit.begin, f"a number is missing after {op.text}", "write for instance > 98%")
        unit, relative = self.unit(limit, measure)
        if measure == "share" and not relative and float(limit.text) > 100:
            raise ExpressionError(limit.begin, f"{limit.text}% is more than the whole", "write at most 100%")
        tail, seconds = self.tail()
        return Comparison(
            text=folded,
            metric=metric.text,
            op=cast(Op, op.text),
            limit=float(limit.text) * (1.0 if relative else UNITS["any"][unit]),
            unit=unit,
            relative=relative,
            labels=labels,
            within_s=seconds if tail == "within" else None,
            for_s=seconds if tail == "for" else None,
            after_s=seconds if tail == "after" else None,
        )

    def measure(self, metric: _Token) -> Measure:
        known = LOAD_METRICS if self.metrics is None else self.metrics
        if metric.text in known:
            return known[metric.text]
        if self.metrics is None:
            return "any"
        from stormdrill.spec.scalars import instead

        raise ExpressionError(metric.begin, f"unknown metric {metric.text}", instead(metric.text, known))

    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = {}
        if self.here.text != "{" or self.here.kind != "mark":
            return labels
        self.take()
        while True:
            name = self.take()
            if name.kind != "name":
                raise ExpressionError(name.begin, "a label's name is missing", "write {tier=1}")
            if name.text in labels:
                raise ExpressionError(name.begin, f"the label {name.text} stands here twice", "remove one")
            self.mark("=", f"write {name.text}=value")
            value = self.take()
            if value.kind not in ("name", "number", "string") or value.text == '""':
                raise ExpressionError(value.begin, f"a value is missing for {name.text}", f"write {name.text}=1")
            labels[name.text] = value.text.strip('"')
            if self.here.text != ",":
                break
            self.take()
        self.mark("}", "close the labels with }")
        return labels

    def unit(self, limit: _Token, measure: Measure) -> tuple[str, bool]:
        token = self.here
        if token.text == "x":
            self.take()
            if self.take().text != "baseline":
                raise ExpressionError(token.end, "x without baseline", "write 1.5 x baseline")
            return "", True
        unit = ""
        if token.text == "%" or (token.kind == "name" and token.begin == limit.end):
            unit = self.take().text
        elif token.text == "/":
            self.take()
            unit = f"/{self.take().text}"
        if unit not in UNITS[measure]:
            what = f"{unit} is not its unit" if unit else f"{limit.text} has no unit"
            number = limit.text
            if measure == "share" and not unit and "." in number and float(number) <= 1:
                number = f"{float(number) * 100:g}"
            raise ExpressionError(token.begin if unit else limit.begin, what, _WRITE[measure].format(number))
        return unit, False

    def tail(self) -> tuple[str, float | None]:
        word = self.here
        if word.kind != "name":
            return "", None
        if word.text not in _TAILS:
            from stormdrill.spec.scalars import instead

            fix = "write one expression an entry" if word.text in ("and", "or") else instead(word.text, _TAILS)
            raise ExpressionError(word.begin, f"unknown word {word.text}", fix)
        self.take()
        number, unit = self.take(), self.here
        if number.kind != "number":
            raise ExpressionError(number.begin, f"a duration is missing after {word.text}", f"write {word.text} 10s")
        if unit.kind != "name" or unit.begin != number.end:
            raise ExpressionError(number.begin, f"{number.text} has no unit", f"write {number.text}s")
        self.take()
        try:
            return word.text, parse_duration(number.text + unit.text)
        except ValueError:
            raise ExpressionError(
                unit.begin, f"{unit.text} is not a unit of time", f"write {number.text}s, or one of ms, s, m, h, d"
            ) from None


def _odd(character: str) -> str:
    return {"≤": "write <=", "≥": "write >=", "~": "only = compares labels"}.get(character, "remove it")
