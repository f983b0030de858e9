"""Mechanisms that more than one target shares: the fault proxy, device files, requests to the system itself.

What lives here: `ports.Mechanism`s that need only addresses, files and the keeper. What must not: anything that knows
processes or containers.
"""
