"""What a run looks like while it goes on, told from events alone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from stormdrill.cli.past import story_lines
from stormdrill.cli.scene import Line, Moment, Scene, gauge
from stormdrill.cli.terminal import HEARTBEAT_S, LiveView, PlainView, layout, moving_line
from stormdrill.model import event as ev
from stormdrill.model.plan import Plan
from stormdrill.model.profile import Piece
from stormdrill.ports import LiveLoad
from synthetic_run import SCENARIOS, Knobs, make_plan, make_run


def recorded_in(directory: Path) -> list[ev.Recorded]:
    found = []
    for line in (directory / "journal.ndjson").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        head = [values.pop(key) for key in ("seq", "at", "mono_ms", "type", "prev")]
        found.append(ev.Recorded(head[0], head[1], head[2], ev.event_from_json(head[3], values)))
    return found


def told(directory: Path, scenario: str, width: int = 100) -> str:
    make_run(directory, scenario=scenario)
    out = io.StringIO()
    view = PlainView(out, width)
    view.announce(msgspec.json.decode((directory / "plan.json").read_bytes(), type=Plan))
    for recorded in recorded_in(directory):
        view(recorded)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    assert max(len(line) for line in told(tmp_path / "run", "fail", width).splitlines()) <= width


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_every_way_a_run_can_go_is_told_without_control_characters(tmp_path: Path, scenario: str) -> None:
    text = told(tmp_path / "run", scenario)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert "baseline" in text


def test_the_story_names_what_was_injected_when_it_bit_and_when_it_was_gone(tmp_path: Path) -> None:
    story = told(tmp_path / "run", "pass")
    order = ["ready", "warm-up", "healthy", "frozen", "seen by process state", "alert", "runbook", "thawed", "recovery"]
    places = [story.index(word) for word in order]
    assert places == sorted(places)


def test_a_fault_that_is_not_gone_is_said_in_capitals(tmp_path: Path) -> None:
    assert "NOT GONE" in told(tmp_path / "run", "dirty")


def test_the_fault_proxy_is_named_wherever_the_system_is_counted() -> None:
    scene = Scene()
    for role, name in (("system", "web"), ("proxy", "proxy")):
        spawned = ev.ProcessSpawned(name, name, role, 1, 1, [], {}, "", "", "", {})
        scene.tell(ev.Recorded(1, "", 0.0, spawned))
    counted = (ev.SystemReady(1, 9.0), ev.TornDown("runner", 2, [], 9.0))
    lines = [line.text for event in counted for line in scene.tell(ev.Recorded(2, "", 0.0, event))]
    assert lines == ["1 process and the fault proxy"] * 2


def test_figures_stand_at_the_right_edge() -> None:
    (row,) = layout(Line("system", "ready", "9 processes", "1.4 s"), 80)
    assert len(row) == 80
    assert row.endswith("1.4 s")


def test_a_long_phase_says_that_it_goes_on_where_nothing_moves() -> None:
    now = [0.0]
    out = io.StringIO()
    view = PlainView(out, 120, clock=lambda: now[0])
    view(ev.Recorded(1, "", 0.0, ev.PhaseEntered("fault", 60.0)))
    view(LiveLoad(scheduled=60, sent=60, done=46), {"success{tier=1}": 98.8, "p95{tier=1}": 0.212})
    assert out.getvalue() == ""
    now[0] = HEARTBEAT_S
    view(LiveLoad(scheduled=60, sent=60, done=46), {"success{tier=1}": 98.8, "p95{tier=1}": 0.212})
    assert "60/s sent, 46/s done · success{tier=1} 98.8% · p95{tier=1} 212 ms" in out.getvalue()
    assert "50.0 s left" in out.getvalue()


def test_the_moving_line_shows_progress_and_what_remains() -> None:
    line = moving_line(Moment("fault", "60/s sent", 0.5, 15.0), 120)
    assert line.count("█") == 13
    assert "15.0 s left" in line


def test_a_start_says_what_it_waits_for() -> None:
    scene = Scene()
    for name in ("a", "b"):
        scene.tell(ev.Recorded(1, "", 0.0, ev.ProcessSpawned(name, name, "system", 1, 1, [], {}, "", "", "", {})))
    scene.tell(ev.Recorded(2, "", 0.0, ev.InstanceReady("a", 3.0, "GET /")))
    assert scene.moment(0.0).text == "starting: 1 of 2 answer"


def test_a_closed_terminal_silences_the_view_and_stops_nothing() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    view = PlainView(Closed())
    view(ev.Recorded(1, "", 0.0, ev.SystemReady(9, 1400.0)))
    view(ev.Recorded(2, "", 0.0, ev.SystemReady(9, 1400.0)))
    assert view.out.gone


def drawn_on_a_terminal(hang_up: bool) -> str:
    """What a terminal of 100 columns gets from a start, a fact and an end; nothing when it is closed in between."""
    master, slave = pty.openpty()
    out = os.fdopen(slave, "w", encoding="utf-8")
    view = LiveView(out, 100)
    view.start()
    view(ev.Recorded(1, "", 0.0, ev.SystemReady(9, 1400.0)))
    view(ev.Recorded(2, "", time.monotonic() * 1000, ev.PhaseEntered("warmup", 60.0)))
    if hang_up:
        os.close(master)
    view(ev.Recorded(3, "", time.monotonic() * 1000, ev.PhaseEntered("baseline", 60.0)))
    view.stop()
    assert view.out.gone == hang_up
    with contextlib.suppress(OSError):  # what was still buffered for the closed terminal
        out.close()
    if hang_up:
        return ""
    drawn = b""
    with contextlib.suppress(OSError):  # EIO: all of it was read, and nobody writes any more
        while read := os.read(master, 65536):
            drawn += read
    os.close(master)
    return drawn.decode()


def test_on_a_terminal_facts_stay_above_the_line_that_moves() -> None:
    text = drawn_on_a_terminal(hang_up=False)
    assert "system    ready      9 processes" in text
    assert "\x1b[" in text
    assert "warm-up" in text


def test_a_terminal_that_is_closed_stops_neither_the_view_nor_the_run() -> None:
    drawn_on_a_terminal(hang_up=True)


def test_a_run_that_is_read_back_still_says_how_much_was_sent_in_each_phase(tmp_path: Path) -> None:
    story = "\n".join(story_lines(make_run(tmp_path / "run"), 120))
    rates = re.findall(r"(?:warm-up|baseline|recovery|over).*60/s asked, ([\d.]+)/s sent", story)
    assert len(rates) == 4
    assert all(50 < float(rate) < 70 for rate in rates)


def test_figures_of_the_moment_are_not_told_as_those_of_the_phase() -> None:
    scene = Scene()
    scene.tell(ev.Recorded(1, "", 0.0, ev.PhaseEntered("baseline", 20.0)))
    scene.figures_are(LiveLoad(scheduled=60, sent=60, done=46), {"success{tier=1}": 98.8}, 19_000.0)
    (line,) = scene.tell(ev.Recorded(2, "", 20_000.0, ev.PhaseEntered("fault", 30.0)))
    assert "lately success{tier=1} 98.8%" in line.text


def test_what_a_phase_asks_for_is_the_mean_of_all_demands_over_it() -> None:
    plan = make_plan(Knobs())
    assert plan.profile is not None
    burst = replace(plan.profile, weight=0.5, shape=(Piece(0.0, 0.0), Piece(10.0, 0.0), Piece(10.0, 4.0)))
    scene = Scene(replace(plan, profile=replace(plan.profile, also=(burst,))))
    scene.tell(ev.Recorded(1, "", 1000.0, ev.LoadStarted("peak + 0.5 x burst", 1, 1000.0)))
    scene.tell(ev.Recorded(2, "", 1000.0, ev.PhaseEntered("baseline", 20.0)))
    scene.figures_are(LiveLoad(scheduled=60, sent=60, done=46), {}, 19_000.0)
    (line,) = scene.tell(ev.Recorded(3, "", 21_000.0, ev.PhaseEntered("fault", 30.0)))
    assert "120/s asked, 60/s sent" in line.text, "60/s, and for half of the time half of 240/s more"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("goodput{tier=1}", 216.0, "216/s"),
        ("success", 98.8, "98.8%"),
        ("p95", 0.05, "50.0 ms"),
        ("cpu_free", 50.0, "50.0%"),
        ("age{region=eu}", 3.0, "3.00 s"),
        ("heap", 150.0 * 1024**2, "150 MB"),
        ("depth", 12.0, "12"),
    ],
)
def test_live_figures_have_the_units_of_their_objectives(name: str, value: float, said: str) -> None:
    assert gauge(name, value, {"cpu_free": "%", "age": "s", "heap": "MB"}) == said


def staggered(injection: str, fault: str, mechanism: str, instance: str, at_ms: float) -> list[ev.Recorded]:
    told = [
        ev.Armed(injection, fault, instance, mechanism, [], 0.0, ""),
        ev.InjectStarted(injection),
        ev.EffectObserved(injection, True, "a witness", "", 12.0),
        ev.RevertVerified(injection, True, "a witness", "", 5.0),
    ]
    return [ev.Recorded(n, "", at_ms + n * 1000, event) for n, event in enumerate(told)]


def test_faults_one_after_the_other_are_told_each_in_its_own_word() -> None:
    scene = Scene()
    events = [
        *staggered("late-dependency/feed", "late-dependency", "delay", "feed", 0.0),
        *staggered("gpu-pool-outage/gpu-eu.gpu0", "gpu-pool-outage", "device", "gpu-eu", 10_000.0),
        *staggered("region-loss/edge-1", "region-loss", "sever", "edge-1", 20_000.0),
    ]
    states = [line.state for recorded in events for line in scene.tell(recorded)]
    assert states == ["slowed", "prompt", "impaired", "put back", "severed", "joined"]


def test_faults_that_overlap_are_told_apart() -> None:
    scene = Scene()
    first = staggered("late-dependency/feed", "late-dependency", "stall", "feed", 0.0)
    second = staggered("region-loss/web", "region-loss", "freeze", "web", 500.0)
    lines = [line for recorded in sorted(first + second, key=lambda r: r.mono_ms) for line in scene.tell(recorded)]
    assert [(line.state, line.text.partition(" ")[0]) for line in lines][:2] == [("stalled", "feed"), ("frozen", "web")]


def test_waiting_for_what_is_in_flight_does_not_lower_the_rate_of_the_last_phase() -> None:
    scene = Scene()
    scene.tell(ev.Recorded(1, "", 0.0, ev.PhaseEntered("recovery", 4.0)))
    for second in range(1, 8):
        scene.figures_are(LiveLoad(sent=30 if second <= 4 else 0), {}, second * 1000.0)
    (line,) = scene.tell(ev.Recorded(2, "", 4_000.0, ev.PhaseEntered("end", 0.0)))
    assert line.text == "30/s sent"


def test_a_forbidden_connection_that_came_through_is_told_once() -> None:
    scene = Scene()
    tried = [ev.Reading("segmentation_blocked", "edge-1", value, {"to": "feed:8080"}) for value in (1.0, 0.0, 0.0)]
    lines = [line for event in tried for line in scene.tell(ev.Recorded(1, "", 0.0, event))]
    assert [(line.state, line.text) for line in lines] == [("NOT blocked", "edge-1 reached feed:8080")]


def both_nodes(*seen: ev.Event) -> list[str]:
    """Two nodes of one fault, and what is told of them."""
    scene = Scene()
    armed = [ev.Armed(f"region-loss/{name}", "region-loss", name, "nodes", [], 0.0, "") for name in ("n1", "n2")]
    told = [line for event in (*armed, *seen) for line in scene.tell(ev.Recorded(1, "", 0.0, event))]
    return [f"{line.state} {line.text}" for line in told]


def bit(name: str, witness: str) -> ev.Event:
    return ev.EffectObserved(f"region-loss/{name}", True, witness, "", 12.0)


def test_a_fault_that_each_of_its_witnesses_saw_in_part_is_told_in_one_line() -> None:
    assert both_nodes(bit("n1", "the API server"), bit("n2", "the node controller")) == [
        "lost n1, n2 · bit after 12.0 ms, seen by the API server and the node controller"
    ]


def test_what_bit_is_told_before_it_is_reverted_though_another_of_it_never_did() -> None:
    reverts = [ev.RevertStarted(f"region-loss/{name}", "abort", "runner") for name in ("n2", "n1")]
    gone = ev.RevertVerified("region-loss/n1", True, "the API server", "", 5.0)
    assert both_nodes(bit("n1", "the API server"), *reverts, gone, ev.Restored(True, "9 pods answer")) == [
        "lost n1 · bit after 12.0 ms, seen by the API server",
        "opened gone after 5.0 ms, seen by the API server",
        "restored 9 pods answer",
    ]


def test_what_the_watchdog_had_ended_is_told_with_how_long_the_fault_was_by_its_clock() -> None:
    scene = Scene()
    armed = ev.Armed("region-loss/n1", "region-loss", "n1", "nodes", [], 0.0, "")
    gone = ev.RevertVerified("region-loss/n1", True, "the API server", "", None, clock="watchdog")
    happened = [(0.0, armed), (1_000.0, ev.PhaseEntered("fault", 20.0)), (13_642.0, gone)]
    told = [line for at_ms, event in happened for line in scene.tell(ev.Recorded(1, "", at_ms, event))]
    assert told[-1].text == "gone after 12.6 s of the fault, by the watchdog's clock, seen by the API server"


def test_who_stayed_on_a_node_until_the_end_is_told_where_its_fault_is_gone() -> None:
    came_to = "1 of 2 pods stayed on n1 until the end: shop/web-1"
    gone = [
        ev.RevertVerified(f"region-loss/{n}", True, "the API server", "", 5.0, told)
        for n, told in (("n1", came_to), ("n2", ""))
    ]
    assert both_nodes(*gone) == ["opened gone after 5.0 ms, seen by the API server", f" {came_to}"]
