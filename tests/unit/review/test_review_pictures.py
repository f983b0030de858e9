"""Pictures draw what was measured: gaps as gaps, edges at the phases, colours that everyone can read."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_runs import make

from stormdrill.review import publish, render
from stormdrill.review.pictures import write
from stormdrill.review.series import bucket, wilson
from stormdrill.review.svg import Scale, line, log_ticks, number, spread, tag, ticks
from stormdrill.review.templates import shipped_templates

finite = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("pictures") / "run")


def test_a_line_stops_at_a_gap_and_a_lonely_point_is_still_seen() -> None:
    unit = Scale(0, 10, 0, 10)
    drawn = line([(0, 1.0), (1, 2.0), (2, None), (3, 3.0), (4, None), (5, 1.0), (6, 1.0)], unit, unit, "l")
    assert 'd="M0,1L1,2M2,3h2M5,1L6,1"' in drawn


def test_attributes_and_children_are_escaped_where_they_are_text() -> None:
    assert tag("a", href='"><script>', class_="x") == '<a href="&quot;&gt;&lt;script&gt;" class="x"/>'


@given(finite)
def test_a_number_reads_back_to_a_tenth(value: float) -> None:
    assert abs(float(number(value)) - value) <= 0.0501
    assert number(value) != "-0"


@given(st.floats(0, 1e5), st.floats(1e-3, 1e5), st.integers(2, 8))
def test_ticks_are_few_round_and_inside(low: float, span: float, about: int) -> None:
    found = ticks(low, low + span, about)
    assert len(found) <= 2 * about + 2
    assert all(low - 1e-6 * span - 1e-6 <= value <= low + span * 1.000001 + 1e-6 for value in found)


@given(st.floats(0.01, 1e4), st.floats(1.5, 1e5))
def test_log_ticks_rise_and_stay_inside(low: float, factor: float) -> None:
    found = log_ticks(low, low * factor)
    assert found == sorted(found)
    assert all(low * 0.99 <= value <= low * factor * 1.01 for value in found)


@given(st.lists(st.floats(0, 100), max_size=6))
def test_labels_never_cover_each_other(wanted: list[float]) -> None:
    placed = sorted(spread(wanted, 12, 0, 100))
    assert all(after - before >= 11.999 for before, after in pairwise(placed))


@given(st.lists(st.floats(0, 5000), min_size=2, max_size=6, unique=True).map(sorted), st.sampled_from([0.25, 1, 5]))
def test_buckets_cover_the_run_once_and_none_is_a_sliver(edges: list[float], width_s: float) -> None:
    found = bucket(edges, width_s).edges_ms
    assert found[0] == edges[0]
    assert found[-1] == edges[-1]
    assert (np.diff(found) > 0).all()
    if edges[-1] - edges[0] >= width_s * 1000:
        assert (np.diff(found) >= width_s * 499).all()


def test_shades_hold_the_share_and_narrow_with_more_requests() -> None:
    low, high = wilson(np.array([9, 90, 900, 0]), np.array([10, 100, 1000, 0]))
    assert (low[:3] < 0.9).all()
    assert (high[:3] > 0.9).all()
    assert (np.diff(high[:3] - low[:3]) < 0).all()
    assert np.isnan(low[3])


def test_a_frozen_instance_leaves_a_gap_in_the_queues_picture(passing: Path, tmp_path: Path) -> None:
    (path,) = write(passing, tmp_path / "out", ["queue"])
    eu, us = re.findall(r'<path d="([^"]+)" class="l-c\d"', path.read_text(encoding="utf-8"))
    assert eu.count("M") == 2
    assert us.count("M") == 1


def test_limits_and_intervals_are_drawn_over_the_windows_in_which_they_were_asked(
    passing: Path, tmp_path: Path
) -> None:
    (path,) = write(passing, tmp_path / "out", ["latency"])
    text = path.read_text(encoding="utf-8")
    assert "p95{tier=1} &lt; 400 ms" in text
    assert text.count('class="limit"') == text.count('class="interval"') == text.count('class="measured"') == 1


def test_what_people_wrote_stays_when_a_review_is_published_again(passing: Path, tmp_path: Path) -> None:
    run, place = passing, tmp_path / "reviews" / "run"
    publish(render(run), place)
    review = place / "review.md"
    text = review.read_text(encoding="utf-8")
    marker = "<!-- judgement: lucky -->\n"
    review.write_text(text.replace(marker, f"{marker}It should have been noon.\n"), encoding="utf-8")
    (problem,) = publish(render(run), place).problems
    assert problem.where == str(review)
    assert review.read_text(encoding="utf-8").splitlines()[problem.line - 1].startswith("It should")
    assert "It should have been noon." in review.read_text(encoding="utf-8")
    assert (place / "pictures" / "story.svg").is_file()
    assert "It should have been noon." not in (run / "review.md").read_text(encoding="utf-8")


# --- colours ---------------------------------------------------------------------------------------------

CSS = shipped_templates()


def palettes(file: str, selector: str) -> tuple[dict[str, str], dict[str, str]]:
    """The variables in light, and in the dark."""
    text = (CSS / file).read_text(encoding="utf-8")
    blocks = re.findall(rf"{re.escape(selector)} \{{(.*?)\}}", text, re.DOTALL)
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block)) for block in blocks]
    return found[0], {**found[0], **found[1]}


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_can_be_read_on_their_background(dark: bool) -> None:
    page = palettes("review.css", ":root")[dark]
    pairs = [("text", "page"), ("muted", "page"), ("muted", "panel"), ("text", "panel"), ("link", "page")]
    pairs += [(name, f"{name}-bg") for name in ("pass", "fail", "invalid", "none")]
    pairs += [(name, "page") for name in ("pass", "fail", "invalid")]
    assert [pair for pair in pairs if contrast(page[pair[0]], page[pair[1]]) < 4.5] == []
    chart = palettes("chart.css", ".chart")[dark]
    names = [name for name in chart if name.endswith("-t")]
    assert [name for name in ["ink", "soft", *names] if contrast(chart[name], chart["paper"]) < 4.5] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_tiers_and_quantiles_differ_in_lightness_not_only_in_hue(dark: bool) -> None:
    chart = palettes("chart.css", ".chart")[dark]
    for names in (["tier1", "tier2", "tier3"], ["q99", "q95", "q50"]):
        lights = [luminance(chart[name]) for name in names]
        assert lights == sorted(lights, reverse=dark)
        assert min(contrast(chart[one], chart[two]) for one, two in pairwise(names)) > 1.5
