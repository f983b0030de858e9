"""Whatever is changed in a journal, `verify` says so; wherever it is cut, it can be read and taken over."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from stormdrill.model.event import Reading, Reverted, RunEnded, Warned
from stormdrill.store.journal import NAME, JournalWriter, head, read
from stormdrill.store.verify import verify

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
"""What is proved here has nothing to do with a disk's speed."""
texts = st.text(max_size=30)
events = st.lists(
    st.one_of(
        st.builds(Warned, texts),
        st.builds(Reverted, texts, st.sampled_from(["done", "failed"]), texts, st.floats(0, 1e6)),
        st.builds(Reading, texts, texts, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))),
    ),
    max_size=6,
)

places = st.integers(0, 1 << 20)
"""Taken modulo a length: what is drawn must not depend on the moment that stands in each line."""


def written(directory: str, recorded: list[Warned | Reverted | Reading]) -> tuple[Path, str]:
    path = Path(directory) / NAME
    writer = JournalWriter.create(path)
    for event in [*recorded, RunEnded("completed", "")]:
        writer.write(event)
    writer.close()
    return path, head(path)


@settings(max_examples=20, deadline=None)
@given(recorded=events, data=st.data())
def test_any_changed_byte_is_told(recorded: list[Warned | Reverted | Reading], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        path, printed = written(directory, recorded)
        whole = path.read_bytes()
        assert verify(path.parent, printed) == []
        for _ in range(20):
            at = data.draw(places) % len(whole)
            byte = whole[at] ^ data.draw(st.integers(1, 255))
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            assert verify(path.parent, printed)


@settings(max_examples=20, deadline=None)
@given(recorded=events, data=st.data())
def test_any_line_dropped_doubled_or_swapped_is_told(
    recorded: list[Warned | Reverted | Reading], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        path, printed = written(directory, recorded)
        lines = path.read_bytes().splitlines(keepends=True)
        for _ in range(10):
            at, other = data.draw(places) % len(lines), data.draw(places) % len(lines)
            dropped = lines[:at] + lines[at + 1 :]
            doubled = [*lines[:at], lines[at], *lines[at:]]
            swapped = list(lines)
            swapped[at], swapped[other] = swapped[other], swapped[at]
            for changed in (dropped, doubled, swapped):
                if changed != lines:
                    path.write_bytes(b"".join(changed))
                    assert verify(path.parent, printed)


@settings(max_examples=20, deadline=None)
@given(recorded=events, data=st.data())
def test_wherever_the_writer_was_killed_every_whole_line_is_kept_and_the_chain_goes_on(
    recorded: list[Warned | Reverted | Reading], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        path, _ = written(directory, recorded)
        whole = path.read_bytes()
        for _ in range(10):
            size = data.draw(places) % (len(whole) + 1)
            path.write_bytes(whole[:size])
            kept = whole[:size].count(b"\n")
            successor, _ = JournalWriter.resume(path, "recover")
            successor.write(RunEnded("aborted", ""))
            successor.close()
            after = read(path)
            assert [item.event for item in after][:kept] == [*recorded, RunEnded("completed", "")][:kept]
            assert [item.event.type for item in after][kept:] == ["journal-taken-over", "run-ended"]
