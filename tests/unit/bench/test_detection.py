"""What is caught, what is not, and what nobody can say, from runs that were made up."""

from __future__ import annotations

import re

import pytest
from bench.detection import SOUND, TRIES, Asked, Pair, Seen, added_up, cells, following, rows, said_by, seconds_left

from stormdrill.model.verdict import CheckVerdict, ObjectiveVerdict, RunbookVerdict, Times, Verdict, Word

LOSS, CRASH = "region-loss", "region-crash"
ASKED = Asked(("no-failover", "lost-acknowledgement"), {LOSS: ("no-failover",), CRASH: ("lost-acknowledgement",)}, 2)
CAUGHT = [Seen("no-failover", LOSS, "FAIL", ("success, fault",)), Seen("lost-acknowledgement", CRASH, "FAIL")]
SOUND_RUNS = [Seen(SOUND, name, "PASS") for name in (LOSS, CRASH) for _ in range(2)]


def test_all_bugs_caught_and_a_sound_platform_that_passes_end_with_nothing_to_do_and_exit_code_0() -> None:
    runs = CAUGHT + SOUND_RUNS
    total = added_up(ASKED, runs)
    assert (total.exit_code, total.caught, total.missed, total.sound_runs) == (0, ASKED.bugs, (), 4)
    assert following(ASKED, runs) is None
    assert seconds_left(ASKED, runs) == 0
    assert total.line().startswith("2 of 2 bugs caught")
    assert total.line().endswith("exit code 0")


def test_a_bug_that_passes_everywhere_is_missed() -> None:
    total = added_up(ASKED, [*CAUGHT[:1], Seen("lost-acknowledgement", CRASH, "PASS"), *SOUND_RUNS])
    assert (total.exit_code, total.missed) == (1, ("lost-acknowledgement",))


def test_a_bug_that_no_experiment_names_is_missed_without_a_run() -> None:
    asked = Asked((*ASKED.bugs, "retry-storm"), ASKED.catches, 2)
    assert asked.unnamed() == ("retry-storm",)
    assert added_up(asked, CAUGHT + SOUND_RUNS).missed == ("retry-storm",)
    assert rows(asked, [])[0][:3] == ("retry-storm", "none names it", "NOT CAUGHT")


def test_one_of_several_experiments_is_enough_and_the_silent_pair_is_told() -> None:
    asked = Asked(("no-failover",), {LOSS: ("no-failover",), CRASH: ("no-failover",)}, 0)
    total = added_up(asked, [Seen("no-failover", LOSS, "FAIL"), Seen("no-failover", CRASH, "PASS")])
    assert (total.exit_code, total.silent) == (0, (Pair("no-failover", CRASH),))
    assert "1 pairs passed that should not" in total.line()


def test_one_failure_of_the_sound_platform_outweighs_all_that_was_caught() -> None:
    runs = [*CAUGHT, *SOUND_RUNS[:-1], Seen(SOUND, CRASH, "FAIL", ("jobs_lost = 0, whole run",))]
    total = added_up(ASKED, runs)
    assert (total.exit_code, total.sound_failed) == (1, (Pair(SOUND, CRASH),))
    assert ("sound", CRASH, "PASS 1/2", "jobs_lost = 0, whole run") in rows(ASKED, runs)


@pytest.mark.parametrize("word", ["INVALID", "INCONCLUSIVE"])
def test_an_undecided_run_is_neither_caught_nor_sound_and_is_repeated_a_few_times(word: Word) -> None:
    asked = Asked(("no-failover",), {LOSS: ("no-failover",)}, 0)
    runs: list[Seen] = []
    while (pair := following(asked, runs)) is not None:
        runs.append(Seen(pair.bug, pair.experiment, word, (), "starved"))
    total = added_up(asked, runs)
    assert len(runs) == 1 + TRIES
    assert (total.exit_code, total.caught, total.missed, total.open) == (3, (), (), ("no-failover",))
    assert (total.undecided, total.missing) == (1 + TRIES, 1)
    assert rows(asked, runs) == [("no-failover", LOSS, f"not judged, {1 + TRIES} undecided", "starved")]


def test_a_sound_platform_that_was_looked_at_too_seldom_is_not_called_sound() -> None:
    total = added_up(ASKED, CAUGHT + SOUND_RUNS[:3])
    assert (total.exit_code, total.missing) == (3, 1)


def test_what_the_target_refuses_is_told_and_not_waited_for() -> None:
    asked = Asked((), {"cpu-starvation": ()}, 20)
    runs = [Seen(SOUND, "cpu-starvation", "REFUSED", (), "a process has no CPU limit of its own")]
    assert following(asked, runs) is None
    assert added_up(asked, runs).exit_code == 0
    assert rows(asked, runs) == [("sound", "cpu-starvation", "refused", "a process has no CPU limit of its own")]


def test_a_bug_whose_only_experiment_is_refused_is_missed() -> None:
    asked = Asked(("no-failover",), {LOSS: ("no-failover",)}, 0)
    assert added_up(asked, [Seen("no-failover", LOSS, "REFUSED")]).missed == ("no-failover",)


def test_a_run_that_breaks_off_is_never_hidden() -> None:
    total = added_up(ASKED, [*CAUGHT, Seen(SOUND, LOSS, "BROKEN", (), "exit code 5"), *SOUND_RUNS])
    assert (total.exit_code, total.broken) == (1, (Pair(SOUND, LOSS),))


def test_bugs_come_first_and_then_the_sound_platform_in_turns() -> None:
    runs: list[Seen] = []
    order = []
    while (pair := following(ASKED, runs)) is not None:
        order.append(pair)
        runs.append(Seen(pair.bug, pair.experiment, "PASS", took_s=10))
    assert [pair.bug != SOUND for pair in order] == [True, True, False, False, False, False]
    assert [pair.experiment for pair in order[2:]] == [LOSS, CRASH, LOSS, CRASH]


def test_what_is_left_is_told_by_what_runs_of_the_same_experiment_took() -> None:
    assert seconds_left(ASKED, [Seen("no-failover", LOSS, "FAIL", took_s=40)]) == 5 * 40
    both = [Seen("no-failover", LOSS, "FAIL", took_s=40), Seen("lost-acknowledgement", CRASH, "FAIL", took_s=20)]
    assert seconds_left(ASKED, both) == 2 * 40 + 2 * 20


def test_runs_of_pairs_that_are_no_longer_asked_for_count_nothing() -> None:
    assert cells(ASKED, [Seen("no-failover", CRASH, "FAIL")])[Pair("no-failover", LOSS)].decided == 0


def test_a_failure_is_told_by_its_objectives_its_runbook_and_its_guard() -> None:
    one = ObjectiveVerdict("jobs_lost = 0", "whole run", "FAIL", 3, None, None, 0, "", 10, "")
    other = ObjectiveVerdict("success > 98%", "fault", "INVALID", 3, None, None, 98, "%", 10, "")
    runbook = RunbookVerdict("region-loss", "FAIL", "", (), "")
    check = CheckVerdict("priority", "FAIL", "")
    why = ("a guard tripped: success < 50% for 10s",)
    verdict = Verdict("r", "aborted", "FAIL", "", (one, other), (), None, runbook, Times(), (check,), why)
    found = said_by(verdict)
    assert found == ("jobs_lost = 0, whole run", "check priority", "runbook region-loss", "a guard tripped")


def test_a_run_that_was_stopped_by_something_else_names_no_guard() -> None:
    one = ObjectiveVerdict("jobs_lost = 0", "whole run", "FAIL", 3, None, None, 0, "", 10, "")
    verdict = Verdict("r", "aborted", "FAIL", "", (one,), (), None, None, Times(), (), ("the run was not finished",))
    assert said_by(verdict) == ("jobs_lost = 0, whole run",)


def test_a_bug_that_a_check_names_must_fail_that_check_and_no_other() -> None:
    asked = Asked(("slow-drain",), {"backlog-drain": ("slow-drain",)}, 0)
    exact = Seen("slow-drain", "backlog-drain", "FAIL", ("check drain", "queue_age < 3s, recovery"))
    assert added_up(asked, [exact]).besides == ()
    blurred = Seen("slow-drain", "backlog-drain", "FAIL", ("check drain", "check priority"))
    total = added_up(asked, [blurred])
    assert total.besides == (Pair("slow-drain", "backlog-drain"),)
    assert "1 pairs failed another check too" in total.line()


def test_every_row_of_the_line_of_counts_names_what_it_counts() -> None:
    line = added_up(ASKED, [Seen(SOUND, LOSS, "INVALID"), Seen(SOUND, LOSS, "BROKEN")]).line()
    assert all(re.search(r"\d", part) and re.search(r"[a-z]", part) for part in line.split("; "))
