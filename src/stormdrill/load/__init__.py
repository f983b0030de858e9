"""Demand: arrivals as a function of time, and the launcher of the generator's process.

What lives here: schedules, the launcher, the null server for calibration. What must not: Locust, which only
`load.locust` imports, in a process of its own.
"""
