"""Any HTTP service: one GET an arrival. The profile's parameter `path` says what is asked for.

An ordinary Locust file. Under stormdrill it sends a run's arrivals; by hand:

    locust -f loadgen/http_user.py --host http://127.0.0.1:PORT --headless -t 10s --demand steady --rate 20
"""

from stormdrill.load.locust import Arrival, OpenLoopUser


class HttpUser(OpenLoopUser):
    def serve(self, arrival: Arrival) -> None:
        self.http.get(str(arrival.parameters.get("path", "/")), name=arrival.stream)
