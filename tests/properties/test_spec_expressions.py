"""The grammar of expressions: what is shown is read back the same, and anything else is refused at its character."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stormdrill.model.expression import AlertWithin, Comparison, Expression
from stormdrill.spec.expression import LOAD_METRICS, UNITS, ExpressionError, parse_expression, show

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in ("alert", "x"))
LABELS = st.dictionaries(
    NAMES,
    st.one_of(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,6}", fullmatch=True),
        st.integers(0, 10**6).map(str),
        st.from_regex(r'[^"\x00-\x1f\\]{1,8}', fullmatch=True).filter(str.strip),
    ),
    max_size=3,
)
NUMBERS = st.one_of(st.integers(0, 10_000).map(str), st.decimals(0, 1000, places=2).map(str))
DURATIONS = st.tuples(st.integers(1, 999), st.sampled_from(("ms", "s", "m", "h"))).map(
    lambda pair: f"{pair[0]}{pair[1]}"
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    labels = draw(LABELS)
    chosen = "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
    if draw(st.booleans()):
        return f"alert({draw(NAMES)}{chosen})" + (f" within {draw(DURATIONS)}" if draw(st.booleans()) else "")
    metric = draw(st.one_of(st.sampled_from(sorted(LOAD_METRICS)), NAMES))
    measure = LOAD_METRICS.get(metric, "any")
    number = draw(st.integers(0, 100).map(str) if measure == "share" else NUMBERS)
    limit = number + draw(st.sampled_from(sorted(UNITS[measure])))
    if draw(st.booleans()):
        limit = f"{number} x baseline"
    op = draw(st.sampled_from(("<", "<=", ">", ">=", "=")))
    tail = f" {draw(st.sampled_from(('within', 'for', 'after')))} {draw(DURATIONS)}" if draw(st.booleans()) else ""
    return f"{metric}{chosen} {op} {limit}{tail}"


def meaning(expression: Expression) -> tuple[object, ...]:
    """Everything but the spelling; numbers to the precision of their shortest spelling."""
    if isinstance(expression, AlertWithin):
        return ("alert", expression.alert, expression.labels, _rounded(expression.within_s))
    assert isinstance(expression, Comparison)
    return (
        expression.metric,
        expression.op,
        _rounded(expression.limit),
        expression.unit,
        expression.relative,
        expression.labels,
        *map(_rounded, (expression.within_s, expression.for_s, expression.after_s)),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.9g}")


@settings(max_examples=300, deadline=None)
@given(texts())
def test_what_is_shown_is_read_back_the_same(text: str) -> None:
    first = parse_expression(text)
    again = parse_expression(show(first))
    assert meaning(again) == meaning(first)
    assert show(again) == show(first)
    assert first.text == " ".join(text.split())


def read(text: str, known: bool) -> Expression | ExpressionError:
    try:
        return parse_expression(text, LOAD_METRICS if known else None)
    except ExpressionError as error:
        return error


def holds(found: Expression | ExpressionError, text: str) -> bool:
    """Refused at one of its characters with something to write, or read so that its spelling says the same."""
    if isinstance(found, ExpressionError):
        return 0 <= found.offset <= len(text) and bool(found.what) and bool(found.fix)
    return meaning(parse_expression(show(found))) == meaning(found)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=40), texts().flatmap(lambda text: st.permutations(text.split(" ")).map(" ".join))))
def test_any_text_is_read_or_refused_at_one_of_its_characters(text: str) -> None:
    assert holds(read(text, known=True), text)


@settings(max_examples=200, deadline=None)
@given(texts(), st.integers(0, 200), st.sampled_from(list("{}()=<>!,;\"'$%\\/|&x1 \n")))
def test_a_changed_character_is_refused_or_read_as_it_now_stands(text: str, position: int, character: str) -> None:
    changed = text[: position % len(text)] + character + text[position % len(text) + 1 :]
    assert holds(read(changed, known=False), changed)
