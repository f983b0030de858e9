"""Columns, windows and parts of requests say what the rows of the files say, however they are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stormdrill.core.evidence import Kind, RecordFile, Requests, requests_of
from stormdrill.core.rows import FIELDS, Gathered, Rows
from stormdrill.store.records import DTYPE, Flag, Outcome

KINDS = (Kind({"tier": "1"}, 300.0), Kind({"tier": "2", "kind": "batch"}, 2000.5))
Table = NDArray[Any]


def table(count: int, seed: int, *, retried: bool = False, long: bool = False) -> Table:
    dice = np.random.Generator(np.random.Philox(key=seed))
    rows = np.zeros(count, dtype=np.dtype(DTYPE))
    rows["intended_us"] = dice.integers(0, 2**33 if long else 2_000_000, count)
    rows["lag_us"] = rows["sent_us"] = dice.integers(0, 900, count)
    rows["latency_us"] = dice.integers(0, 3_000_000, count)
    rows["job"] = np.arange(count)
    rows["status"] = dice.choice([200, 200, 202, 429, 500, 503], count)
    rows["labels"] = dice.integers(0, 3 if seed % 2 else 2, count)  # 2: a kind that the header doesn't name
    rows["outcome"] = dice.choice([Outcome.ANSWERED] * 6 + list(Outcome), count)
    rows["flags"], rows["region"] = Flag.FINAL, 255
    if retried:
        rows["flags"] = dice.choice([0, Flag.FINAL, Flag.FINAL | Flag.HEDGE], count)
        rows["attempt"] = dice.integers(0, 3, count)
        rows["sent_us"][count // 2 :] += 5
        rows["region"] = dice.integers(0, 2, count)
        rows["retry_after_s"][-1:] = 7
    return rows


def file(rows: Table | Rows, epoch_ms: float = 1000.0, number: int = 0) -> RecordFile:
    return RecordFile(
        f"load/worker-{number}.records", "b", round(epoch_ms * 1e6), KINDS, Rows.of(rows), regions=("eu", "us")
    )


def gathered(rows: Table, block: int) -> Rows:
    found = Gathered(len(rows))
    for begin in range(0, len(rows), block):
        found.add(rows[begin : begin + block])
    return found.rows()


def test_the_core_knows_the_fields_of_the_files() -> None:
    assert [(name, np.dtype(kind)) for name, kind in FIELDS.items()] == [(n, np.dtype(k)) for n, k in DTYPE]


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(0, 40),
    block=st.integers(1, 17),
    seed=st.integers(0, 99),
    retried=st.booleans(),
    long=st.booleans(),
)
def test_what_is_gathered_block_by_block_is_what_the_file_holds(
    count: int, block: int, seed: int, retried: bool, long: bool
) -> None:
    rows = table(count, seed, retried=retried, long=long)
    ordered = rows[np.argsort(rows["intended_us"], kind="stable")]
    found = gathered(rows, block)
    assert len(found) == count
    assert np.array_equal(np.asarray(found), ordered)
    changed = found.copy()
    changed["status"][:] = 1  # a copy may be changed, and the original stays
    assert np.array_equal(np.asarray(found), ordered)


@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_windows_and_labels_choose_what_a_look_at_every_row_chooses(retried: bool, workers: int) -> None:
    files = [table(500, seed + 2, retried=retried) for seed in range(workers)]
    kept = requests_of([file(gathered(rows, 64), number=n) for n, rows in enumerate(files)])
    plain = requests_of([file(rows, number=n) for n, rows in enumerate(files)])  # in no order: by masks alone
    for start_ms, end_ms in ((1200.0, 2400.0), (0.0, 1e9), (-np.inf, np.inf), (5e6, 6e6), (2000.0, 1900.0)):
        for labels in ({}, {"tier": "1"}, {"kind": "batch"}, {"tier": "9"}):
            one = kept.logical.between(start_ms, end_ms).labelled(labels)
            other = plain.logical.between(start_ms, end_ms).labelled(labels)
            assert one.at_ms.tolist() == sorted(one.at_ms.tolist()) or workers > 1
            assert told(one) == told(other)
            assert told(one.decided_by(2300.0, one.deadline_us)) == told(other.decided_by(2300.0, other.deadline_us))
            assert told(one.decided_by(2300.0, 4e5)) == told(other.decided_by(2300.0, 4e5))


def told(requests: Requests) -> list[tuple[object, ...]]:
    columns = (
        requests.at_ms, requests.kind, requests.job, requests.status, requests.outcome, requests.lag_us,
        requests.sent_us, requests.attempt, requests.flags, requests.retry_after_s, requests.region,
        requests.good, requests.admitted, requests.rejected, requests.judged_us, requests.judged_latency_us,
    )  # fmt: skip
    assert all(len(column) == len(requests) for column in columns)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def test_what_became_of_a_request_is_told_as_by_the_rules() -> None:
    rows = table(400, 8)
    found = requests_of([file(rows)])
    deadline_us = np.array([kind.deadline_ms * 1000 for kind in KINDS])[rows["labels"]]
    served = (rows["outcome"] == Outcome.ANSWERED) & (rows["status"] // 100 == 2)
    waited = np.isin(rows["outcome"], (Outcome.TIMED_OUT, Outcome.UNFINISHED))
    assert np.array_equal(found.good, served & (rows["latency_us"] <= deadline_us))
    assert np.array_equal(found.admitted, served | waited)
    judged_us = np.where(waited, np.maximum(rows["latency_us"], deadline_us), rows["latency_us"])
    assert np.array_equal(found.judged_latency_us, judged_us)
    assert np.array_equal(found.judged_us, judged_us.astype(np.uint32))


def test_a_region_has_one_number_in_the_table_whatever_each_file_calls_it() -> None:
    rows = table(20, 4, retried=True)
    one = RecordFile("a", "b", 0, KINDS, Rows.of(rows), regions=("eu", "us"))
    two = RecordFile("b", "b", 0, KINDS, Rows.of(rows), regions=("us", "eu"))
    silent = RecordFile("c", "b", 0, KINDS, Rows.of(rows))
    found = requests_of([one, two, silent])
    names = [*found.regions, *[""] * 254]
    said = [names[number] for number in found.region.tolist()]
    assert said[:20] == ["eu" if number == 0 else "us" for number in rows["region"]]
    assert said[20:40] == ["us" if number == 0 else "eu" for number in rows["region"]]
    assert set(said[40:]) == {""}


def test_without_a_record_there_are_no_requests() -> None:
    found = requests_of([])
    assert len(found) == len(found.logical.between(0, 1).labelled({"tier": "1"}).good) == 0
    empty = requests_of([file(gathered(table(0, 2), 4))])
    assert len(empty) == len(empty.logical.judged_us) == 0
