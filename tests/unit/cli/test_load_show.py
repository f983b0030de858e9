"""`stormdrill load show`: a demand in letters, in figures, and as one object."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stormdrill.cli import curve
from stormdrill.cli.main import main, root
from stormdrill.errors import Refused

STREAMS = "user: platform_user\narrivals: constant\nstreams:\n  all: {share: 100%, deadline: 1s}\n"
PROFILES = {
    "level": STREAMS,
    "burst": "like: level\nspike: {factor: 2, at: 20s, for: 20s}\n",
    "stairs": "like: level\nsteps: {factors: [1, 2, 4], each: 20s}\n",
    "surges": "like: level\nepisodes: {loads: [0.5], triggers: [2, 3], durations: [5s], base: 10s, hold: 10s}\n",
    "late": "like: level\nfrom: fault\nfailover: {of: 2}\n",
    "logged": "like: level\nreplay: {file: moments.times}\n",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with profiles of its own; its user file is the catalogue's."""
    (tmp_path / "loadgen").mkdir()
    for name, text in PROFILES.items():
        (tmp_path / "loadgen" / f"{name}.yaml").write_text(text)
    (tmp_path / "loadgen" / "moments.times").write_text("".join(f"{moment}\n" for moment in (0, 0.5, 1, 30, 30.5)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str) -> Result:
    return CliRunner().invoke(root, ["load", "show", *words], catch_exceptions=True)


def told(*words: str) -> str:
    done = call(*words)
    assert done.exit_code == 0, done.exception
    return done.output


def shown(*words: str) -> dict[str, object]:
    found = json.loads(told(*words, "--json"))
    assert isinstance(found, dict)
    return found


def refusal(*words: str) -> str:
    done = call(*words)
    assert isinstance(done.exception, Refused | SystemExit), done.output
    return f"{done.output}{done.exception}"


def columns(text: str) -> list[int]:
    """How high each column of the curve is, in rows."""
    rows = [line.partition("│")[2] or line.partition("┤")[2] for line in text.splitlines() if re.search("[│┤]", line)]
    rows = rows[: curve.ROWS]
    width = max(map(len, rows))
    return [sum(row.ljust(width)[at] != " " for row in rows) for at in range(width)]


def test_the_curve_has_the_demands_shape() -> None:
    heights = columns(told("burst", "--rate", "10/s", "--for", "60s"))
    # Lines end where the burst does, after two thirds of the time: its second half of them is full, its first empty.
    begins = heights.index(curve.ROWS)
    assert heights == [0] * begins + [curve.ROWS] * (len(heights) - begins)
    assert begins == pytest.approx(len(heights) / 2, abs=1)


def test_lines_are_plain_text_within_their_width() -> None:
    for name in (*PROFILES, "level + 0.5 x burst"):
        text = told(name, "--rate", "20/s")
        assert "\x1b" not in text
        assert all(len(line) <= 110 and line == line.rstrip() for line in text.splitlines()), text


def test_the_axes_have_their_units_and_the_figures_agree_with_them() -> None:
    text = told("burst", "--rate", "10/s", "--for", "60s")
    assert re.search(r"20/s ┤", text)
    assert re.search(r"0 s +10 s +20 s", text)
    assert "mean 6.67/s, peak 20/s" in text
    assert "400 expected in 60 s; 400 with seed 1, at most 20 in one second" in text


def test_each_part_of_a_sum_is_marked() -> None:
    text = told("level + 0.5 x burst", "--rate", "10/s", "--for", "60s")
    assert re.search(r"█ level +mean 10/s, peak 10/s", text)
    assert re.search(r"▒ 0\.5 x burst +mean 3\.33/s, peak 10/s", text)
    assert "▒" in text.partition("parts")[0]


def test_steps_and_episodes_are_named_under_the_curve() -> None:
    stairs = told("stairs", "--rate", "10/s")
    assert re.search(r"steps +│1 +│2 +│4", stairs)
    assert "3 of 20 s: 10/s, 20/s, 40/s" in stairs
    surges = told("surges", "--rate", "10/s")
    assert "1  base 5/s 10 s, trigger 20/s 5 s, after 5/s 10 s" in surges
    assert "2  base 5/s 10 s, trigger 30/s 5 s, after 5/s 10 s" in surges


def test_what_was_taken_because_nobody_said_it_is_said() -> None:
    assert "at 60/s, because no --rate is given" in told("level")
    assert "as recorded; --rate scales it" in told("logged")
    assert "the fault phase is drawn from 10 s on; an experiment says when it is" in told("late", "--rate", "5/s")


def test_a_recordings_gaps_are_those_of_its_moments() -> None:
    demand = shown("logged", "--for", "40s")["demand"]
    assert isinstance(demand, dict)
    assert demand["counted"] == 5
    assert demand["busiest_second"] == 2
    assert demand["gap_cv"] > 1.5


def test_an_experiment_is_drawn_over_its_phases_and_at_its_rate() -> None:
    found = shown("region-loss")
    phases = found["phases"]
    demand = found["demand"]
    assert isinstance(phases, list)
    assert isinstance(demand, dict)
    assert [one["name"] for one in phases][:3] == ["warmup", "baseline", "fault"]
    assert demand["until_s"] == phases[-1]["end_s"]
    assert demand["rate_per_s"] == 60.0
    assert re.search(r"phases +│.*│fault +│recovery", told("region-loss"))
    fast = shown("region-loss", "--fast")["demand"]
    assert isinstance(fast, dict)
    assert fast["until_s"] < demand["until_s"]


def test_the_object_holds_what_is_drawn() -> None:
    found = shown("stairs", "--rate", "10/s", "--seed", "7")
    demand = found["demand"]
    assert isinstance(demand, dict)
    assert demand["seed"] == 7
    assert len(demand["parts"][0]["rates"]) == 240
    assert max(demand["parts"][0]["rates"]) == demand["peak_per_s"] == 40.0
    assert isinstance(found["stages"], list)
    assert [stage["factor"] for stage in found["stages"]] == [1, 2, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("levle",), "there is no profile and no experiment levle; write level"),
        (("level + brust",), "there is no loadgen/brust.yaml; write burst"),
        (("level +",), "letter 7: a profile is missing after +"),
        (("region-los",), "write region-loss"),
        (("none.yaml",), "none.yaml: no such file"),
        (("level", "--rate", "fast"), "'fast' is not a rate"),
        (("level", "--rate", "0/s"), "a rate of 0 is no demand"),
        (("level", "--for", "0s"), "is not between 1ms and 30d"),
        (("level", "--seed", "-1"), "is no seed"),
    ],
)
def test_what_can_t_be_shown_is_refused_with_what_to_write(words: tuple[str, ...], said: str) -> None:
    assert said in refusal(*words)


@pytest.mark.parametrize("option", [("--fast",), ("--set", "region=us")])
def test_what_is_said_of_experiments_is_not_swallowed_by_a_profile(option: tuple[str, ...]) -> None:
    for what in ("level", "level + burst", "loadgen/level.yaml"):
        assert f"{option[0]}" in refusal(what, *option)
        assert "is said of experiments, and level" in refusal(what, *option)


def test_a_refusal_leaves_with_its_exit_code_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["load", "show", "levle"])
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_terminal_that_knows_no_blocks_gets_plain_letters() -> None:
    assert curve.letters_for("ascii") is curve.letters_for("no such encoding") is curve.PLAIN
    assert curve.letters_for("utf-8") is curve.FINE
    assert all(letter.isascii() for letters in curve.PLAIN for letter in letters)


def test_help_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    script = (
        "import sys\nfrom stormdrill.cli.main import main\n"
        "try:\n    main(['load', 'show', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'locust', 'gevent'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr.strip() == "[]"
