"""Frozen values that every other room speaks in: experiment, system, plan, event, undo, verdict.

What lives here: data and its meaning. What must not: I/O, clocks, decisions. `undo`, `event` and
`units` import the standard library only, because the keeper needs them; this file imports nothing.
"""
