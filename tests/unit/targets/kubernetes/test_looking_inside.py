"""A container that has no program to look with is told from one that can't be looked into now."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.exec import Exec, Ran, Refusal
from stormdrill.errors import Unreachable
from stormdrill.targets.kubernetes.mechanisms.within import Blind, Slot, reached, tagged

SLOT = Slot("", "shop", "web-1", "u1", "main", "n1")
NO_PYTHON = 'OCI runtime exec failed: exec: "python3": executable file not found in $PATH: unknown'
Answers = Callable[[str], Ran]
API = Api.__new__(Api)


def answering(monkeypatch: pytest.MonkeyPatch, answer: Answers) -> list[str]:
    """Each program that is started is answered so; returns their names."""
    asked: list[str] = []

    def run(self: Exec, namespace: str, pod: str, container: str, argv: tuple[str, ...], **_: object) -> Ran:
        asked.append(argv[0])
        return answer(argv[0])

    monkeypatch.setattr(Exec, "run", run)
    return asked


def refused(said: str) -> Ran:
    raise Refusal(500, said)


@pytest.mark.parametrize(
    "without",
    [lambda: refused(NO_PYTHON), lambda: Ran(127, b"", NO_PYTHON.encode())],
    ids=["as a refusal", "as the program's own end"],
)
def test_a_shell_looks_where_there_is_no_python(monkeypatch: pytest.MonkeyPatch, without: Callable[[], Ran]) -> None:
    asked = answering(monkeypatch, lambda name: without() if name == "python3" else Ran(0, b"silent\n", b""))
    assert reached(API, SLOT, "10.0.0.1", 80) == "silent"
    assert asked == ["python3", "sh"]


def test_with_neither_nobody_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _: refused(NO_PYTHON))
    with pytest.raises(Blind, match="no program that could look"):
        reached(API, SLOT, "10.0.0.1", 80)


def test_a_shell_with_nothing_to_connect_with_can_not_look_either(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda name: refused(NO_PYTHON) if name == "python3" else Ran(127, b"", b""))
    with pytest.raises(Blind):
        reached(API, SLOT, "10.0.0.1", 80)


@pytest.mark.parametrize("error", [Refusal(500, "container is being created"), Lost("no answer", sent=True)])
def test_what_can_not_be_asked_now_is_not_taken_for_blind(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(_: str) -> Ran:
        raise error

    answering(monkeypatch, fails)
    with pytest.raises(Unreachable) as raised:
        reached(API, SLOT, "10.0.0.1", 80)
    assert not isinstance(raised.value, Blind)


def test_a_count_that_is_none_is_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _: Ran(0, b"no proc here", b""))
    with pytest.raises(Unreachable, match="said 'no proc here'"):
        tagged(API, SLOT, "tag")
