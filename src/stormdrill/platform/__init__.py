"""The reference platform: a small, genuine distributed compute service, the default system under test.

Imported by nobody: it is run, as `python -m stormdrill.platform ROLE`.
"""
