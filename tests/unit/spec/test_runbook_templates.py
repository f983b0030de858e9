"""No value changes the shape of a step, and no expression runs, calls or grows anything."""

from __future__ import annotations

import json

import pytest

from stormdrill.spec.runbook_path import Missing, compare, look_up, parse_path
from stormdrill.spec.runbook_template import (
    UnrenderableError,
    body_shape,
    names_in,
    render_body,
    render_text,
    render_url,
    value_of,
)

ATTACKS = [
    "''.__class__",
    "().__class__.__bases__[0].__subclasses__()",
    "region.__init__.__globals__",
    "captured.__class__.__mro__",
    "region.upper()",
    "region.format(x=1)",
    "'%1000000000d' % 1",
    "'a' * 1000000000",
    "[1] * 1000000000",
    "9 ** 9 ** 9 ** 9",
    "range(1000000000)",
    "lipsum()",
    "cycler('a')",
    "self.__init__",
    "namespace()",
    "region | attr('__class__')",
    "region | map('upper')",
    "region | format(1)",
    "region | center(1000000000)",
    "nothing_like_it",
    "captured.nothing_like_it",
    "captured",
    "1 / 0",
    "region < 3",
    "(",
    "'\\ud800'.encode()",
]


@pytest.mark.parametrize("expression", ATTACKS)
def test_an_attack_is_refused_and_does_nothing(expression: str) -> None:
    with pytest.raises(UnrenderableError):
        value_of(expression, {"region": "eu", "captured": {"a": 1}})


@pytest.mark.parametrize(
    "expression", [attack for attack in ATTACKS if "(" in attack or "__" in attack or "nothing" in attack]
)
def test_most_attacks_are_seen_before_anything_runs(expression: str) -> None:
    try:
        variables, captured = names_in("{{ " + expression + " }}")
    except UnrenderableError:
        return
    assert variables - {"region", "captured"} or captured - {"a"} or "|" in expression


def test_doubling_again_and_again_stays_small() -> None:
    doubled = "region"
    for _ in range(40):
        doubled = f"({doubled} ~ {doubled})" if len(doubled) < 3000 else doubled
    value = value_of(doubled, {"region": "e"})
    assert isinstance(value, str)
    with pytest.raises(UnrenderableError, match="characters"):
        value_of("region ~ region", {"region": "e" * 4000})


VALUES = ['"', '"}, {"', "\\", '\\"', "}}", "{{ region }}", "a b", "/../admin", "?x=1&y", "#", "%2e", "é", "{% x %}"]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_in_a_body_stays_one_value(value: str) -> None:
    body = render_body('{"a": {{ v }}, "b": "x {{ v }} y", "c": [1, {{ n }}]}', {"v": value, "n": 3})
    assert json.loads(body) == {"a": value, "b": f"x {value} y", "c": [1, 3]}


@pytest.mark.parametrize("value", VALUES)
def test_a_value_in_an_address_stays_one_segment(value: str) -> None:
    url = render_url("{{ admin }}/regions/{{ v }}/drain?q={{ v }}", {"admin": "http://127.0.0.1:80", "v": value})
    path, _, query = url.removeprefix("http://127.0.0.1:80").partition("?")
    assert path.split("/")[1::2] == ["regions", "drain"]
    assert query.count("&") == 0
    assert "#" not in url


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_value_that_would_change_the_path_is_refused(value: str) -> None:
    with pytest.raises(UnrenderableError):
        render_url("http://127.0.0.1/regions/{{ v }}/drain", {"v": value})


@pytest.mark.parametrize(
    "base",
    ["file:///etc/passwd", "http://", "http://a b/", "http://u:p@h/", "http://h/?x=1", "http://h/#f", "h:80", ""],
)
def test_only_the_base_of_an_http_address_may_begin_one(base: str) -> None:
    with pytest.raises(UnrenderableError):
        render_url("{{ admin }}/x", {"admin": base})


def test_an_argument_may_hold_anything_but_control_characters() -> None:
    assert render_text("--name={{ v }}", {"v": "a; rm -rf / $(x) `y`"}) == "--name=a; rm -rf / $(x) `y`"
    with pytest.raises(UnrenderableError):
        render_text("{{ v }}", {"v": "a\nb"})


def test_the_keys_of_a_body_are_never_rendered() -> None:
    with pytest.raises(UnrenderableError):
        render_body('{"{{ v }}": 1}', {"v": "x"})


def test_what_is_no_json_after_all_is_refused_before_rendering() -> None:
    for text in ("{level: 3}", '{"a": {{ x }} {{ y }}}', '{"a": 1', "{{ x }}, 2"):
        with pytest.raises(UnrenderableError):
            body_shape(text)


# --- paths and comparisons -------------------------------------------------------------------------------


def test_a_path_leads_to_a_value_or_says_how_far_it_went() -> None:
    answer = {"a": {"b": [{"c": 1}]}, "odd key": None}
    assert look_up(answer, parse_path(".a.b[0].c")) == 1
    assert look_up(answer, parse_path('.["odd key"]')) is None
    assert look_up(answer, parse_path(".")) == answer
    assert look_up(answer, parse_path(".a.b[1]")) == Missing(".a.b has 1 items, none at [1]")
    assert look_up(answer, parse_path(".a.x")) == Missing(".a has no .x")
    assert look_up([1], parse_path(".a")) == Missing("the answer is a list, without a .a")


@pytest.mark.parametrize("text", ["", "a", ".a..b", ".a[", ".a[-1]", ".a[x]", ". a", ".a|b", "[0]"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        parse_path(text)


@pytest.mark.parametrize(
    ("left", "op", "right", "held"),
    [
        (3, "==", 3.0, True),
        ("3", "==", 3, False),
        ("3", "!=", 3, True),
        (True, "==", 1, False),
        (False, "==", False, True),
        (None, "==", None, True),
        (None, "==", False, False),
        (2, "<", 3, True),
        ("2", "<", 3, False),
        (True, "<", 3, False),
        (float("nan"), "<", 3, False),
        (float("nan"), ">=", 3, False),
        ("abc", "contains", "b", True),
        (["eu", "us"], "contains", "us", True),
        ([1], "contains", "1", False),
        (7, "contains", 7, False),
        (Missing("gone"), "!=", 3, False),
        (Missing("gone"), "==", None, False),
    ],
)
def test_comparisons_are_typed_and_nothing_is_concluded_from_what_is_missing(left, op, right, held) -> None:
    assert compare(left, op, right)[0] is held
