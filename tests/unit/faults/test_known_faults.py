"""A fault is found by its word: the built-in ones first, then what installed packages offer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stormdrill.faults.builtin import BUILTIN, FaultParameters, KnownFaults
from stormdrill.faults.region_loss import Parameters, RegionLoss

PACKAGE = """
from stormdrill.faults.region_loss import RegionLoss

class SolarFlare(RegionLoss):
    word = "solar-flare"
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flares.py").write_text(PACKAGE)
    info = tmp_path / "flares-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flares\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stormdrill.faults]\nsolar-flare = flares:SolarFlare\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_built_in_word_needs_no_package() -> None:
    assert isinstance(KnownFaults()["region-loss"], RegionLoss)
    assert FaultParameters(KnownFaults())["region-loss"] is Parameters


@pytest.mark.usefixtures("installed")
def test_a_word_of_an_installed_package_is_found_and_not_listed_among_our_own() -> None:
    faults = KnownFaults()
    assert faults["solar-flare"].word == "solar-flare"
    assert FaultParameters(faults).get("solar-flare") is Parameters
    assert list(faults) == list(BUILTIN)


def test_a_word_that_nobody_offers_is_unknown() -> None:
    assert KnownFaults().get("solar-flare") is None


def test_a_fault_is_imported_when_it_is_named_and_no_sooner() -> None:
    """`validate` pays for what the experiment uses."""
    code = (
        "import sys; from stormdrill.faults.builtin import FaultParameters, KnownFaults; "
        "known = FaultParameters(KnownFaults()); 'solar-flare' in known; known['node-loss']; "
        "print(*(name for name in sys.modules if name.startswith('stormdrill.faults.')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) == {f"stormdrill.faults.{name}" for name in ("acting", "builtin", "node_loss")}
