"""The pure heart: plan, fold, decide, judge, statistics, timeline.

No clock, no I/O, no logging, no randomness but the recorded seed. Same input, same output, to the byte.
"""
