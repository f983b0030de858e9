import pytest
from msgspec.structs import replace

from stormdrill.errors import Refused
from stormdrill.load import ceiling
from stormdrill.load.ceiling import CEILING_PER_S, Ceiling, Step, ceiling_for, known, refuse_beyond_ceiling, remember
from stormdrill.model.experiment import LoadUse
from stormdrill.model.profile import Piece, Profile, Stream

PROFILE = Profile("p", "user", "constant", (), (Stream("one", 1.0, {}, 1.0),))


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "stormdrill" / "ceiling.json"


@pytest.fixture
def measured():
    steps = (Step(1000, 1.0, 0.4, True), Step(4000, 1.0, 2.0, True), Step(5000, 1.0, 40.0, False))
    return Ceiling(4000.0, ceiling.this_machine(), "2026-01-01T00:00:00+00:00", steps, 0.3)


@pytest.fixture
def calibrations(monkeypatch, measured):
    made = []

    def calibrate_machine():
        made.append(1)
        return measured

    monkeypatch.setattr("stormdrill.load.calibrate.calibrate_machine", calibrate_machine)
    return made


def asked(rate_per_s, workers=0, **more):
    return ceiling_for(LoadUse("p", rate_per_s, workers=workers, **more), PROFILE, lambda _: None)


def test_what_was_measured_is_known_again_and_not_on_another_machine(measured):
    assert known() is None
    remember(measured)
    assert known() == measured
    for field, value in (("cpu", "another"), ("cores", 999), ("python", "2.7"), ("stormdrill", "0"), ("client", "x")):
        remember(replace(measured, machine=replace(measured.machine, **{field: value})))
        assert known() is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"measured_per_s": "many"}'])
def test_a_file_that_cannot_be_read_is_as_good_as_none(state, measured, text):
    remember(measured)
    state.write_bytes(text)
    assert known() is None


def test_nothing_is_left_beside_the_file(state, measured):
    remember(measured)
    remember(measured)
    assert [path.name for path in state.parent.iterdir() if path.is_file()] == ["ceiling.json"]


def test_a_machine_is_measured_once_and_only_for_a_load_that_needs_to_know(calibrations, measured):
    assert asked(250) == CEILING_PER_S
    assert asked(600, workers=2) == CEILING_PER_S
    assert not calibrations
    assert asked(301) == measured.usable_per_s == 2800
    assert asked(5000) == 2800
    assert asked(10) == 2800
    assert len(calibrations) == 1


def test_the_highest_rate_counts_and_not_the_mean(calibrations):
    spiky = replace(PROFILE, shape=(Piece(0, 1), Piece(10, 1), Piece(10, 4), Piece(11, 1)))
    ceiling_for(LoadUse("p", 100), spiky, lambda _: None)
    assert len(calibrations) == 1


def test_a_closed_loop_needs_no_measure(calibrations):
    assert ceiling_for(LoadUse("", 0, locustfile="shop.py", users=5000), None, lambda _: None) == CEILING_PER_S
    assert not calibrations


def test_a_rate_beyond_the_ceiling_is_refused_with_the_number_of_workers_that_would_carry_it():
    refuse_beyond_ceiling(PROFILE, 2800, 2800)
    refuse_beyond_ceiling(PROFILE, 5600, 2800, workers=2)
    with pytest.raises(
        Refused, match=r"one generator sends at most 2800/s on time; 3 workers would carry it, or ask for"
    ):
        refuse_beyond_ceiling(PROFILE, 6000, 2800)
    with pytest.raises(Refused, match=r"2 generators send at most 5600/s on time; 3 workers .* at most 5600/s"):
        refuse_beyond_ceiling(PROFILE, 6000, 2800, workers=2)
    with pytest.raises(Refused, match="no demand"):
        refuse_beyond_ceiling(PROFILE, 0, 2800)


def test_an_impossible_demand_is_refused_and_not_measured_for(calibrations):
    with pytest.raises(Refused):
        asked(-5)
    assert not calibrations
