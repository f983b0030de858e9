"""The figures that stormdrill promises, measured. `make bench` runs all of them.

What lives here: one module a subject, each with `measure(quick) -> Iterable[Figure]`, and the runner. What must
not: tests of right and wrong (those are in `tests/`, which never assert a time).
"""
