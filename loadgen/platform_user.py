"""Clients of the reference platform: API calls, inferences, reports, batch jobs and training.

An ordinary Locust file. Under stormdrill it sends a run's arrivals; by hand:

    locust -f loadgen/platform_user.py --host http://127.0.0.1:PORT --headless -t 10s --demand peak --rate 60
"""

from zlib import crc32

from stormdrill.load.locust import Arrival, OpenLoopUser


def key_of(arrival: Arrival) -> str:
    """Whose data it works on: the profile's parameter `key`, or one of `keys` many, drawn by the arrival's id."""
    keys = int(arrival.parameters.get("keys") or 0)
    return f"tenant-{crc32(arrival.id.encode()) % keys}" if keys else str(arrival.parameters.get("key") or "")


class PlatformUser(OpenLoopUser):
    """Hands in jobs. Whoever asks for an API call, an inference or a report waits for the result; batch jobs and
    training are only accepted, and followed in the platform's own ledger."""

    def serve(self, arrival: Arrival) -> None:
        kind = arrival.labels["kind"]
        job = {
            "id": arrival.id,
            "kind": kind,
            "tier": int(arrival.labels["tier"]),
            "deadline_ms": round(arrival.deadline_s * 1000),
            "residency": arrival.parameters.get("residency"),
            "wait": kind not in ("batch", "training"),
            "key": key_of(arrival),
        }
        self.http.post("/jobs", json=job, name=f"POST /jobs {kind}, tier {job['tier']}")
