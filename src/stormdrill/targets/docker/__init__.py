"""Containers of one Docker engine: made by the run with testcontainers, or found running already.

What lives here: the image, network, addresses and limits of a run's containers; what the engine tells of them; harm by
the engine's own means (pause, kill, disconnect, limits, exec). What must not: decisions, and undoing, which is the
keeper's. The docker SDK and testcontainers are imported by `starting` and `image` alone, when something is made.
"""
