"""A client of Redis: a careful one asks the sentinels for the primary, and counts a write when a replica has it."""

from urllib.request import urlopen

import gevent
from resp import ask

from stormdrill.load.locust import Arrival, OpenLoopUser

PRIMARY = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "drill")
REPLICA_LIMIT_MS = 200
PAUSE_S = 0.1


class RedisUser(OpenLoopUser):
    sentinels: tuple[int, ...] = ()
    first = 0
    """Port of the primary that was found first; a careless client never asks again."""

    def serve(self, arrival: Arrival) -> None:
        replicas, again = int(str(arrival.parameters["replicas"])), arrival.parameters["asks"] == "again"
        turn = arrival.job
        while True:
            with self.attempt(arrival.stream) as attempt:
                port = self.primary(arrival, turn) if again or not self.first else self.first
                self.first = self.first or port
                # The same key and value however often it is sent: trying again is harmless.
                wait = ("WAIT", str(replicas), str(REPLICA_LIMIT_MS))
                said, copies = ask(port, ("SET", arrival.id, "1"), wait)
                if said != "OK" or not isinstance(copies, int) or copies < replicas:
                    attempt.refuse(f"SET said {said}, WAIT {copies}")
            if attempt.succeeded:
                return
            turn += 1
            gevent.sleep(PAUSE_S)  # the driver ends this loop a moment after the deadline

    def primary(self, arrival: Arrival, turn: int) -> int:
        """Its port, as the sentinel whose turn it is knows it."""
        if not self.sentinels:
            with urlopen(f"{arrival.entries[0]}/sentinels", timeout=1.0) as told:  # noqa: S310
                self.sentinels = tuple(int(port) for port in told.read().split())
        (where,) = ask(self.sentinels[turn % len(self.sentinels)], PRIMARY)
        if not isinstance(where, list):
            raise EOFError("the sentinel knows no primary")
        return int(where[1])
