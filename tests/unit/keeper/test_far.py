"""What is undone in a cluster: held and written down by the keeper, carried out by the runner, left when it is gone."""

from __future__ import annotations

import http.server
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keeping import KeptRun, kept_run
from stormdrill.errors import KeeperGone, Unreachable
from stormdrill.keeper import far, procfs
from stormdrill.keeper.outcome import DONE, FAILED, SUPERSEDED, Outcome
from stormdrill.keeper.takeover import take_over
from stormdrill.model.event import (
    AbortRequested,
    Armed,
    ClusterHeld,
    InjectStarted,
    PodBound,
    Recorded,
    Reverted,
    RevertStarted,
    RevertVerified,
    RunEnded,
    Warned,
)
from stormdrill.model.undo import Call, Command, Element, InCluster, KubeDelete, KubePatch
from stormdrill.store import holds
from stormdrill.store.journal import NAME, salvage
from waiting import eventually

TAINT = Element(("spec", "taints"), '{"key":"stormdrill.dev/x","effect":"NoExecute"}', key=("key", "effect"))
NODE = KubePatch("", "/api/v1/nodes/n1", "uid-1", "stormdrill.dev/abc", (TAINT,))
POLICY = KubeDelete("west", "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/cut", "run")
NOWHERE = Command(("true",))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path) as kept:
        yield kept


class SomeHands:
    """What a cluster would say."""

    def __init__(self, *outcomes: Outcome, stays: Sequence[str] = ()) -> None:
        self.outcomes, self.stays = list(outcomes), stays
        self.asked: list[tuple[str, tuple[InCluster, ...]]] = []
        self.released: list[bool] = []

    def undo(self, injection: str, words: Sequence[InCluster]) -> Sequence[Outcome]:
        self.asked.append((injection, tuple(words)))
        return [self.outcomes.pop(0) for _ in words]

    def release(self, *, clean: bool) -> Sequence[str]:
        self.released.append(clean)
        return self.stays


def kill_the_runners_end(run: KeptRun) -> None:
    """As its death would: the socket closes, and nothing was said."""
    run.keeper.on_push = None
    run.keeper._drop()


def test_the_runner_carries_it_out_and_the_keeper_writes_down_what_became_of_it(run: KeptRun) -> None:
    run.arm("nodes/n1", NODE, POLICY)
    assert run.keeper.begin_revert("nodes/n1", "planned") == ""
    told = [Outcome(DONE, "taken out", "the API server"), Outcome(SUPERSEDED, "gone already")]
    assert run.keeper.tell_reverted("nodes/n1", told) == DONE
    assert [(item.cause, item.by) for item in run.events(RevertStarted)] == [("planned", "runner")]
    assert [(item.outcome, item.detail) for item in run.events(Reverted)] == [(DONE, "taken out; gone already")]
    assert run.keeper.begin_revert("nodes/n1", "planned") == DONE, "twice does nothing the second time"
    assert run.keeper.teardown() == []


def test_what_the_watchdog_had_undone_before_the_runner_is_written_down_with_who_and_when(run: KeptRun) -> None:
    """Of all words of it, or of none: where the runner has put back a part, that was the end."""
    at = "2026-11-22T17:47:26.657123Z"
    told = Outcome(DONE, "taken out", "the API server", at, "watchdog")
    for name, outcomes in {"nodes/n1": [told, told], "nodes/n2": [told, Outcome(DONE, "put back")]}.items():
        run.arm(name, NODE, POLICY)
        run.keeper.begin_revert(name, "abort")
        run.keeper.tell_reverted(name, outcomes)
    said = {item.injection: (item.by, item.undone_at) for item in run.events(Reverted)}
    assert said == {"nodes/n1": ("watchdog", at), "nodes/n2": ("", "")}


def test_a_look_that_finds_it_still_there_has_it_carried_out_again(run: KeptRun) -> None:
    run.arm("nodes/n1", NODE)
    run.keeper.begin_revert("nodes/n1", "planned")
    run.keeper.tell_reverted("nodes/n1", [Outcome(DONE, "")])
    assert run.keeper.begin_revert("nodes/n1", "again") == ""
    run.keeper.tell_reverted("nodes/n1", [Outcome(DONE, "")])
    assert len(run.events(Reverted)) == 2


def test_words_that_are_the_keepers_own_take_their_turn_among_the_others(run: KeptRun, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run.arm("mixed/x", NODE, Command(("touch", str(mark))), POLICY)
    assert run.keeper.begin_revert("mixed/x", "planned") == ""
    with pytest.raises(ValueError, match="not the keeper's"):
        run.keeper.revert_part("mixed/x", 0)
    assert run.keeper.revert_part("mixed/x", 1).word == DONE
    assert mark.exists()
    assert run.keeper.tell_reverted("mixed/x", [Outcome(DONE, "")] * 3) == DONE


def test_at_its_expiry_the_keeper_leaves_it_alone(run: KeptRun) -> None:
    run.arm("nodes/n1", NODE, expires_in_s=0.0)
    run.arm("command/x", NOWHERE, expires_in_s=0.0)
    run.await_push("reverted")
    assert [item.injection for item in run.events(Reverted)] == ["command/x"]
    assert run.keeper.open_in_clusters() == ["nodes/n1"]


@pytest.mark.parametrize("began", [False, True], ids=["armed", "the runner was at it"])
def test_without_a_runner_it_is_left_to_the_watchdog_and_the_run_ends_dirty(run: KeptRun, began: bool) -> None:
    run.arm("nodes/n1", NODE)
    run.arm("isolate/shop", POLICY)
    if began:
        run.keeper.begin_revert("isolate/shop", "planned")
    kill_the_runners_end(run)
    run.keeper_ended()
    said = {item.injection: (item.outcome, item.detail) for item in run.events(Reverted)}
    assert set(said) == {"nodes/n1", "isolate/shop"}
    assert {outcome for outcome, _ in said.values()} == {FAILED}
    assert f"in cluster west: stormdrill recover {run.dir.name} looks" in said["isolate/shop"][1]
    assert run.events(RunEnded)[-1].status == "dirty"
    held = holds.hold_of(run.dir.name)
    assert held is not None
    assert len(held.left) == 2, "the system is held until somebody has looked"


def test_a_run_that_had_changed_nothing_yet_ends_without_being_dirty(run: KeptRun) -> None:
    run.keeper.record(ClusterHeld("", "stormdrill", "ledger", "lease", "job", 10.0))
    kill_the_runners_end(run)
    run.keeper_ended()
    assert run.events(RunEnded)[-1].status == "aborted"


def test_what_the_runner_could_not_undo_keeps_its_reason(run: KeptRun) -> None:
    run.arm("nodes/n1", NODE)
    run.keeper.begin_revert("nodes/n1", "abort")
    run.keeper.tell_reverted("nodes/n1", [Outcome(FAILED, "the API server did not answer")])
    (left,) = run.keeper.teardown()
    assert left == "nodes/n1 could not be shown to be reverted: the API server did not answer"
    run.keeper.close("dirty", "left")
    (held,) = [item for item in holds.open_runs() if item.run == run.dir.name]
    assert held.left[0].startswith("nodes/n1 could not be shown to be reverted: the API server did not answer; left to")


def after_both_were_killed(run: KeptRun) -> None:
    run.keeper.on_push = None
    procfs.kill_until_gone([run.keeper.identity], 5.0)


def test_recover_takes_over_what_the_cluster_says_and_ends_the_run(run: KeptRun, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run.keeper.record(ClusterHeld("", "stormdrill", "ledger", "lease", "job", 10.0))
    run.arm("nodes/n1", NODE)
    run.arm("mixed/x", POLICY, Command(("touch", str(mark))), NODE)
    after_both_were_killed(run)
    by_watchdog = Outcome(DONE, "the watchdog took it out", "the API server")
    hands = SomeHands(Outcome(DONE, "deleted"), by_watchdog, by_watchdog)
    result = take_over(run.dir, "recover", hands=hands)
    assert [(name, words) for name, words in hands.asked] == [
        ("mixed/x", (POLICY,)),
        ("mixed/x", (NODE,)),
        ("nodes/n1", (NODE,)),
    ]
    assert mark.exists()
    assert (result.status, hands.released) == ("aborted", [True])
    assert holds.hold_of(run.dir.name) is None


def recovered_after(run: KeptRun, lasted_s: float, *, first: SomeHands | None = None) -> tuple[Recorded, Recorded]:
    """The inject call, and what is told of the end that the watchdog has written down so long after it. `first`: whose
    recovery comes before."""
    run.keeper.record(ClusterHeld("", "stormdrill", "ledger", "lease", "job", 10.0))
    run.arm("nodes/n1", NODE)
    run.keeper.record(InjectStarted("nodes/n1"))
    after_both_were_killed(run)
    if first is not None:
        take_over(run.dir, "recover", hands=first)
    (call,) = [one for one in salvage(run.dir / NAME).events if isinstance(one.event, InjectStarted)]
    at = datetime.fromisoformat(call.at) + timedelta(seconds=lasted_s)
    told = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    hands = SomeHands(Outcome(DONE, "by the watchdog", "the API server", told, "watchdog"))
    take_over(run.dir, "recover", hands=hands)
    (seen,) = [one for one in salvage(run.dir / NAME).events if isinstance(one.event, RevertVerified)]
    assert datetime.fromisoformat(seen.at) == at, "people read it in UTC, as it was written"
    return call, seen


@pytest.mark.parametrize("lasted_s", [0.001, 12.642, 3600.0])
@pytest.mark.parametrize("again", [False, True], ids=["recovered once", "recovered twice"])
def test_what_the_watchdog_had_ended_ended_then_and_not_when_it_is_recovered(
    run: KeptRun, lasted_s: float, again: bool
) -> None:
    """However late that is, and by the watchdog's own clock, which is said."""
    first = SomeHands(Outcome(FAILED, "the cluster did not answer")) if again else None
    call, seen = recovered_after(run, lasted_s, first=first)
    assert isinstance(seen.event, RevertVerified)
    assert seen.mono_ms - call.mono_ms == pytest.approx(lasted_s * 1000, abs=1.0)
    assert (seen.event.gone, seen.event.clock) == (True, "watchdog")


def test_how_long_the_watchdogs_revert_took_is_not_told_where_the_record_has_not_its_beginning(run: KeptRun) -> None:
    """The revert that the record begins is that of `recover`, which found nothing left."""
    _, seen = recovered_after(run, 12.642)
    assert isinstance(seen.event, RevertVerified)
    assert seen.event.after_ms is None


def test_a_revert_that_had_begun_before_the_watchdog_ended_it_is_counted_from(run: KeptRun) -> None:
    _, seen = recovered_after(run, 3600.0, first=SomeHands(Outcome(FAILED, "the cluster did not answer")))
    assert isinstance(seen.event, RevertVerified)
    assert seen.event.after_ms is not None
    assert 3_500_000 < seen.event.after_ms <= 3_600_000


def test_a_clock_that_is_behind_ends_no_fault_before_its_beginning(run: KeptRun) -> None:
    call, seen = recovered_after(run, -5.0)
    assert seen.mono_ms == call.mono_ms


def test_who_takes_over_what_had_ended_says_nothing_of_killed_keepers(run: KeptRun) -> None:
    run.arm("nodes/n1", NODE)
    after_both_were_killed(run)
    take_over(run.dir, "recover", hands=SomeHands(Outcome(FAILED, "the cluster did not answer")))
    take_over(run.dir, "recover", hands=SomeHands(Outcome(DONE, "put back")))
    said = [event.reason for event in run.events(AbortRequested)]
    assert said == ["runner and keeper were both killed; recovered", "recovered; the run had ended dirty"]


def test_a_cluster_that_is_not_reached_leaves_the_run_dirty_until_it_is(run: KeptRun) -> None:
    run.keeper.record(ClusterHeld("", "stormdrill", "ledger", "lease", "job", 10.0))
    run.arm("nodes/n1", NODE)
    after_both_were_killed(run)
    first = take_over(run.dir, "recover", hands=SomeHands(Outcome(FAILED, "the cluster did not answer")))
    assert first.status == "dirty"
    assert "the cluster did not answer" in first.left[0]
    hands = SomeHands(Outcome(SUPERSEDED, "nothing is left of it"), stays=["the Lease could not be deleted"])
    second = take_over(run.dir, "recover", hands=hands)
    assert (second.status, second.already_ended) == ("aborted", False)
    assert [item.text for item in run.events(Warned)] == ["the Lease could not be deleted"]


def test_what_a_run_keeps_in_a_cluster_goes_also_where_nobody_had_written_it_down(run: KeptRun) -> None:
    after_both_were_killed(run)
    hands = SomeHands()
    assert take_over(run.dir, "recover", hands=hands).status == "aborted"
    assert (hands.asked, hands.released) == ([], [True])


def test_without_hands_what_was_done_in_a_cluster_is_left(run: KeptRun) -> None:
    run.arm("nodes/n1", NODE)
    after_both_were_killed(run)
    assert "left to the watchdog" in take_over(run.dir, "recover").left[0]
    assert len(run.events(Armed)) == 1


def test_a_frozen_runner_that_is_stopped_by_force_leaves_it_to_the_watchdog_and_finds_the_keeper_gone(
    run: KeptRun,
) -> None:
    run.arm("nodes/n1", NODE)
    run.keeper.begin_revert("nodes/n1", "planned")
    os.kill(run.keeper.identity.pid, signal.SIGUSR1)
    eventually(lambda: run.events(RunEnded))
    assert run.events(RunEnded)[-1].status == "dirty"
    with pytest.raises(KeeperGone):  # and takes the journal over
        run.keeper.tell_reverted("nodes/n1", [Outcome(DONE, "put back")])
    result = take_over(run.dir, "runner", hands=SomeHands(Outcome(DONE, "put back")))
    assert result.status == "aborted"


class LeadingHands(SomeHands):
    """With a new way to an instance, or none."""

    def __init__(self, address: str = "") -> None:
        super().__init__()
        self.address = address
        self.ways: list[far.Way] = []

    def lead(self, way: far.Way) -> str:
        self.ways.append(way)
        if not self.address:
            raise Unreachable("no pod of edge-1 is ready")
        return self.address


DEAD = "127.0.0.1:9"
"""As if the runner had led from there: nobody listens."""
EDGE = PodBound("edge-1", "edge", "eu", "shop", "edge-abc", "u1", "n1", "", address=DEAD, port=8080)


def test_a_runbooks_call_to_an_instance_is_undone_on_a_new_way_to_it(run: KeptRun) -> None:
    run.keeper.record(EDGE)
    run.arm("runbook/drain", Call("PUT", f"http://{DEAD}/admin/drain", '{"on":false}'))
    after_both_were_killed(run)
    with Answering() as instance:
        hands = LeadingHands(instance.address)
        result = take_over(run.dir, "recover", hands=hands)
    assert instance.asked == [("PUT", "/admin/drain", '{"on":false}')]
    assert hands.ways == [far.Way("edge-1", "eu", "shop", "edge-abc", "u1", 8080)]
    assert result.status == "aborted"


@pytest.mark.parametrize("address", ["", DEAD], ids=["no way", "nobody answers"])
def test_a_call_that_can_not_be_undone_names_the_instance_and_not_an_address_that_is_gone(
    run: KeptRun, address: str
) -> None:
    run.keeper.record(EDGE)
    run.arm("runbook/drain", Call("PUT", f"http://{DEAD}/admin/drain", '{"on":false}'))
    after_both_were_killed(run)
    (left,) = take_over(run.dir, "recover", hands=LeadingHands(address)).left
    assert 'PUT /admin/drain {"on":false} to instance edge-1 (port 8080 of pod shop/edge-abc, cluster eu)' in left
    assert DEAD not in left


def drained_at(run: KeptRun, address: str) -> None:
    """A runbook's call to an instance that the runner has led to from there."""
    run.keeper.record(replace(EDGE, address=address))
    run.arm("runbook/drain", Call("PUT", f"http://{address}/admin/drain", '{"on":false}'))


def test_without_its_runner_nobody_asks_whoever_listens_at_its_address_now_and_recover_leads_anew(run: KeptRun) -> None:
    """The way ended with the runner, and its port is anybody's."""
    with Answering() as stranger, Answering() as instance:
        drained_at(run, stranger.address)
        kill_the_runners_end(run)
        run.keeper_ended()
        without_hands = take_over(run.dir, "recover")
        recovered = take_over(run.dir, "recover", hands=LeadingHands(instance.address))
    assert stranger.asked == []
    assert instance.asked == [("PUT", "/admin/drain", '{"on":false}')]
    (left,) = without_hands.left
    assert 'PUT /admin/drain {"on":false} to instance edge-1' in left
    assert left.endswith(f"the way there ended with the runner: stormdrill recover {run.dir.name} leads anew")
    assert run.events(Reverted)[0].detail in left, "and the keeper has said the same"
    assert recovered.status == "aborted"


@pytest.mark.parametrize("by", ["keeper", "runner"])
def test_while_its_runner_lives_its_way_is_taken(run: KeptRun, by: str) -> None:
    """By the keeper, or by the runner whose keeper was killed."""
    with Answering() as instance:
        drained_at(run, instance.address)
        if by == "keeper":
            assert run.keeper.revert("runbook/drain", "planned") == DONE
        else:
            after_both_were_killed(run)
            assert take_over(run.dir, "runner").status == "aborted"
    assert len(instance.asked) == 1


class Answering:
    """An instance that takes what it is told."""

    def __init__(self) -> None:
        asked = self.asked = list[tuple[str, str, str]]()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked.append((self.command, self.path, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Answering:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
