"""The open loop as a source: one user class of a locustfile, driven by a profile's arrivals."""

from __future__ import annotations

import traceback
from typing import Literal

from locust import User
from locust.env import Environment
from locust.runners import Runner

from stormdrill.load.arrivals import arrivals
from stormdrill.load.locust.driver import Driver
from stormdrill.load.locust.source import Terms
from stormdrill.load.locust.user import OpenLoopUser, report_lost
from stormdrill.model.profile import Profile
from stormdrill.store.records import LabelClass

_ROOM_FOR_REGIONS = 4096


class OpenLoop(Driver):
    """See `source.Source`."""

    loop: Literal["open", "closed"] = "open"
    room: int = _ROOM_FOR_REGIONS

    def __init__(self, path: str, user: type[OpenLoopUser], terms: Terms, profile: Profile) -> None:
        self._path = path
        self.user_classes: tuple[type[User], ...] = (user,)
        streams = profile.every_stream
        self.labels = [LabelClass(labels=item.labels, deadline_ms=item.deadline_s * 1e3) for item in streams]
        super().__init__(
            arrivals(profile, terms.rate_per_s, terms.seed, worker=terms.worker, workers=terms.workers),
            run=terms.run,
            streams=streams,
            entries=terms.entries,
            max_in_flight=terms.max_in_flight,
            lost=lambda flight: report_lost(self._environment, flight),
            retries=[part.retry for part in profile.parts for _ in part.streams],
            seed=terms.seed,
            region_header=terms.region_header,
        )

    def attach(self, environment: Environment) -> None:
        self._environment = environment
        environment.stormdrill_driver = self
        # Locust's own statistics listen as soon as there is a runner; nobody reads them here, and they cost more than
        # the request. Whoever the locustfile added before is told.
        environment.stormdrill_listeners = bool(environment.events.request._handlers)
        environment.events.user_error.add_listener(self._user_failed)

    def start(self, runner: Runner) -> None:
        """The user, which the other workers have one of too, takes `waiting` when it is ready."""
        runner.spawn_users({self.user_classes[0].__name__: 1})

    def _user_failed(self, exception: Exception, **_: object) -> None:
        """`on_start` raised, or the driver itself did, which is a defect of ours."""
        from stormdrill.load.locust.locustfile import where

        if not self.waiting.is_set():
            line = where(exception, self._path)
            self.fail(f"{self._path}: {line}on_start: {type(exception).__name__}: {exception}")
        else:
            self.fail("".join(traceback.format_exception(exception)))
        self.waiting.set()
        self.finished.set()
