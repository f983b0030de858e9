"""The only room that imports Locust; always in its own process, because it patches sockets and time.

What lives here: the open-loop user that locustfiles build on, its driver and its client. What must not: meaning of
outcomes beyond the closed set of `store.records`, and anything that the runner imports.
"""

# Locust patches sockets when it is imported, so it comes before everything that opens one.
import locust as _locust  # noqa: F401

from stormdrill.load.locust.flights import Arrival
from stormdrill.load.locust.user import OpenLoopUser

__all__ = ["Arrival", "OpenLoopUser"]
