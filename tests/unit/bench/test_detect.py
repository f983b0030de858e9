"""What is read from the shipped files and from a run's own words, without a run."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from bench import detect
from bench.detection import SOUND, Asked, Pair, Seen, added_up, rows

from stormdrill.api import plan
from stormdrill.errors import Refused
from stormdrill.model.verdict import Times, Verdict, Word

PAIR = Pair("no-failover", "region-loss")


def asked(*words: str, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr("sys.argv", ["detect", *words])
    return detect.what_is_asked(detect.arguments())


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])


def test_every_bug_of_the_platform_is_named_by_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = asked(monkeypatch=monkeypatch)
    assert whole.unnamed() == ()
    assert len(whole.bugs) >= 14
    assert whole.bugs == tuple(detect.bugs_of("platform"))
    sound = [pair for pair in whole.wanted() if pair.bug == SOUND]
    shipped = {path.stem for path in Path("experiments").glob("*.yaml")}
    assert {pair.experiment for pair in sound} == shipped - {"bad-release", "quota-exhaustion", "segmentation"}


def test_what_only_a_cluster_can_do_is_left_out_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asked(monkeypatch=monkeypatch).catches
    for path in sorted(Path("experiments").glob("*.yaml")):
        try:
            plan(path, "process", fast=True)
            refused = ""
        except Refused as error:
            refused = str(error)
        assert ("use --target kubernetes" in refused) == (path.stem not in looked), (path, refused)


def test_one_experiment_is_asked_for_with_the_bugs_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    only = asked("--only", "late-dependency", "--runs", "2", monkeypatch=monkeypatch)
    assert set(only.bugs) == {"no-feed-timeout", "unmarked-stale"}
    assert sum(only.wanted().values()) == 6
    bug = asked("--bugs", "silent-leak", monkeypatch=monkeypatch)
    assert set(bug.wanted()) == {Pair("silent-leak", "memory-leak")}


def test_an_unknown_word_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"no such experiment or bug: no-failovr; there are .*no-failover"):
        asked("--bugs", "no-failovr", monkeypatch=monkeypatch)


def told(tmp_path: Path, word: Word, code: int, late: str = "") -> Seen:
    verdict = Verdict("r", "completed", word, "why", (), (), None, None, Times())
    (tmp_path / "verdict.json").write_bytes(msgspec.json.encode(verdict))
    return detect.told(PAIR, code, json.dumps({"dir": str(tmp_path)}), late, 30.04)


def test_a_verdict_is_taken_as_it_is(tmp_path: Path) -> None:
    assert told(tmp_path, "PASS", 0) == Seen("no-failover", "region-loss", "PASS", (), "", 30.0)
    assert told(tmp_path, "FAIL", 1).word == "FAIL"
    assert told(tmp_path, "INVALID", 3) == Seen("no-failover", "region-loss", "INVALID", (), "why", 30.0)


@pytest.mark.parametrize(("code", "late"), [(5, ""), (70, ""), (4, ""), (1, "it had not ended")])
def test_what_was_left_behind_or_stopped_is_neither_caught_nor_sound(tmp_path: Path, code: int, late: str) -> None:
    assert told(tmp_path, "FAIL", code, late).word == "BROKEN"


@pytest.mark.parametrize("out", ["", "not JSON", "{}", '{"dir": null}', '{"dir": "/nowhere"}'])
def test_a_run_without_a_record_broke_off(out: str) -> None:
    found = detect.told(PAIR, 70, out, "", 1.0)
    assert (found.word, found.by) == ("BROKEN", ())
    assert "exit code 70" in found.why


def test_a_refusal_and_a_defect_say_why() -> None:
    out = json.dumps({"dir": None, "problems": [{"what": "a process has no CPU limit of its own"}]})
    for code, word in ((2, "REFUSED"), (70, "BROKEN")):
        found = detect.told(PAIR, code, out, "", 0.3)
        assert (found.word, found.why) == (word, "a process has no CPU limit of its own")


def test_the_page_keeps_its_text_and_gets_a_new_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "detection.md"
    monkeypatch.setattr(detect, "PAGE", page)
    one = Asked(("no-failover",), {"region-loss": ("no-failover",)}, 0)
    seen = [Seen("no-failover", "region-loss", "FAIL", ("success{tier=1} > 90%, fault after 5s",))]
    page.write_text(f"# What is detected\n\n{detect.TABLE}\nold\n")
    for _ in range(2):
        detect.write_page(one, seen, added_up(one, seen), "process", "abc1234")
    text = page.read_text()
    assert text.startswith(f"# What is detected\n\n{detect.TABLE}\n")
    assert "| no-failover | region-loss | FAIL 1/1 | success{tier=1} > 90%, fault after 5s |" in text
    assert "old" not in text
    assert len(rows(one, seen)) == text.count("\n| ") - 1
