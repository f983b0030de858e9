"""stormdrill: inject a failure under load, judge it honestly, run the runbook, write the review."""

__version__ = "0.1.0"
