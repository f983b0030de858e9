"""The proxy that every hop between services passes: a process of its own, standard library only, imported by nobody.

Here live the relaying of bytes between one listener and one upstream a hop, and the control endpoint that shows
what passed. What must not live here: knowledge of HTTP bodies, of services, of experiments, or of faults' timing.
"""
