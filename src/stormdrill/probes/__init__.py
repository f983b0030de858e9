"""Reading the outside world: HTTP, Prometheus text, commands, alerts. One question, one limit, one answer.

A probe without a fresh reading says so; it never repeats an old one.
"""
