"""What befalls a run on a cluster is told in sentences: who held it, when it was lost, which pod an instance is now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from review_runs import judged, make

from stormdrill.model import event as ev
from stormdrill.model.plan import ClusterAt
from stormdrill.review import render
from stormdrill.review.facts import reproduce
from stormdrill.review.sentences import sentence
from stormdrill.review.story import Told
from synthetic_run import change_journal, make_run, read_events


def said(*events: ev.Event, names: tuple[str, ...] = ()) -> str:
    told = Told(ev.Recorded(1, "", 0.0, events[0]), ("",), [1], list(names), list(events), None)  # type: ignore[arg-type]
    return sentence(told) or ""


def test_who_holds_it_and_what_happens_without_a_sign_of_the_runner() -> None:
    text = said(ev.ClusterHeld("", "stormdrill", "stormdrill-r1", "stormdrill-shop", "stormdrill-r1-watchdog", 10.0))
    assert text.startswith("The cluster is held for the run: ledger stormdrill-r1 and watchdog")
    assert "for 10 s everything is reverted" in text


def test_a_loss_and_its_end_are_told_with_how_long_it_was() -> None:
    assert said(ev.ClusterLost("eu", "no answer")) == "The API server of cluster eu no longer answers: no answer."
    back = said(ev.ClusterBack("", 4200.0, "the Lease is still the run's"))
    assert back == "The API server of the cluster answers again after 4.2 s: the Lease is still the run's."


def test_pods_that_are_found_are_told_together_and_each_new_one_alone() -> None:
    first, other = (ev.PodBound(f"web-{n}", "web", "", "shop", f"web-abc{n}", f"u{n}", "n1", "") for n in (1, 2))
    assert said(first, other, names=("web-1", "web-2")) == "Found running: 2 pods: web-1 and web-2."
    new = ev.PodBound("web-1", "web", "", "shop", "web-abc3", "u3", "n2", "u1")
    assert said(new, names=("web-1",)) == "web-1 is pod web-abc3 now, on n2: the one before has gone."


def test_the_review_names_the_cluster_that_was_drilled() -> None:
    at = ClusterAt("", "staging", "https://10.0.0.1:6443", "shop")
    source: Any = SimpleNamespace(
        run="r1", head="", plan=SimpleNamespace(clusters=(at,), digest=""), first=lambda _: None, all=lambda _: ()
    )
    told = {fact.name: fact.figure.text for fact in reproduce(source)}
    assert told["Cluster"] == "context staging, https://10.0.0.1:6443, namespace shop"


def test_what_somebody_took_away_is_told_with_what_was_seen_of_each() -> None:
    gone = [
        ev.CauseChanged(f"region-loss/{name}", True, "the API server", f"nodes/{name}: spec.taints is absent", 3400.0)
        for name in ("n1", "n2")
    ]
    assert said(*gone, names=("n1", "n2")) == (
        "Taken away by somebody else than the revert: n1 and n2, after 3.4 s: "
        "nodes/n1: spec.taints is absent; nodes/n2: spec.taints is absent."
    )
    part = ev.CauseChanged("scale/web", False, "the API server", "shop/deployments/web: spec.replicas is 4", 1000.0)
    assert said(part, names=("web-1",)).startswith("Changed by somebody else than the revert: web-1, after 1 s: shop/")


def test_who_stayed_on_which_of_several_nodes_is_told_whatever_else_they_share() -> None:
    stayed = [f"1 of 2 pods stayed on {node} until the end: shop/web-{node}" for node in ("n1", "n2")]
    gone = [
        ev.RevertVerified(f"region-loss/{node}", True, "the API server", "nothing of it is left", 5.0, came_to)
        for node, came_to in zip(("n1", "n2"), stayed, strict=True)
    ]
    source: Any = SimpleNamespace(mechanism_of=lambda _: "nodes")
    told = sentence(Told(ev.Recorded(1, "", 0.0, gone[0]), ("",), [1], ["n1", "n2"], list(gone), source))
    assert told is not None
    assert told.endswith(f": nothing of it is left; {stayed[0]}; {stayed[1]}.")


def recovered(run_dir: Path, later_s: float) -> Path:
    """A run whose runner was killed: its watchdog reverted after 12.6 s, and `recover` came so much later."""
    make_run(run_dir)
    events = read_events(run_dir)
    call_ms = next(at_ms for at_ms, event in events if isinstance(event, ev.InjectStarted))
    kept = [item for item in events if not isinstance(item[1], ev.RevertStarted | ev.Reverted | ev.RevertVerified)]
    end_ms = max(at_ms for at_ms, _ in kept) + later_s * 1000
    for name in dict.fromkeys(event.injection for _, event in events if isinstance(event, ev.InjectStarted)):
        kept.append((end_ms, ev.RevertStarted(name, "recover", "recover")))
        kept.append((end_ms, ev.Reverted(name, "done", "by the watchdog", 1.0)))
        told = ev.RevertVerified(name, True, "the API server", "runs", None, clock="watchdog")
        kept.append((call_ms + 12_642.0, told))
    change_journal(run_dir, kept)
    return judged(run_dir)


@pytest.mark.parametrize("later_s", [1.0, 7200.0], ids=["at once", "two hours later"])
def test_the_later_a_run_is_recovered_the_fault_was_no_longer_for_that(tmp_path: Path, later_s: float) -> None:
    """Its end is what the watchdog wrote down, by its clock, and how long its revert took nobody here knows."""
    text = render(recovered(tmp_path / "run", later_s)).markdown.read_text(encoding="utf-8").replace("\\", "")
    assert " for 12.6 s (its end by the watchdog's clock)" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| Reverted |")]
    assert "12.6 s" in row
    assert "by the watchdog's clock" in row
    seen = [line for line in text.splitlines() if "Seen to be gone" in line]
    assert seen
    assert all("by the watchdog's clock" in line and "12.6" in line for line in seen), seen
    assert "after the revert began" not in text


def test_what_the_watchdog_ended_while_the_runner_lived_lasted_at_most_until_that_saw_it(tmp_path: Path) -> None:
    """A run that is stopped through its ledger: the runner finds nothing left, and when that was it has from there."""
    make_run(tmp_path / "run")
    events = [
        (at_ms, replace(event, by="watchdog", undone_at="2026-11-22T17:47:26.657123Z"))
        if isinstance(event, ev.Reverted)
        else (at_ms, event)
        for at_ms, event in read_events(tmp_path / "run")
    ]
    change_journal(tmp_path / "run", events)
    text = render(judged(tmp_path / "run")).markdown.read_text(encoding="utf-8").replace("\\", "")
    assert " for at most " in text
    assert "(the watchdog had undone it at 17:47:26.657 by its clock, seen later)" in text
    assert " for at most " not in render(make(tmp_path / "other")).markdown.read_text(encoding="utf-8")
