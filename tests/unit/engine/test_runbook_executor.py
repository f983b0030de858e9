"""Laws of the runbook's executor, against an admin API that really listens."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from runbook_world import REPOSITORY, Admin, Answers, Eyes, MemoryKeeper, admin_server, block, runbook_of, wait_for

from stormdrill.engine.runbook import RunbookExecutor, Terms
from stormdrill.engine.runbook_progress import progress_of
from stormdrill.model.event import (
    Approval,
    Armed,
    Reverted,
    RunbookFinished,
    RunbookStarted,
    StepFinished,
    StepStarted,
)
from stormdrill.ports import Held
from stormdrill.probes.call import Calls
from stormdrill.redact import MASK, Redactor
from stormdrill.spec.runbook import read_runbook

CHECK = block("check id=look timeout=20s", "GET {{ admin }}/regions/{{ region }}", "expect: .healthy == false")
DRAIN = block(
    "action id=drain timeout=20s risk=medium idempotent undo=undrain",
    "POST {{ admin }}/regions/{{ region }}/drain",
    "verify: GET {{ admin }}/regions/{{ region }} .draining == true",
)
UNDRAIN = block("undo id=undrain", "POST {{ admin }}/regions/{{ region }}/admit")
SHED = block(
    "action id=shed timeout=20s risk=high approval=1 undo=unshed",
    "capture: level_before = GET {{ admin }}/shed-level .level",
    'POST {{ admin }}/shed-level {"level": 3}',
    "verify: GET {{ admin }}/shed-level .level == 3",
)
UNSHED = block("undo id=unshed", 'POST {{ admin }}/shed-level {"level": {{ captured.level_before }}}')
ROOM = block(
    "decision id=room timeout=20s",
    "headroom: GET {{ admin }}/capacity .headroom",
    "- when: headroom >= 0 go: done",
    "- otherwise go: shed",
)


def quick(text: str, timeout: str = "300ms") -> str:
    """For what is meant not to come within its time-out; what is meant to come has plenty of time."""
    return text.replace("timeout=20s", f"timeout={timeout}")


@pytest.fixture
def admin() -> Iterator[Admin]:
    with admin_server() as found:
        yield found


@pytest.fixture
def keeper() -> MemoryKeeper:
    return MemoryKeeper()


def executor(admin: Admin, keeper: MemoryKeeper, *blocks: str, **given) -> RunbookExecutor:
    terms = Terms(
        **{name: given.pop(name) for name in list(given) if name in Terms.__dataclass_fields__}  # type: ignore[arg-type]
    )
    parameters = {"region": "eu", "admin": admin.url}
    return RunbookExecutor(runbook_of(*blocks), parameters, keeper=keeper, caller=Calls(), terms=terms, **given)


def outcomes(keeper: MemoryKeeper) -> list[tuple[str, str]]:
    return [(event.step, event.outcome) for event in keeper.of(StepFinished)]


# --- the record and the harm -----------------------------------------------------------------------------


def test_the_shipped_runbook_goes_from_its_check_to_its_watch(admin: Admin, keeper: MemoryKeeper) -> None:
    runbook = read_runbook(REPOSITORY / "runbooks" / "region-loss.md")
    run = RunbookExecutor(
        runbook,
        {"region": "eu", "admin": admin.url},
        keeper=keeper,
        caller=Calls(),
        sight=Eyes(Held(True, 97.0)),
        terms=Terms(approved=frozenset({"shed"}), clock=lambda: time.monotonic() * 10),
    )
    assert run.run().outcome == "done"
    assert admin.level == 3
    assert admin.regions["eu"]["draining"]
    assert ("watch", "ok") in outcomes(keeper)


def test_every_step_is_written_down_before_and_after_and_the_undo_before_the_call(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    assert executor(admin, keeper, CHECK, DRAIN, UNDRAIN).run().outcome == "done"
    assert keeper.types() == [
        "runbook-started",
        "step-started",
        "step-finished",
        "step-started",
        "armed",
        "step-finished",
        "runbook-finished",
    ]
    assert keeper.of(Armed)[0].undo[0]["url"] == f"{admin.url}/regions/eu/admit"


@pytest.mark.parametrize("refused", ["runbook-started", "step-started", "armed"])
def test_what_cannot_be_written_down_is_not_executed(admin: Admin, keeper: MemoryKeeper, refused: str) -> None:
    keeper.refuse.add(refused)
    outcome = executor(admin, keeper, DRAIN, UNDRAIN).run()
    assert (outcome.outcome, outcome.record_lost) == ("failed", True)
    assert not [call for call in admin.calls if call.startswith("POST")]


def test_nothing_is_executed_after_a_step_whose_end_cannot_be_written(admin: Admin, keeper: MemoryKeeper) -> None:
    keeper.refuse.add("step-finished")
    outcome = executor(admin, keeper, CHECK, DRAIN, UNDRAIN).run()
    assert outcome.record_lost
    assert admin.calls == ["GET /regions/eu"]


def test_secrets_are_removed_before_a_step_is_recorded(admin: Admin, keeper: MemoryKeeper) -> None:
    redactor = Redactor()
    redactor.register("s3cr3t-token")
    step = block(
        "check id=look timeout=300ms", "GET {{ admin }}/regions/eu?key=s3cr3t-token", "expect: .healthy == false"
    )
    admin.regions["eu?key=s3cr3t-token"] = admin.regions["eu"]
    executor(admin, keeper, step, redactor=redactor).run()
    assert MASK in keeper.of(StepStarted)[0].text
    assert "s3cr3t-token" not in str(keeper.events)


# --- checks, decisions, waits ----------------------------------------------------------------------------


def test_a_check_looks_again_until_it_holds(admin: Admin, keeper: MemoryKeeper) -> None:
    admin.regions["eu"]["healthy"] = True
    step = CHECK
    run = executor(admin, keeper, step)
    run.start()
    assert wait_for(lambda: len(admin.calls) >= 2)
    admin.regions["eu"]["healthy"] = False
    assert run.join(20)
    assert run.outcome is not None
    assert run.outcome.outcome == "done"


def test_a_check_that_never_holds_stops_the_runbook_and_says_what_was_seen(admin: Admin, keeper: MemoryKeeper) -> None:
    admin.regions["eu"]["healthy"] = True
    outcome = executor(admin, keeper, quick(CHECK), DRAIN, UNDRAIN).run()
    assert outcome.outcome == "failed"
    assert outcome.detail == "look: .healthy == false: it is true"
    assert not admin.regions["eu"]["draining"]


def test_a_decision_goes_where_its_reading_leads_and_the_record_says_where(admin: Admin, keeper: MemoryKeeper) -> None:
    admin.headroom = 2
    assert executor(admin, keeper, ROOM, SHED, UNSHED).run().outcome == "done"
    assert keeper.of(StepFinished)[0].goes_to == "done"
    assert admin.level == 0


@pytest.mark.parametrize("reading", [None, "many", [1], True])
def test_a_decision_without_a_usable_reading_chooses_nothing_not_even_otherwise(
    admin: Admin, keeper: MemoryKeeper, reading: object
) -> None:
    admin.headroom = reading
    outcome = executor(admin, keeper, quick(ROOM), SHED, UNSHED, approved=frozenset({"shed"})).run()
    assert outcome.outcome == "failed"
    assert admin.level == 0


def test_a_wait_holds_only_without_a_break(admin: Admin, keeper: MemoryKeeper) -> None:
    step = block("wait-until id=watch timeout=20s", "success{tier=1} > 95% for 500ms")
    eyes = Eyes(Held(True, 96.0), Held(True, 96.0), Held(False, 80.0), Held(True, 96.0))
    run = executor(admin, keeper, step, sight=eyes, clock=lambda: eyes.looks * 0.2)
    assert run.run().outcome == "done"
    assert eyes.looks == 7  # after the break the 500 ms begin again, at one look each 200 ms


def test_a_stale_reading_never_ends_a_wait(admin: Admin, keeper: MemoryKeeper) -> None:
    step = block("wait-until id=watch timeout=500ms", "success{tier=1} > 95%")
    outcome = executor(admin, keeper, step, sight=Eyes(Held(True, 99.0, "no record for 3 s"))).run()
    assert outcome.detail == "watch: no record for 3 s"
    assert outcome.steps[0].outcome == "timed-out"


def test_a_wait_can_look_at_the_admin_api_by_itself(admin: Admin, keeper: MemoryKeeper) -> None:
    step = block("wait-until id=room timeout=20s", "GET {{ admin }}/capacity .headroom >= 0 for 300ms")
    run = executor(admin, keeper, step)
    run.start()
    assert wait_for(lambda: len(admin.calls) >= 2)
    admin.headroom = 1
    assert run.join(20)
    assert run.outcome is not None
    assert run.outcome.outcome == "done"


def test_without_eyes_a_person_says_whether_it_holds_and_without_a_person_it_fails(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    step = block("wait-until id=watch timeout=20s", "success > 95%")
    assert executor(admin, keeper, step, person=Answers(observe="yes")).run().outcome == "done"
    outcome = executor(admin, keeper, step).run()
    assert outcome.detail == "watch: nothing here can see success"


def test_a_branch_may_have_several_conditions(admin: Admin, keeper: MemoryKeeper) -> None:
    step = block(
        "decision id=both timeout=20s",
        "headroom: GET {{ admin }}/capacity .headroom",
        "level: GET {{ admin }}/shed-level .level",
        '- when: headroom < 0 and level == "x and y" go: stop',
        "- when: headroom < 0 and level == 0 go: done",
        "- otherwise go: stop",
    )
    assert executor(admin, keeper, step).run().outcome == "done"


# --- actions ---------------------------------------------------------------------------------------------


def test_what_an_undo_needs_is_captured_before_the_harm(admin: Admin, keeper: MemoryKeeper) -> None:
    admin.level = 1
    run = executor(admin, keeper, SHED, UNSHED, approved=frozenset({"shed"}))
    assert run.run().outcome == "done"
    assert keeper.of(Armed)[0].undo[0]["body"] == '{"level": 1}'
    assert keeper.of(StepStarted)[0].captured == {"level_before": "1"}
    assert run.undo_all("abort") == [("runbook/shed", "done")]
    assert admin.level == 1


@pytest.mark.parametrize("level", [None, {"a": 1}, [1], "x" * 2000])
def test_an_action_is_not_done_when_what_its_undo_needs_cannot_be_read(
    admin: Admin, keeper: MemoryKeeper, level: object
) -> None:
    admin.level = level
    step = SHED if level is None else quick(SHED)
    done = executor(admin, keeper, step, UNSHED, approved=frozenset({"shed"})).run()
    if level is None:  # null is a plain value, and what was there before
        assert keeper.of(Armed)[0].undo[0]["body"] == '{"level": null}'
    else:
        assert done.outcome == "failed"
        assert not [call for call in admin.calls if call.startswith("POST")]


def test_a_captured_value_cannot_change_the_shape_of_the_undo(admin: Admin, keeper: MemoryKeeper) -> None:
    admin.level = '3}, "admin": {"x": 1'
    executor(admin, keeper, SHED, UNSHED, approved=frozenset({"shed"})).run()
    assert keeper.of(Armed)[0].undo[0]["body"] == '{"level": "3}, \\"admin\\": {\\"x\\": 1"}'


def test_actions_are_undone_in_reverse_and_one_failure_keeps_no_other_from_it(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    run = executor(admin, keeper, DRAIN, UNDRAIN, SHED, UNSHED, approved=frozenset({"shed"}))
    assert run.run().outcome == "done"
    admin.on_post = lambda path: (500, 0.0) if path == "/shed-level" else (200, 0.0)
    assert run.undo_all("abort") == [("runbook/shed", "failed"), ("runbook/drain", "done")]
    assert not admin.regions["eu"]["draining"]
    assert run.armed == ("runbook/shed",)


def test_an_action_that_is_not_verified_is_not_ok_and_stays_armed(admin: Admin, keeper: MemoryKeeper) -> None:
    step = quick(DRAIN).replace(".draining == true", ".draining == 7")
    run = executor(admin, keeper, step, UNDRAIN)
    assert run.run().outcome == "failed"
    assert outcomes(keeper) == [("drain", "timed-out")]
    assert run.armed == ("runbook/drain",)


def test_a_call_that_outlives_its_time_out_is_doubtful_and_its_verification_decides(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    admin.on_post = lambda path: (200, 4.0)
    assert executor(admin, keeper, quick(DRAIN, "1s"), UNDRAIN).run().outcome == "done"
    assert "all the same .draining == true" in keeper.of(StepFinished)[0].detail


def test_a_doubtful_call_whose_verification_does_not_hold_has_an_unknown_outcome(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    admin.on_post = lambda path: (503, 0.0)
    run = executor(admin, keeper, quick(DRAIN), UNDRAIN)
    assert run.run().outcome == "failed"
    assert outcomes(keeper) == [("drain", "unknown")]
    assert run.armed == ("runbook/drain",)


def test_a_call_that_was_never_sent_is_disarmed_again(admin: Admin, keeper: MemoryKeeper) -> None:
    step = DRAIN.replace("POST {{ admin }}", "POST http://127.0.0.1:1")
    run = executor(admin, keeper, step, UNDRAIN)
    assert run.run().outcome == "failed"
    assert run.armed == ()
    assert keeper.of(Reverted)[0].outcome == "superseded"


def test_an_action_is_repeated_as_often_as_it_says_and_armed_once(admin: Admin, keeper: MemoryKeeper) -> None:
    answers = iter([(503, 0.0), (200, 0.0)])
    admin.on_post = lambda path: next(answers)
    step = quick(DRAIN, "1s").replace("idempotent", "idempotent retry=1")
    assert executor(admin, keeper, step, UNDRAIN).run().outcome == "done"
    assert [event.attempt for event in keeper.of(StepStarted)] == [1, 2]
    assert len(keeper.of(Armed)) == 1


def test_a_command_runs_as_a_vector_and_is_undone_as_one(admin: Admin, keeper: MemoryKeeper, tmp_path) -> None:
    mark = tmp_path / "mark; touch injected"
    step = block(
        "action id=touch timeout=5s risk=low undo=remove",
        f'run: ["touch", "{mark}"]',
        f'verify: run: ["test", "-f", "{mark}"] exit 0',
    )
    run = executor(admin, keeper, step, block("undo id=remove", f'run: ["rm", "{mark}"]'))
    assert run.run().outcome == "done"
    assert mark.exists()
    run.undo_all("abort")
    assert not mark.exists()
    assert not list(tmp_path.glob("*injected"))


# --- failure ---------------------------------------------------------------------------------------------

BROKEN = block("check id=broken timeout=100ms {}", "GET {{{{ admin }}}}/nowhere", "expect: .x == 1")


def test_continue_goes_on_with_the_next_step(admin: Admin, keeper: MemoryKeeper) -> None:
    assert executor(admin, keeper, BROKEN.format("on_failure=continue"), CHECK).run().outcome == "done"
    assert outcomes(keeper) == [("broken", "failed"), ("look", "ok")]


def test_a_failure_can_lead_to_a_step(admin: Admin, keeper: MemoryKeeper) -> None:
    first = BROKEN.format("on_failure=look then=done")
    assert executor(admin, keeper, first, CHECK).run().outcome == "done"
    assert keeper.of(StepFinished)[0].goes_to == "look"


def test_rollback_undoes_what_was_done_and_fails(admin: Admin, keeper: MemoryKeeper) -> None:
    run = executor(admin, keeper, DRAIN, UNDRAIN, BROKEN.format("on_failure=rollback"))
    assert run.run().outcome == "failed"
    assert not admin.regions["eu"]["draining"]
    assert run.armed == ()


def test_a_loop_ends_at_its_bound(admin: Admin, keeper: MemoryKeeper) -> None:
    again = BROKEN.format("on_failure=look")
    outcome = executor(admin, keeper, CHECK.replace("id=look", "id=look at_most=3"), again).run()
    assert outcome.outcome == "failed"
    assert "3 times" in outcome.detail
    assert [step for step, _ in outcomes(keeper)].count("look") == 3


def test_a_template_that_cannot_be_rendered_fails_its_step_before_anything_is_sent(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    step = CHECK.replace("/regions/{{ region }}", "/regions/{{ region * 3 }}")
    outcome = executor(admin, keeper, step).run()
    assert "nothing was done" in outcome.detail
    assert outcomes(keeper) == [("look", "failed")]
    assert admin.calls == []


# --- people ----------------------------------------------------------------------------------------------


def test_an_approval_from_the_experiment_is_written_with_the_digest_of_what_it_allows(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    executor(admin, keeper, SHED, UNSHED, approved=frozenset({"shed"})).run()
    approval, started = keeper.of(Approval)[0], keeper.of(StepStarted)[0]
    assert (approval.by, approval.granted) == ("experiment", True)
    assert approval.digest == started.digest


def test_an_approval_for_another_step_allows_nothing(admin: Admin, keeper: MemoryKeeper) -> None:
    outcome = executor(admin, keeper, SHED, UNSHED, approved=frozenset({"drain"})).run()
    assert "nobody is there to give it" in outcome.detail
    assert admin.level == 0


@pytest.mark.parametrize(("answer", "said"), [("refuse", "not approved"), (None, "no approval within"), ("yes", "no ")])
def test_only_the_word_approve_approves(admin: Admin, keeper: MemoryKeeper, answer, said: str) -> None:
    outcome = executor(admin, keeper, SHED, UNSHED, person=Answers(approve=answer)).run()
    assert said in outcome.detail
    assert admin.level == 0
    assert not keeper.of(Approval)[0].granted


def test_the_person_sees_what_is_done_and_how_it_is_undone(admin: Admin, keeper: MemoryKeeper) -> None:
    person = Answers(approve="approve")
    assert executor(admin, keeper, SHED, UNSHED, person=person).run().outcome == "done"
    assert f'POST {admin.url}/shed-level {{"level": 3}}' in person.asked[0].text
    assert "undo:" in person.asked[0].text
    assert keeper.of(Approval)[0].by == "ada"


def test_what_was_captured_while_waiting_for_the_approval_is_captured_again(admin: Admin, keeper: MemoryKeeper) -> None:
    def approve(question, timeout_s, cancelled):
        admin.level = 2
        return "approve"

    executor(admin, keeper, SHED, UNSHED, person=Answers(approve=approve)).run()
    assert keeper.of(Armed)[0].undo[0]["body"] == '{"level": 2}'


def test_when_the_action_changes_while_it_is_approved_it_is_shown_again(admin: Admin, keeper: MemoryKeeper) -> None:
    step = SHED.replace('{"level": 3}', '{"level": {{ captured.level_before + 1 }}}').replace(
        ".level == 3", ".level > 0"
    )

    def approve(question, timeout_s, cancelled):
        admin.level = 2
        return "approve"

    person = Answers(approve=approve)
    assert executor(admin, keeper, step, UNSHED, person=person).run().outcome == "done"
    assert len(person.asked) == 2
    assert admin.level == 3


def test_a_grant_expires(admin: Admin, keeper: MemoryKeeper) -> None:
    now = [1000.0]

    def approve(question, timeout_s, cancelled):
        return "approve"

    def clock() -> float:
        return now[0] + time.monotonic()

    step = quick(SHED, "1s").replace("undo=unshed", "undo=unshed idempotent retry=1")
    answers = iter([(503, 0.0), (200, 0.0)])

    def on_post(path: str) -> tuple[int, float]:
        now[0] += 1000
        return next(answers)

    admin.on_post = on_post
    person = Answers(approve=approve)
    executor(admin, keeper, step, UNSHED, person=person, clock=clock).run()
    assert len(person.asked) == 2


def test_a_manual_step_waits_for_a_person_and_is_verified(admin: Admin, keeper: MemoryKeeper) -> None:
    step = block(
        "manual id=call timeout=20s",
        "Call the manager of {{ region }}.",
        "verify: GET {{ admin }}/regions/us .healthy == true",
    )
    person = Answers(manual="done")
    assert executor(admin, keeper, step, person=person).run().outcome == "done"
    assert person.asked[0].text == "Call the manager of eu."
    admin.regions["us"]["healthy"] = False
    assert executor(admin, keeper, quick(step), person=person).run().outcome == "failed"


@pytest.mark.parametrize(
    ("rule", "outcome"), [("", "failed"), ("unattended=skip", "skipped"), ("unattended=fail", "failed")]
)
def test_a_manual_step_without_a_person_does_what_it_says(
    admin: Admin, keeper: MemoryKeeper, rule: str, outcome: str
) -> None:
    executor(admin, keeper, block(f"manual id=call timeout=5s {rule}", "Call somebody.")).run()
    assert outcomes(keeper) == [("call", outcome)]


# --- cancelling ------------------------------------------------------------------------------------------


def test_cancelling_ends_a_wait_at_once_and_is_recorded(admin: Admin, keeper: MemoryKeeper) -> None:
    eyes = Eyes(Held(False, 10.0))
    run = executor(admin, keeper, block("wait-until id=watch timeout=1h", "success > 95%"), sight=eyes)
    run.start()
    assert wait_for(lambda: eyes.looks > 0)
    run.cancel()
    assert run.join(10)
    assert run.outcome is not None
    assert run.outcome.outcome == "cancelled"
    assert outcomes(keeper) == [("watch", "cancelled")]
    assert keeper.of(RunbookFinished)[0].outcome == "cancelled"


def test_cancelling_during_a_call_waits_for_the_call_and_leaves_its_undo_armed(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    admin.on_post = lambda path: (200, 0.5)
    run = executor(admin, keeper, DRAIN, UNDRAIN, CHECK)
    run.start()
    assert wait_for(lambda: any(call.startswith("POST") for call in admin.calls))
    run.cancel()
    assert run.join(10)
    assert outcomes(keeper) == [("drain", "cancelled")]
    assert run.armed == ("runbook/drain",)
    run.undo_all("abort")
    assert not admin.regions["eu"]["draining"]


def test_an_undo_never_overtakes_its_action(admin: Admin, keeper: MemoryKeeper) -> None:
    admin.on_post = lambda path: (200, 0.5 if path.endswith("/drain") else 0.0)
    run = executor(admin, keeper, DRAIN, UNDRAIN)
    run.start()
    assert wait_for(lambda: any(call.startswith("POST") for call in admin.calls))
    assert run.undo_all("abort") == [("runbook/drain", "done")]
    assert run.outcome is not None
    assert [call for call in admin.calls if call.startswith("POST")][-1] == "POST /regions/eu/admit"
    assert not admin.regions["eu"]["draining"]


def test_cancelling_while_a_person_is_asked_does_not_execute(admin: Admin, keeper: MemoryKeeper) -> None:
    asked = threading.Event()

    def approve(question, timeout_s, cancelled):
        asked.set()
        cancelled.wait(10)
        return "approve"

    run = executor(admin, keeper, SHED, UNSHED, person=Answers(approve=approve))
    run.start()
    assert asked.wait(10)
    run.cancel()
    assert run.join(10)
    assert admin.level == 0


def test_a_runbook_stops_when_its_time_is_over(admin: Admin, keeper: MemoryKeeper) -> None:
    step = block("wait-until id=watch timeout=1h", "success > 95%")
    outcome = executor(admin, keeper, step, sight=Eyes(Held(False, 1.0)), deadline_s=time.monotonic() + 0.3).run()
    assert (outcome.outcome, outcome.detail) == ("cancelled", "watch: the runbook's time is over")


def test_an_undo_is_armed_until_the_conductor_says_and_not_longer(admin: Admin, keeper: MemoryKeeper) -> None:
    executor(admin, keeper, DRAIN, UNDRAIN, undo_until_s=time.monotonic() + 50).run()
    assert 40 < keeper.expiries["runbook/drain"] <= 50


# --- exit ------------------------------------------------------------------------------------------------


def test_the_exit_criterion_is_waited_for_when_asked_and_stands_in_the_record(
    admin: Admin, keeper: MemoryKeeper
) -> None:
    assert executor(admin, keeper, CHECK, sight=Eyes(Held(True, 99.0)), exit_within_s=20).run().outcome == "done"
    assert outcomes(keeper)[-1] == ("exit", "ok")


def test_an_exit_criterion_that_is_not_reached_fails_the_runbook(admin: Admin, keeper: MemoryKeeper) -> None:
    outcome = executor(admin, keeper, CHECK, sight=Eyes(Held(False, 90.0)), exit_within_s=0.3).run()
    assert outcome.outcome == "failed"
    assert "success > 98% for 1s was not reached" in outcome.detail


# --- going on --------------------------------------------------------------------------------------------


def crashed(admin: Admin, blocks: tuple[str, ...], keep: int) -> MemoryKeeper:
    """The record of a runbook whose runner died after `keep` events."""
    first = MemoryKeeper()
    executor(admin, first, *blocks, approved=frozenset({"shed"})).run()
    first.events = first.events[:keep]
    return first


def resumed(
    admin: Admin, record: MemoryKeeper, blocks: tuple[str, ...], **given
) -> tuple[RunbookExecutor, MemoryKeeper]:
    keeper = MemoryKeeper()
    run = executor(admin, keeper, *blocks, progress=progress_of(record.events), **given)
    run.run()
    return run, keeper


NOT_IDEMPOTENT = (DRAIN.replace(" idempotent", ""), UNDRAIN, CHECK)


@pytest.mark.parametrize(("answer", "posts"), [("happened", 0), ("again", 1), ("stop", 0), (None, 0)])
def test_after_a_crash_in_the_middle_of_an_action_a_person_is_asked(admin: Admin, answer, posts: int) -> None:
    record = crashed(admin, NOT_IDEMPOTENT, 3)
    assert record.types() == ["runbook-started", "step-started", "armed"]
    admin.calls.clear()
    person = Answers(unknown=answer)
    run, _ = resumed(admin, record, NOT_IDEMPOTENT, person=person)
    assert [question.kind for question in person.asked] == ["unknown"]
    assert "its verification holds now" in person.asked[0].text
    assert len([call for call in admin.calls if call.startswith("POST")]) == posts
    assert run.outcome is not None
    assert run.outcome.outcome == ("done" if answer in {"happened", "again"} else "failed")
    assert run.armed == ("runbook/drain",)


def test_without_a_person_an_unknown_action_is_not_repeated(admin: Admin) -> None:
    record = crashed(admin, NOT_IDEMPOTENT, 3)
    admin.calls.clear()
    _, keeper = resumed(admin, record, NOT_IDEMPOTENT)
    assert outcomes(keeper) == [("drain", "unknown")]
    assert not [call for call in admin.calls if call.startswith("POST")]


def test_an_idempotent_action_is_repeated_after_a_crash_and_keeps_its_first_undo(admin: Admin) -> None:
    blocks = (DRAIN, UNDRAIN, CHECK)
    run, keeper = resumed(admin, crashed(admin, blocks, 3), blocks)
    assert run.outcome is not None
    assert run.outcome.outcome == "done"
    assert keeper.of(Armed) == []
    assert [event.attempt for event in keeper.of(StepStarted)] == [2, 1]


def test_a_crash_before_the_undo_was_armed_means_that_nothing_was_done(admin: Admin) -> None:
    _, keeper = resumed(admin, crashed(admin, NOT_IDEMPOTENT, 2), NOT_IDEMPOTENT)
    assert outcomes(keeper) == [("drain", "ok"), ("look", "ok")]


def test_what_was_captured_before_a_crash_is_known_after_it_and_is_not_read_again(admin: Admin) -> None:
    admin.level = 1
    blocks = (SHED.replace(" approval=1", " approval=1 idempotent"), UNSHED)
    record = crashed(admin, blocks, 4)
    assert record.types()[-2:] == ["step-started", "armed"]
    assert admin.level == 3
    run, keeper = resumed(admin, record, blocks, approved=frozenset({"shed"}))
    assert run.armed == ("runbook/shed",)
    assert keeper.of(Armed) == []
    assert keeper.of(StepStarted)[0].captured == {"level_before": "1"}


def test_a_failed_runbook_goes_on_at_the_step_that_failed(admin: Admin) -> None:
    blocks = (CHECK, DRAIN, UNDRAIN)
    admin.on_post = lambda path: (409, 0.0)
    record = crashed(admin, blocks, 99)
    assert record.of(RunbookFinished)[0].outcome == "failed"
    admin.on_post = lambda path: (200, 0.0)
    _, keeper = resumed(admin, record, blocks)
    assert outcomes(keeper) == [("drain", "ok")]


@pytest.mark.parametrize(("status", "outcome"), [(503, "unknown"), (200, "timed-out")])
def test_an_action_that_ended_in_doubt_is_not_repeated_without_a_person_either(
    admin: Admin, status: int, outcome: str
) -> None:
    step = quick(DRAIN).replace(" idempotent", "").replace(".draining == true", ".draining == 7")
    admin.on_post = lambda path: (status, 0.0)
    record = crashed(admin, (step, UNDRAIN), 99)
    assert outcomes(record) == [("drain", outcome)]
    admin.calls.clear()
    _, keeper = resumed(admin, record, (step, UNDRAIN))
    assert outcomes(keeper) == [("drain", "unknown")]
    assert not [call for call in admin.calls if call.startswith("POST")]


def test_an_action_that_was_never_sent_is_done_without_asking(admin: Admin) -> None:
    step = DRAIN.replace(" idempotent", "").replace("POST {{ admin }}", "POST http://127.0.0.1:1")
    record = crashed(admin, (step, UNDRAIN), 99)
    person = Answers(unknown="stop")
    _, keeper = resumed(admin, record, (step, UNDRAIN), person=person)
    assert person.asked == []
    assert outcomes(keeper) == [("drain", "failed")]


def test_going_on_at_every_single_point_of_the_record_ends_well(admin: Admin) -> None:
    blocks = (CHECK, DRAIN, UNDRAIN, ROOM, SHED, UNSHED, block("wait-until id=watch timeout=5s", "success > 1%"))
    whole = MemoryKeeper()
    eyes = Eyes(Held(True, 99.0))
    executor(admin, whole, *blocks, approved=frozenset({"shed"}), sight=eyes).run()
    assert whole.of(RunbookStarted)
    for keep in range(1, len(whole.events)):
        record = MemoryKeeper()
        record.events = whole.events[:keep]
        person = Answers(unknown="again")
        run, _ = resumed(admin, record, blocks, approved=frozenset({"shed"}), sight=eyes, person=person)
        assert run.outcome is not None
        assert run.outcome.outcome == "done", (keep, run.outcome)
        assert (admin.level, admin.regions["eu"]["draining"]) == (3, True)
        assert run.armed == ("runbook/drain", "runbook/shed"), keep


def test_the_executor_is_imported_without_the_rest_of_the_engine() -> None:
    program = (
        "import sys, stormdrill.engine.runbook, stormdrill.engine.runbook_alone\n"
        "found = [name for name in sys.modules if name.startswith('stormdrill.engine.') and 'runbook' not in name]\n"
        "found += [name for name in ('jinja2', 'markdown_it', 'numpy', 'rich', 'aiohttp') if name in sys.modules]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
