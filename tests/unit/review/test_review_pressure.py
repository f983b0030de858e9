"""The backpressure section: each check that was judged, and pictures of what it was judged by."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import msgspec
import pytest

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.judge import judge
from stormdrill.model.verdict import Verdict
from stormdrill.review.documents import render
from stormdrill.store.evidence import load
from synthetic_overload import simulate, write


def reviewed(directory: Path, **knobs: object) -> tuple[Verdict, str, str]:
    write(directory, simulate(**knobs))
    found = load(directory)
    verdict = judge(found.plan, found.events, found.records, found.ledger)
    (directory / "verdict.json").write_bytes(msgspec.json.encode(verdict))
    rendered = render(directory)
    return verdict, rendered.html.read_text(), rendered.markdown.read_text()


@pytest.fixture(scope="module")
def overload(tmp_path_factory) -> tuple[Path, Verdict, str, str]:
    directory = tmp_path_factory.mktemp("overload") / "run"
    directory.mkdir()
    return (directory, *reviewed(directory, checks=tuple(ASKED)))


def test_every_check_stands_there_with_its_verdict_and_its_sentence(overload) -> None:
    _, verdict, html, markdown = overload
    assert len(verdict.backpressure) == len(ASKED)
    text = unescape(html)
    for check in verdict.backpressure:
        assert f"<code>{check.name}</code>" in html
        assert check.sentence in text
        assert f"| {check.verdict} | `{check.name}` | {check.sentence}" in markdown.replace("\\", "")


def test_each_picture_is_drawn_and_told_in_words(overload) -> None:
    directory, _, html, markdown = overload
    for name in ("goodput", "admission", "queues", "retries", "drain", "hysteresis"):
        file = f"pictures/{name}.svg"
        assert (directory / file).read_text().startswith("<svg")
        assert f"]({file})" in markdown
    assert "the most that is surely carried" in html
    assert "tier 3" in html


def test_a_picture_that_no_check_asks_for_is_not_drawn(tmp_path) -> None:
    _, html, markdown = reviewed(tmp_path, checks=("bounded-queue",))
    assert "pictures/queues.svg" in markdown
    assert "pictures/admission.svg" not in markdown
    assert 'id="backpressure"' in html


def test_a_run_without_checks_has_no_such_section(tmp_path) -> None:
    _, html, markdown = reviewed(tmp_path, checks=())
    assert 'id="backpressure"' not in html
    assert "## Backpressure" not in markdown


def test_the_same_run_is_drawn_the_same_to_the_byte(overload, tmp_path) -> None:
    directory, _, html, _ = overload
    again = tmp_path / directory.name
    again.mkdir()
    assert reviewed(again, checks=tuple(ASKED))[1] == html


def test_of_twelve_surges_six_are_drawn_and_the_rest_is_told(tmp_path) -> None:
    many = {"episodes": 12, "base_s": 4.0, "trigger_s": 4.0, "after_s": 12.0, "down_s": 3.0, "rate_per_s": 32.0}
    verdict, _, markdown = reviewed(
        tmp_path, steps=(), slots=8, slow_drain=0.3, checks=("cheap-rejection", "drain", "recovery"), **many
    )
    assert all(len(check.sentence) < 900 for check in verdict.backpressure)
    assert "rejections in 12 surges took" in verdict.backpressure[0].sentence
    for name in ("drain", "hysteresis"):
        drawing = (tmp_path / "pictures" / f"{name}.svg").read_text()
        assert sum(f">surge {number}<" in drawing for number in range(1, 13)) == 6
        assert drawing.count(">as slow as may be<") <= 1
    assert "6 that were gone sooner are left out." in markdown
    assert "6 between these are left out." in markdown
