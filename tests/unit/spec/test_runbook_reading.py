"""What a runbook's file means, and what is refused: all problems at once, each with its place."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from stormdrill.errors import Refused
from stormdrill.model.expression import Comparison
from stormdrill.model.runbook import Runbook
from stormdrill.spec.runbook import parse_runbook, read_runbook
from stormdrill.spec.runbook_attributes import ALLOWED
from stormdrill.spec.runbook_front import _KEYS, _PARAMETER_KEYS
from stormdrill.spec.runbook_parameters import resolve, typed
from stormdrill.spec.runbook_template import _KEPT_FILTERS

REPOSITORY = Path(__file__).resolve().parents[3]
BAD = REPOSITORY / "tests" / "corpus" / "bad-runbooks"
SHIPPED = sorted((REPOSITORY / "runbooks").glob("*.md"))
FRONT = """---
title: A test
answers: [RegionDown]
service: platform
owner: serving
escalation: nobody
severity: SEV-3
parameters:
  region: {from: alert.labels.region, choices: [eu, us], default: eu}
  level: {type: integer, default: "2"}
  admin: {from: system.admin}
exit: success > 98% for 1s
---
"""
LOOK = """```check id=look timeout=5s
GET {{ admin }}/regions/{{ region }}
expect: .healthy == false
```
"""


def runbook(text: str, front: str = FRONT, **given) -> Runbook:
    return parse_runbook("test.md", front + text, **given)


def problems(text: str, front: str = FRONT, **given) -> list[str]:
    with pytest.raises(Refused) as refused:
        runbook(text, front, **given)
    return [f"{problem.line}:{problem.column}: {problem.what}" for problem in refused.value.problems]


# --- the corpus ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(BAD.glob("*.md")), ids=lambda path: path.stem)
def test_a_bad_runbook_is_refused_with_every_problem_in_its_place(path: Path) -> None:
    with pytest.raises(Refused) as refused:
        parse_runbook(path.name, path.read_text(), metrics=["queue_age"])
    found = [str(problem).removeprefix(f"{path.name}:") for problem in refused.value.problems]
    assert found == path.with_suffix(".expect").read_text().splitlines()


def test_every_bad_runbook_says_what_to_write_instead() -> None:
    assert len(list(BAD.glob("*.md"))) >= 30
    for path in BAD.glob("*.md"):
        with pytest.raises(Refused) as refused:
            parse_runbook(path.name, path.read_text(), metrics=["queue_age"])
        assert [problem for problem in refused.value.problems if not problem.fix] == []


def test_no_mutation_of_a_good_runbook_leads_to_a_traceback() -> None:
    good = (REPOSITORY / "runbooks" / "region-loss.md").read_text()
    rng = random.Random(7)
    pieces = [
        "{{",
        "}}",
        "```",
        "---",
        ":",
        "\n",
        "{",
        "}",
        "[",
        "id=",
        "go:",
        "\t",
        "é",
        "%}",
        "'",
        '"',
        "  ",
        "- ",
        "\x00",
    ]
    accepted, misplaced = 0, []
    for _ in range(250):
        text = good
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(pieces) + text[at + rng.randint(0, 6) :]
        try:
            runbook(text, front="")
            accepted += 1
        except Refused as refused:
            misplaced += [one for one in refused.problems if not 1 <= one.line <= text.count("\n") + 1]
    assert misplaced == []
    assert accepted < 300  # most of what was hit is prose


# --- what is read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_runbook_reads(path: Path) -> None:
    found = read_runbook(path)
    assert found.name == path.stem
    assert found.steps


def test_a_step_carries_its_heading_its_line_and_its_unrendered_body() -> None:
    found = runbook("Prose.\n\n## Is it real?\n\n" + LOOK)
    step = found.steps[0]
    assert (step.id, step.kind, step.timeout_s, step.title) == ("look", "check", 5.0, "Is it real?")
    assert "{{ region }}" in step.body
    assert found.source.split("\n")[step.line - 1] == "```check id=look timeout=5s"


def test_other_fences_are_prose() -> None:
    found = runbook('```json\n{"level": 3}\n```\n\n```\nrm -rf /\n```\n\n    ```action id=x\n    ```\n\n' + LOOK)
    assert [step.id for step in found.steps] == ["look"]


def test_a_fence_in_a_list_or_made_of_tildes_is_a_step_too() -> None:
    inner = "\n".join("  " + line for line in LOOK.replace("id=look", "id=again").splitlines())
    found = runbook("- do\n\n" + inner + "\n\n" + LOOK.replace("```", "~~~"))
    assert [step.id for step in found.steps] == ["again", "look"]


def test_the_digest_is_that_of_the_whole_document_prose_included() -> None:
    assert runbook(LOOK).digest != runbook(LOOK + "One more word.\n").digest


def test_windows_line_ends_read_the_same() -> None:
    text = FRONT + LOOK
    assert parse_runbook("a.md", text.replace("\n", "\r\n")) == parse_runbook("a.md", text)


def test_the_exit_criterion_is_the_language_of_objectives() -> None:
    found = runbook(LOOK).exit
    assert isinstance(found, Comparison)
    assert (found.metric, found.limit, found.for_s) == ("success", 98.0, 1.0)


def test_a_loop_with_a_bound_is_read() -> None:
    again = "```check id=again timeout=1s on_failure=look\nGET {{ admin }}/x\nexpect: .y == 1\n```\n"
    assert runbook(LOOK.replace("id=look", "id=look at_most=3") + again).steps[0].at_most == 3


def test_a_body_may_stand_on_several_lines() -> None:
    text = """```action id=set timeout=5s risk=low undo=none
POST {{ admin }}/levels
{
  "level": {{ level }}, "why": "for {{ region }}"
}
verify: GET {{ admin }}/levels .level == {{ level }}
```
"""
    assert runbook(text).steps[0].id == "set"


def test_a_document_without_templates_checked_needs_no_template_engine() -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom stormdrill.spec.runbook import read_runbook\n"
        f"read_runbook(Path({str(SHIPPED[0])!r}), templates=False)\n"
        "assert 'jinja2' not in sys.modules\nassert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_known_metrics_are_those_of_the_load_and_of_the_system() -> None:
    text = "```wait-until id=watch timeout=5s\nqueue_age < 5s\n```\n"
    assert runbook(text, metrics=["queue_age"]).steps
    assert problems(text, metrics=["freshness"]) == ["15:1: unknown metric queue_age"]


# --- parameters ------------------------------------------------------------------------------------------


def test_a_parameter_comes_from_the_hand_before_the_alert_before_its_default() -> None:
    found = runbook(LOOK)
    system = {"admin": "http://127.0.0.1:8000"}
    assert resolve(found, {}, system=system)["region"] == "eu"
    assert resolve(found, {}, alert_labels={"region": "us"}, system=system)["region"] == "us"
    assert resolve(found, {"region": "eu"}, alert_labels={"region": "us"}, system=system)["region"] == "eu"


def test_all_wrong_parameters_are_told_at_once() -> None:
    with pytest.raises(Refused) as refused:
        resolve(runbook(LOOK), {"region": "mars", "level": "high", "regoin": "x"})
    text = str(refused.value)
    for part in ("'mars' is none of eu, us", "'high' is no whole number", "did you mean region?", "admin has no value"):
        assert part in text


@pytest.mark.parametrize("value", ["http://u:p@127.0.0.1/", "ftp://127.0.0.1", "http://127.0.0.1/ x", "http://[::1"])
def test_an_address_of_the_system_is_checked(value: str) -> None:
    with pytest.raises(Refused):
        resolve(runbook(LOOK), {}, system={"admin": value})


def test_a_value_of_an_alert_may_not_hold_a_line_end_or_be_endless() -> None:
    free = FRONT.replace(", choices: [eu, us], default: eu", "")
    for value in ("eu\nPOST http://127.0.0.1/x", "e" * 300, "eu\x00"):
        with pytest.raises(Refused):
            resolve(runbook(LOOK, free), {}, alert_labels={"region": value}, system={"admin": "http://127.0.0.1:1"})


def test_integers_are_numbers_where_templates_see_them() -> None:
    found = runbook(LOOK)
    assert typed(found.parameters, {"level": "2", "region": "eu"}) == {"level": 2, "region": "eu"}


# --- what the pages say ----------------------------------------------------------------------------------


def test_the_runbook_in_the_how_to_reads() -> None:
    page = (REPOSITORY / "docs" / "how-to" / "write-a-runbook.md").read_text()
    text = page.partition("````markdown\n")[2].partition("````\n")[0]
    assert [step.id for step in parse_runbook("queue-age.md", text).steps] == ["old-work", "scale", "drained"]


def test_the_reference_names_every_attribute_kind_filter_and_front_matter_key() -> None:
    page = (REPOSITORY / "docs" / "reference" / "runbook.md").read_text()
    words = {f"`{kind}`" for kind in ALLOWED} | {f"`{key}`" for key in (*_KEYS, *_PARAMETER_KEYS)}
    words |= {f"`{name}" for attributes in ALLOWED.values() for name in attributes}
    words |= {name for name in _KEPT_FILTERS if len(name) > 1}
    assert [word for word in sorted(words) if word not in page] == []
