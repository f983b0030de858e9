"""All that takes time: the conductor that carries a plan out, its guards, the runbook's executor.

What lives here: threads, clocks, waiting, and the order of things. What must not: a concrete target, probe, load or
fault (it knows them through `stormdrill.ports`), or judgement (that is `core`).
"""
