"""The Prometheus text format, read strictly."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormdrill.probes.prometheus import Sample, Scraped, parse_text, pick


def test_samples_are_read_with_labels_escapes_timestamps_and_comments() -> None:
    text = (
        "# HELP queue_depth Jobs waiting.\n# TYPE queue_depth gauge\n"
        'queue_depth{region="eu",note="a \\"b\\" \\\\ c\\n}"} 3 1700000000000\r\n'
        "\n  up 1\nrpc:rate5m -1.5e-3\ninf +Inf\nempty{} 0.\n"
        'trailing{a="b",} .5\n'
    )
    assert parse_text(text) == (
        Sample("queue_depth", {"region": "eu", "note": 'a "b" \\ c\n}'}, 3.0, 1700000000000),
        Sample("up", {}, 1.0, None),
        Sample("rpc:rate5m", {}, -0.0015, None),
        Sample("inf", {}, math.inf, None),
        Sample("empty", {}, 0.0, None),
        Sample("trailing", {"a": "b"}, 0.5, None),
    )


@pytest.mark.parametrize(
    "line",
    [
        "<html>",
        "up",
        "up one",
        "up 1 2 3",
        "up 0x10",
        "up 1_000",
        "up{ 1",
        'up{a="b} 1',
        'up{a="b" c="d"} 1',
        'up{a="b",a="c"} 1',
        "up{a=b} 1",
        'up{"a"="b"} 1',
        "1up 1",
        "up 1\nup 1",
        'up{a="1",b="2"} 1\nup{b="2",a="1"} 2',
    ],
)
def test_one_bad_line_makes_the_whole_text_worthless(line: str) -> None:
    with pytest.raises(ValueError, match="line"):
        parse_text(f"good 1\n{line}\n")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_no_text_leads_to_anything_but_samples_or_a_reason(text: str) -> None:
    with suppress(ValueError):
        assert all(sample.name for sample in parse_text(text))


def test_a_long_line_of_quotes_is_refused_quickly() -> None:
    with pytest.raises(ValueError, match="not a sample"):
        parse_text('up{a="' + '\\"' * 200_000 + "} 1")


def test_only_the_asked_samples_matter_and_all_of_them() -> None:
    scraped = Scraped(parse_text('depth{r="eu"} 1\ndepth{r="us"} 2\nother NaN\n'))
    assert pick(scraped, "depth").values == (({"r": "eu"}, 1.0), ({"r": "us"}, 2.0))
    assert pick(scraped, "depth", {"r": "us"}).values == (({"r": "us"}, 2.0),)
    assert pick(scraped, "depth", {"r": "asia"}).detail == "no sample depth{r=asia}"
    assert pick(scraped, "other").detail == "other is nan"


def test_a_sample_with_an_old_timestamp_is_not_fresh() -> None:
    scraped = Scraped(parse_text("depth 1 1000000\n"))
    assert pick(scraped, "depth", now_ms=1_010_000).fresh
    assert pick(scraped, "depth", now_ms=1_060_000).detail == "depth is 60 s old"
