"""Telling people: Slack, to come. Never a source of truth, never in a step's way."""
