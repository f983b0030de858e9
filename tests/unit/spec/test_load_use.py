"""What an experiment may say of its load, and where it is told what is wrong with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stormdrill.errors import Refused
from stormdrill.faults.region_loss import Parameters
from stormdrill.spec import catalogue
from stormdrill.spec.demand import SumError, Term, parse_sum
from stormdrill.spec.load import Loaded, read_experiment

REPOSITORY = Path(__file__).parent / "repository"
Reads = Callable[..., Loaded]
BURST = "like: peak\nfrom: fault\nspike: {factor: 3, at: 2s, for: 4s}\n"
REPLAY = "like: peak\nreplay: {file: shop.log}\n"
LOG = "".join(f"{second}.5\n{second}.75\n" for second in range(40))
OTHER = "user: other\nstreams:\n  all: {share: 100%, deadline: 1s}\n"
OWN_METRICS = """
objectives:
  baseline:
    - queue_age < 10s
guards: []
"""


@pytest.fixture
def reads(tmp_path: Path) -> Reads:
    """Reads the repository's region-loss with another `load:`, and other lines at its end."""
    home = tmp_path / "home"
    shutil.copytree(REPOSITORY, home)
    files = {"burst.yaml": BURST, "replay.yaml": REPLAY, "shop.log": LOG, "other.yaml": OTHER, "other.py": ""}
    for name, text in files.items():
        (home / "loadgen" / name).write_text(text)
    (home / "mine.py").write_text("")

    def read(load: str, *, fast: bool = False, quick: str = "", metrics: bool = False) -> Loaded:
        text = (home / "experiments" / "region-loss.yaml").read_text()
        head, _, rest = text.partition("\nload: ")
        text = f"{head}\nload: {load}\n{rest.partition(chr(10))[2]}"
        if metrics:  # of the system's own, since nobody else counts requests
            text = text.partition("\nobjectives:")[0] + OWN_METRICS
        if quick:
            head, found, rest = text.partition("\nfast:")
            text = f"{head}\nfast:\n  load: {quick}\n{rest.partition(chr(10))[2] if found else ''}"
        path = home / "experiments" / "drill.yaml"
        path.write_text(text)
        return read_experiment(path, faults={"region-loss": Parameters}, fast=fast, roots=(home, catalogue.root()))

    return read


def refusal(reads: Reads, load: str, **more: object) -> str:
    with pytest.raises(Refused) as refused:
        reads(load, **more)
    return "\n".join(f"{one.column}: {one.what}; {one.fix}" for one in refused.value.problems)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("peak", (Term("peak", 1.0, 0),)),
        ("peak + spike", (Term("peak", 1.0, 0), Term("spike", 1.0, 7))),
        (" peak+0.5x spike ", (Term("peak", 1.0, 1), Term("spike", 0.5, 11))),
        ("2 × daily-peak + 0.25 * b2", (Term("daily-peak", 2.0, 4), Term("b2", 0.25, 24))),
        ("3 x x", (Term("x", 3.0, 4),)),
    ],
)
def test_a_sum_of_profiles_is_read_with_the_place_of_each(text: str, terms: tuple[Term, ...]) -> None:
    assert parse_sum(text) == terms


@pytest.mark.parametrize(
    ("text", "offset", "said"),
    [
        ("", 0, "a profile is missing"),
        ("peak +", 5, "a profile is missing after +"),
        ("peak + + spike", 6, "a profile is missing after +"),
        ("spike x 2", 0, "write 2 x spike"),
        ("peak + 0.5", 7, "a weight without a profile"),
        ("peak + 0 x spike", 7, "a weight of 0"),
        ("2000 x spike", 0, "a weight of 2000"),
        ("peak - spike", 0, "is no profile with its weight"),
        ("Peak", 0, "write peak"),
        ("peak + 2 spike", 7, "is no profile with its weight"),
        (" + ".join(["peak"] * 9), 56, "9 profiles in one sum"),
    ],
)
def test_a_sum_that_can_t_be_read_is_pointed_into(text: str, offset: int, said: str) -> None:
    with pytest.raises(SumError) as refused:
        parse_sum(text)
    assert said in f"{refused.value.what}; {refused.value.fix}"
    assert refused.value.offset == offset


def test_a_sum_superposes_its_profiles_in_the_runs_own_time(reads: Reads) -> None:
    loaded = reads("{profile: peak + 0.5 x burst, rate: 60/s}")
    assert loaded.experiment.load is not None
    assert loaded.experiment.load.profile == "peak + 0.5 x burst"
    assert loaded.profile is not None
    peak, burst = loaded.profile.parts
    assert (peak.name, peak.weight, burst.name, burst.weight) == ("peak", 1.0, "burst", 0.5)
    phases = loaded.experiment.phases
    begins_s = phases.warmup_s + phases.baseline_s
    assert burst.since is None
    assert begins_s + 2 in [piece.at_s for piece in burst.shape]
    assert loaded.rate_per_s({}) == pytest.approx(90.0)
    assert {"profile.yaml", "profile-burst.yaml"} <= set(loaded.sources)


def test_what_counts_from_a_phase_follows_the_form_that_is_run(reads: Reads) -> None:
    def begins(loaded: Loaded) -> float:
        assert loaded.profile is not None
        phases = loaded.experiment.phases
        assert loaded.profile.shape[1].at_s == phases.warmup_s + phases.baseline_s
        return loaded.profile.shape[1].at_s

    slow = begins(reads("{profile: burst, rate: 60/s}"))
    assert begins(reads("{profile: burst, rate: 60/s}", fast=True)) < slow


def test_a_recording_needs_no_rate_and_is_copied_into_the_run(reads: Reads) -> None:
    loaded = reads("{profile: replay}")
    assert loaded.profile is not None
    assert loaded.profile.trace is not None
    assert loaded.experiment.load is not None
    assert loaded.experiment.load.rate_per_s == pytest.approx(2.0, rel=0.02)
    assert loaded.profile.arrivals == "constant"
    copy = loaded.sources[loaded.profile.trace.file]
    assert copy.path.name == "shop.log"
    assert copy.text.startswith("0.000000\n0.250000\n")
    assert "profile-peak.yaml" in loaded.sources, "what it is like is kept too"
    scaled = reads("{profile: peak + replay, rate: 40/s}")
    assert scaled.profile is not None
    assert [part.weight for part in scaled.profile.parts] == [1.0, 1.0]


def test_a_recordings_bad_line_is_named_in_its_own_file(reads: Reads, tmp_path: Path) -> None:
    (tmp_path / "home" / "loadgen" / "shop.log").write_text("1.5\noops\n")
    with pytest.raises(Refused, match=r"shop\.log:2:1: no moment in oops"):
        reads("{profile: replay}")
    (tmp_path / "home" / "loadgen" / "shop.log").unlink()
    with pytest.raises(Refused, match=r"replay\.yaml:2:16: .*shop\.log: no such file; check replay\.file"):
        reads("{profile: replay}")


def test_observed_is_no_generator_in_the_form_that_says_so(reads: Reads) -> None:
    loaded = reads("observed", metrics=True)
    assert (loaded.experiment.load, loaded.experiment.observed, loaded.profile) == (None, True, None)
    assert "profile.yaml" not in loaded.sources
    quick = reads("{profile: peak, rate: 60/s}", metrics=True, quick="observed", fast=True)
    assert (quick.experiment.load, quick.experiment.observed) == (None, True)
    slow = reads("{profile: peak, rate: 60/s}", metrics=True, quick="observed")
    assert slow.experiment.load is not None
    assert not slow.experiment.observed
    back = reads("observed", metrics=True, quick="{profile: peak, rate: 60/s}", fast=True)
    assert back.experiment.load is not None
    assert not back.experiment.observed


def test_a_locustfile_of_ones_own_is_run_unchanged(reads: Reads) -> None:
    def told(text: str) -> Loaded:
        return reads(f"{{locustfile: mine.py, users: 50, deadline: 1s{text}}}", metrics=True)

    loaded = told(", spawn: 10/s")
    load = loaded.experiment.load
    assert load is not None
    assert load.closed_loop
    assert (load.locustfile, load.users, load.spawn_per_s, load.deadline_s) == ("mine.py", 50, 10.0, 1.0)
    assert loaded.profile is not None
    assert (loaded.profile.user, [stream.name for stream in loaded.profile.streams]) == ("mine", ["any"])
    assert loaded.locustfile is not None
    assert loaded.locustfile.name == "mine.py"
    plain = told("").experiment.load
    assert plain is not None
    assert plain.spawn_per_s == 50.0


def test_workers_here_and_on_other_machines_are_part_of_what_is_asked(reads: Reads) -> None:
    loaded = reads("{profile: peak, rate: 60/s, workers: 3, hosts: [one, two], listen: '192.0.2.1:5557'}")
    load = loaded.experiment.load
    assert load is not None
    assert (load.workers, load.hosts, load.listen) == (3, ("one", "two"), "192.0.2.1:5557")


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ("{profile: peak + brust, rate: 60/s}", "24: there is no loadgen/brust.yaml; write burst"),
        ("{profile: peak + burst x 2, rate: 60/s}", "24: a weight after its profile, burst x 2; write 2 x burst"),
        ("{profile: peak + replay}", "17: no rate: only what replays a recording has one of its own; add rate: 60/s"),
        ("{profile: peak + other, rate: 1/s}", "24: other is sent by other, and peak by platform_user"),
        ("{profile: peak, rate: 60/s, users: 4}", "35: users belongs to a locustfile of your own"),
        ("{locustfile: mine.py}", "7: load lacks users, deadline; add users: 50; deadline: 1s"),
        ("{locustfile: mnie.py, users: 1, deadline: 1s}", "20: there is no mnie.py in the repository; write mine.py"),
        ("{locustfile: ../mine.py, users: 1, deadline: 1s}", "20: ../mine.py is no Python file of this repository;"),
        ("{locustfile: /etc/hosts, users: 1, deadline: 1s}", "20: /etc/hosts is no Python file of this repository;"),
        ("{locustfile: mine.py, users: 0, deadline: 1s}", "36: 0 is too small; write at least 1"),
        ("{locustfile: mine.py, users: 1, deadline: 0s}", "deadline of 0; write more"),
        ("{locustfile: mine.py, users: 1, deadline: 1s, spawn: 0/s}", "spawn of 0; write more"),
        ("{locustfile: mine.py, users: 1, deadline: 1s, rate: 9/s}", "rate besides a locustfile of your own"),
        ("{locustfile: mine.py, users: 1, deadline: 1s, profile: peak}", "profile besides a locustfile of your own"),
        ("{profile: peak, rate: 60/s, workers: 0}", "44: 0 is too small; write at least 1"),
        ("{profile: peak, rate: 60/s, hosts: [a]}", "workers of other machines, and no address at which they report"),
        ("{profile: peak, rate: 60/s, listen: 'a:1'}", "an address for workers of other machines, and none of them"),
        ("{profile: peak, rate: 60/s, hosts: [a], listen: 'a:99999'}", "a:99999 is no address to listen at"),
        ("obsreved", "7: obsreved is no load; write observed"),
        ("peak", "7: peak is no load; write {profile: steady, rate: 20/s}, or observed"),
        ("{}", "7: load lacks profile, rate; add profile: steady; rate: 20/s; or locustfile: FILE.py"),
    ],
)
def test_a_load_that_can_t_be_made_is_refused_where_it_stands(reads: Reads, load: str, said: str) -> None:
    assert said in refusal(reads, load)


def test_a_load_of_the_fast_form_is_checked_in_either(reads: Reads) -> None:
    assert "there is no loadgen/brust.yaml" in refusal(reads, "{profile: peak, rate: 60/s}", quick="{profile: brust}")
    assert "obsreved is no load" in refusal(reads, "{profile: peak, rate: 60/s}", quick="obsreved")
