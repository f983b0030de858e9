"""A run of containers, told: what was claimed, what the engine said, and what the kernel killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from review_runs import in_containers, told_of

from stormdrill.cli.past import story_lines
from stormdrill.review import render
from synthetic_run import make_run

KILL = ((3_000.0, told_of("oom")), (3_040.0, told_of("die", code=137)))
OURS = ((2.0, told_of("pause", expected=True)), (29_000.0, told_of("unpause", expected=True)))
KILLED = "he kernel killed gateway-eu: out of memory, limit 256 MB"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_containers(make_run(tmp_path_factory.mktemp("containers") / "run"), *KILL, *OURS)


def test_an_out_of_memory_kill_is_named_in_the_review_on_the_terminal_and_in_the_verdict(killed: Path) -> None:
    review = render(killed).markdown.read_text(encoding="utf-8")
    story = " ".join(" ".join(story_lines(killed, 100)).split())
    assert review.count(KILLED) >= 2, "in the timeline, and as the reason of the verdict"
    assert KILLED in story
    assert f"{KILLED}, and no fault of the plan explains it" in review


def test_what_stormdrill_did_to_a_container_is_told_once_by_its_effect(killed: Path) -> None:
    timeline = render(killed).markdown.read_text(encoding="utf-8").partition("## Timeline")[2].partition("\n## ")[0]
    assert "pause" not in timeline
    assert "frozen, seen by process state" in timeline


def test_a_system_of_containers_is_spoken_of_as_containers(killed: Path) -> None:
    review = render(killed).markdown.read_text(encoding="utf-8")
    story = "\n".join(story_lines(killed, 100))
    assert "ready      9 containers" in story
    assert "9 processes" not in review + story
    assert "2 containers and 1 network claimed on unix:///var/run/docker.sock, before any is made." in review
    assert "Started 9 system containers:" in review


def test_a_container_that_somebody_removed_is_told_and_keeps_the_run_from_passing(tmp_path: Path) -> None:
    run = in_containers(make_run(tmp_path / "run"), (4_000.0, told_of("destroy", "cpu-us")))
    review = render(run).markdown.read_text(encoding="utf-8")
    assert "Somebody removed the container of cpu-us by hand." in review
    assert "INCONCLUSIVE" in review
