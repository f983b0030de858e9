"""The twelve backpressure checks, one question and one file each: what a system does with more work than it can do.

What lives here: pure functions from a run's evidence to a verdict, numbers and a sentence, and the curves that the
review draws from the same evidence. What must not: reading files, words of the YAML, drawing.
"""
