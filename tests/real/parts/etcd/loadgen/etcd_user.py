"""A client of etcd that, when one member doesn't answer, asks the next one until the deadline."""

from base64 import b64encode
from itertools import cycle

import gevent

from stormdrill.load.locust import Arrival, OpenLoopUser

PATIENCE_S = 0.7
"""With one member. A follower passes a write on to a leader that was just killed, and waits for it much longer."""
PAUSE_S = 0.05


class EtcdUser(OpenLoopUser):
    def serve(self, arrival: Arrival) -> None:
        word = b64encode(arrival.id.encode()).decode()
        # The same key and value however often it is sent: trying again is harmless.
        for member in cycle(arrival.entries):
            with gevent.Timeout(PATIENCE_S, False):
                answer = self.client.post(f"{member}/v3/kv/put", json={"key": word, "value": word}, name="put")
                if answer.status_code == 200:
                    return
            gevent.sleep(PAUSE_S)  # the driver ends this loop a moment after the deadline
