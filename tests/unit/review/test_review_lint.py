"""Judgement text is read for what a good review avoids; what was computed is left alone."""

from __future__ import annotations

import pytest

from stormdrill.review.judgement import PROMPTS, carry_over
from stormdrill.review.lint import lint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("The operator should have drained eu first.", "counterfactual"),
        ("They couldn't have missed it.", "counterfactual"),
        ("If only the alert had fired.", "counterfactual"),
        ("This was human error.", "blaming"),
        ("The night shift forgot the second region.", "blaming"),
        ("The deploy was careless.", "blaming"),
        ("The root cause was a full disk.", "single cause"),
        ("The only reason is the missing limit.", "single cause"),
        ("## Actions\n\n| Improve monitoring | ops | | | | |", "vague action"),
        ("## Declined actions\n\n- Look into the queue", "vague action"),
    ],
)
def test_what_a_good_review_avoids_is_named_with_its_place(text: str, what: str) -> None:
    (problem,) = lint(text, "review.md")
    assert what in problem.what
    assert problem.line == len(text.splitlines())
    assert problem.column > 0
    assert problem.fix


@pytest.mark.parametrize(
    "text",
    [
        "us carried tier 1 after 1.9 s; the edge kept sending to eu until then.",
        "Several factors: the health check reads a cached answer; nobody owned its interval.",
        "## Actions\n\n| Lower the edge's health interval from 2 s to 500 ms | serving | 2026-12-01 | 1 | prevent | |",
        "> The customer wrote: you should have told us.",
        "`should have` is a counterfactual.",
        "<!-- should have -->\n<!--\nhuman error\n-->",
        "```\nroot cause: x\n```",
        'She said "it should have paged".',
    ],
)
def test_plain_facts_quotes_and_code_are_left_alone(text: str) -> None:
    assert lint(text) == []


def test_only_what_people_wrote_is_read_where_the_markers_say_so() -> None:
    computed = "should have\n<!-- judgement: well -->\nfine\n<!-- /judgement -->\nhuman error\n"
    assert lint(computed) == []
    assert len(lint(computed.replace("fine", "It should have failed."))) == 1


def test_what_people_wrote_survives_a_new_rendering() -> None:
    fresh = "old facts\n<!-- judgement: well -->\n*ask*\n<!-- /judgement -->\nend\n"
    edited = fresh.replace("*ask*", "The queue held.")
    merged = carry_over(fresh.replace("old", "new"), edited)
    assert "new facts" in merged
    assert "The queue held." in merged
    assert carry_over(merged, merged) == merged


def test_judgement_without_a_place_in_the_new_template_is_kept() -> None:
    merged = carry_over("facts\n", "<!-- judgement: lucky -->\nIt was noon.\n<!-- /judgement -->\n")
    assert "It was noon." in merged
    assert carry_over(merged, merged) == merged


def test_the_prompts_themselves_are_free_of_what_they_warn_of() -> None:
    for prompt in PROMPTS:
        assert lint(f"## {prompt.title}\n\n{prompt.ask}") == []
