"""Every mechanism, on every target: what a witness sees of it, and what the keeper makes of its undo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mechanism_rig import HOW, Rig, injection, rig

from stormdrill.errors import StormdrillError

HARD_TO_DO_TWICE = ("pressure", "beside")
"""What is started once for each injection; the target's own book of it is by the injection's id."""


@pytest.fixture(scope="module", params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    if request.param == "docker":
        request.getfixturevalue("engine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with rig(request.param, tmp_path_factory.mktemp("runs")) as found:
            yield found


def can(small: Rig, word: str) -> bool:
    """Whether the target can do it; where it can't, it says what would help."""
    why = small.target.mechanisms[word].refusal(injection(word, HOW[word]))
    assert not why or ";" in why, f"{word} is refused without a way out: {why}"
    return not why


@pytest.mark.parametrize("word", HOW)
def test_what_bites_is_seen_to_bite_and_after_its_undo_to_be_gone(small: Rig, word: str) -> None:
    if not can(small, word):
        return
    one = injection(word, HOW[word])
    small.harm(one)
    bitten = small.seen(one, lambda effect: effect.bit)
    assert not bitten.gone
    assert bitten.witness
    assert small.revert(one) in ("done", "superseded")
    small.follow()
    small.seen(one, lambda effect: effect.gone and not effect.bit)
    small.well()


@pytest.mark.parametrize("word", [word for word in HOW if word not in HARD_TO_DO_TWICE])
def test_one_undo_ends_what_was_applied_twice(small: Rig, word: str) -> None:
    if not can(small, word):
        return
    one = injection(word, HOW[word], "twice")
    small.harm(one)
    with suppress(StormdrillError):  # it may say that it is done already
        small.target.mechanisms[word].apply(one)
    small.seen(one, lambda effect: effect.bit)
    small.revert(one)
    small.follow()
    small.seen(one, lambda effect: effect.gone)
    small.well()


@pytest.mark.parametrize("word", HOW)
def test_undoing_twice_never_fails(small: Rig, word: str) -> None:
    if not can(small, word):
        return
    one = injection(word, HOW[word], "again")
    small.harm(one)
    assert small.revert(one) != "failed"
    assert small.revert(one, "again") != "failed"
    small.follow()
    small.seen(one, lambda effect: effect.gone)
    small.well()


@pytest.mark.parametrize("word", ["crash", "freeze"])
def test_what_is_armed_and_never_applied_is_undone_without_harm(small: Rig, word: str) -> None:
    one = injection(word, None, "never")
    small.run.keeper.arm(
        one.id, fault="fault", instance="back", mechanism=word, undo=small.target.undo_of(one), expires_in_s=30.0
    )
    assert small.revert(one) != "failed"
    small.well()


@pytest.mark.docker
def test_undoing_what_happened_to_a_container_that_is_gone_does_not_fail(engine: str, tmp_path: Path) -> None:
    from stormdrill.keeper.engine import ask

    words = ("freeze", "cpu-limit", "sever", "pressure")
    with rig("docker", tmp_path) as small:
        for word in words:
            one = injection(word, HOW[word])
            small.run.keeper.arm(
                one.id, fault="f", instance="back", mechanism=word, undo=small.target.undo_of(one), expires_in_s=30.0
            )
        back = next(item for item in small.containers() if item.instance == "back")
        assert ask(engine, "DELETE", f"/containers/{back.container}?force=1").status == 204
        outcomes = {word: small.revert(injection(word, None)) for word in words}
    assert set(outcomes.values()) == {"superseded"}, outcomes
