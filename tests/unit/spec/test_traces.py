"""Recorded moments as people have them: files of timestamps, logs of servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stormdrill.errors import Refused
from stormdrill.spec import trace
from stormdrill.spec.trace import Recorded, read_trace

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(text: str) -> Path:
        path = tmp_path / "recorded"
        path.write_text(text)
        return path

    return write


def moments(found: Recorded) -> list[float]:
    return [float(line) for line in found.text.split()]


def refusal(path: Path, form: str = "auto") -> str:
    with pytest.raises(Refused) as refused:
        read_trace(path, "t.times", form)
    return str(refused.value).replace(f"{path}:", "")


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n100.25\n\n101.75\n104.25\n",
        "100.25,GET,/\n101.75,GET,/\n104.25,PUT,/\n",
        "1732262400250 a\n1732262401750 b\n1732262404250 c\n",
        "2026-11-22T08:00:00.250Z GET /\n2026-11-22T08:00:01.750Z GET /\n2026-11-22T08:00:04.250Z PUT /\n",
        "[2026-11-22 08:00:00,250] INFO\n[2026-11-22 08:00:01,750] INFO\n[2026-11-22 08:00:04,250] WARN\n",
        "2026-11-22T08:00:00.25+00:00\n2026-11-22T10:00:01.75+02:00\n2026-11-22T03:00:04.250-0500\n",
    ],
    ids=["seconds", "columns", "milliseconds", "iso", "log", "zones"],
)
def test_the_moments_of_a_file_are_found_whatever_form_they_have(written: Written, text: str) -> None:
    assert moments(read_trace(written(text), "t.times")) == [0.0, 1.5, 4.0]


LOGGED = '203.0.113.7 - ann [22/Nov/2026:08:00:%02d +0100] "GET /cart?item=4711 HTTP/1.1" 200 512%s\n'


@pytest.mark.parametrize("more", ["", ' "https://shop.example/" "Mozilla/5.0 [en]"'], ids=["common", "combined"])
def test_an_access_log_is_spread_over_its_seconds_and_nothing_but_its_times_is_kept(
    written: Written, more: str
) -> None:
    found = read_trace(written("".join(LOGGED % (second, more) for second in (0, 0, 0, 0, 2, 3, 3))), "t.times")
    # Four requests of one second come at its 1st, 3rd, 5th and 7th eighth; the first of them is where times begin.
    assert moments(found) == pytest.approx([0, 0.25, 0.5, 0.75, 2.375, 3.125, 3.625])
    assert set(found.text) <= set("0123456789.\n")


def test_a_log_that_is_written_when_requests_end_is_put_into_order(written: Written) -> None:
    assert moments(read_trace(written("5.5\n1.5\n3\n"), "t.times")) == [0, 1.5, 4]


def test_a_midnight_and_a_change_of_zone_are_no_gap(written: Written) -> None:
    lines = ["[31/Dec/2026:23:59:59 +0000]", "[01/Jan/2027:00:00:00 +0000]", "[01/Jan/2027:01:00:01 +0100]"]
    assert moments(read_trace(written("\n".join(lines)), "t.times")) == [0, 1, 2]


def test_the_course_counts_what_fell_into_each_second_of_the_replay(written: Written) -> None:
    path = written("".join(f"{at}\n" for at in (0.0, 0.1, 0.2, 1.3, 3.6)))
    found = read_trace(path, "t.times").trace
    assert found.length_s == pytest.approx(4.5)
    assert found.course == (3, 1, 0, 0, 1)
    assert sum(read_trace(path, "t.times", time_scale=0.4).trace.course) == found.count == 5
    assert len(read_trace(path, "t.times", time_scale=0.4).trace.course) == 2
    assert len(read_trace(path, "t.times", time_scale=100_000).trace.course) == trace.MAX_COURSE


def test_a_burst_within_a_long_recording_is_in_its_course(written: Written) -> None:
    day = [20.0 * index + 0.5 for index in range(4320)] + [30 + index / 200 for index in range(400)]
    assert max(read_trace(written("".join(f"{at}\n" for at in day)), "t.times").trace.course) >= 200


def test_other_moments_have_another_digest(written: Written) -> None:
    one = read_trace(written("1\n2.5\n"), "t.times").trace
    assert one.sha256 == read_trace(written("7\n8.5\n"), "t.times").trace.sha256, "only what is replayed counts"
    assert one.sha256 != read_trace(written("1\n2.6\n"), "t.times").trace.sha256


@pytest.mark.parametrize(
    ("text", "form", "said"),
    [
        ("", "auto", "0 moments, and no time between them"),
        ("1.5\n", "auto", "1 moment, and no time between them"),
        ("1.5\n1.5\n", "auto", "2 moments, and no time between them; name a recording with at least two different"),
        ("1\n2\nthree\n", "auto", "3:1: no moment in three; write seconds at the line's beginning"),
        ("hello\n", "auto", "1:1: no moment in hello; a moment is meant"),
        ("1\n-2\n", "auto", "2:1: no moment in -2"),
        ("1\n1e999\n", "auto", "2:1: no moment in 1e999"),
        ("1\n2\n", "iso", "1:1: no moment in 1; write a time such as 2026-11-22T08:00:00.250Z"),
        ("2026-13-40T08:00:00Z\n", "iso", "1:1: no moment in 2026-13-40T08:00:00Z"),
        ("a [22/Nov/2026:08:00:00 +0000]\nb [22/Foo/2026:08:00:01 +0000]\n", "auto", "2:1: no moment in b [22/Foo"),
        ("[01/Feb/0000:00:00:00 +0000]\n", "auto", "1:1: no moment in [01/Feb/0000"),
        ("nothing here\n", "access-log", "1:1: no moment in nothing here; write a time such as [22/Nov/2026"),
    ],
)
def test_a_line_without_a_moment_is_named(written: Written, text: str, form: str, said: str) -> None:
    assert said in refusal(written(text), form)


def test_of_many_bad_lines_the_first_are_named(written: Written) -> None:
    said = refusal(written("1\n" + "bad\n" * 50)).splitlines()
    assert [line.split(":")[0] for line in said] == ["2", "3", "4", "5", "6"]


def test_what_is_too_much_or_no_file_is_refused(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such file" in refusal(tmp_path / "none")
    assert "not an ordinary file" in refusal(tmp_path)
    monkeypatch.setattr(trace, "MAX_MOMENTS", 3)
    assert "5:1: more than 3 moments; replay a part of it" in refusal(written("# four\n1\n2\n3\n4\n5\n"))
    monkeypatch.setattr(trace, "MAX_BYTES", 1 << 20)
    assert "more than 1 MB" in refusal(written("1\n" * (1 << 20)))


def test_bytes_that_are_no_text_are_a_bad_line_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(bytes(range(256)) * 4)
    said = refusal(path)
    assert "no moment in" in said
    assert said.isprintable(), "nothing that a terminal would obey"


def test_what_is_no_time_of_a_day_is_no_moment(written: Written) -> None:
    assert refusal(written("2026-11-22T08:01:59Z\n2026-11-22T08:01:61Z\n")).startswith("2:1: no moment in")
    assert "nanoseconds have to be divided first" in refusal(written("1732262400250000\n1732262400251000\n"))
