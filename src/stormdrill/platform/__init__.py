"""The reference platform: a small, genuine distributed compute service, the default system under test.

Imported by nobody: it is run, as `python -m stormdrill.platform ROLE`. Here live its four roles (edge, gateway,
workers, feed) and what they share. What must not live here: anything that knows of experiments, faults or runs.
The parts that decide (placement, admission, queue, store, region) hold no socket and no clock of their own, so that
their promises can be tested in any order of events; the roles only carry messages.
"""
