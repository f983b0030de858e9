"""The user class that locustfiles build on. It works under stormdrill's generator and under plain `locust` alike."""

from __future__ import annotations

import inspect
import logging
import secrets
import sys
import time
from pathlib import Path

from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from stormdrill.errors import Refused
from stormdrill.load.arrivals import Demand, arrivals
from stormdrill.load.locust.attempt import Attempt
from stormdrill.load.locust.driver import Driver
from stormdrill.load.locust.flights import Arrival, Flight, current_flight
from stormdrill.load.locust.http import Answer, HttpClient
from stormdrill.load.locust.session import ArrivalSession
from stormdrill.store.records import Outcome

log = logging.getLogger(__name__)
_CONNECTIONS = 10_000
"""More than requests can be in flight: the driver caps those, and the pool must never make one wait."""


class OpenLoopUser(FastHttpUser):  # type: ignore[misc]  # untyped library
    """One user that sends a whole profile's arrivals, each at its time, in a greenlet of its own.

    Write `serve(self, arrival)`: send the request with `self.http`, or with `self.client`, as in any locustfile (which
    costs the generator twice the work). Latency counts from the arrival's intended time, and the client gives up a
    moment after the arrival's deadline. Several requests in one `serve` are attempts at the same thing: the last one
    counts. Ask for one user; the rate is the profile's.
    """

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        driver: Driver | None = getattr(environment, "stormdrill_driver", None)
        self._standalone = driver is None
        self._idle = self._standalone and getattr(environment, "stormdrill_taken", False)
        if self._idle:
            return
        environment.stormdrill_taken = True
        self._driver = driver or _standalone_driver(self, environment)
        self.client = ArrivalSession(
            self.host,
            events=environment.events.request,
            user=self,
            size=_CONNECTIONS,
            note_sent=self._driver.note_sent,
            region_header=self._driver.region_header,
        )
        listened = self._standalone or getattr(environment, "stormdrill_listeners", False)
        self.http = HttpClient(
            self.host,
            note_sent=self._driver.note_sent,
            region_header=self._driver.region_header,
            report=self._report if listened else None,
        )

    def attempt(self, name: str) -> Attempt:
        """One request in another protocol than HTTP, within `serve`: see `Attempt`."""
        flight = current_flight()
        if flight is None:
            raise RuntimeError("self.attempt() belongs into serve(): outside of it there is no arrival to answer")
        return Attempt(name, flight, self._driver.note_sent, self.environment.events.request)

    def _report(self, method: str, name: str, answer: Answer, flight: Flight) -> None:
        """To Locust's statistics, and whoever else listens."""
        error = answer.error
        if error is None and not answer.ok:
            error = NotAcceptedError(answer.refused or f"status {answer.status}")
        arrival = flight.arrival
        self.environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=(flight.done_s - arrival.intended_s) * 1e3,
            response_length=len(answer.body),
            exception=error,
            context=dict(arrival.labels),
            response=answer,
        )

    def serve(self, arrival: Arrival) -> object:
        """Send one request. What it returns is ignored; the client has seen the outcome."""
        raise NotImplementedError("a locustfile's user class writes serve(self, arrival)")

    @task  # type: ignore[untyped-decorator]
    def drive(self) -> None:
        if self._idle:
            log.warning("Open loop: one user sends the whole profile, so this one stays idle; set the rate with --rate")
            raise StopUser
        if self._standalone:
            self.environment.events.test_stopping.add_listener(lambda **_: self._driver.stop())
            self._driver.begin(time.monotonic() + 0.1, _Nowhere())
        self._driver.run(self.serve)
        raise StopUser


class _Nowhere:
    """Plain Locust keeps its own statistics."""

    def add(self, flight: Flight, now_s: float, *, final: bool) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class NotAcceptedError(Exception):
    """Locust's statistics count it as a failure: another status than 2xx, or refused by the locustfile."""


class NeverAnsweredError(Exception):
    """Locust's statistics count it as a failure: dropped, timed out or unfinished."""


def report_lost(environment: Environment, flight: Flight) -> None:
    """Tell Locust's statistics of what no client reported."""
    arrival = flight.arrival
    elapsed_s = time.monotonic() - arrival.intended_s
    outcome = flight.outcome or Outcome.UNFINISHED
    environment.events.request.fire(
        request_type=outcome.name,
        name=arrival.stream,
        response_time=max(elapsed_s, arrival.deadline_s) * 1e3,
        response_length=0,
        exception=NeverAnsweredError(outcome.name.lower().replace("_", " ")),
        context=dict(arrival.labels),
    )


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_arguments(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Open loop (stormdrill)")
    group.add_argument("--demand", default="steady", help="profile beside the locustfile, without .yaml")
    group.add_argument("--rate", type=float, default=20.0, help="mean arrivals a second (default 20)")
    group.add_argument("--seed", type=int, default=7, help="same seed, same arrivals (default 7)")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _read_demand(environment: Environment, **_: object) -> None:
    """Under plain Locust: what is wrong with the demand is said before anything starts."""
    if hasattr(environment, "stormdrill_driver"):
        return
    from stormdrill.spec.profile import read_profile

    options = environment.parsed_options
    for user in environment.user_classes:
        if not issubclass(user, OpenLoopUser):
            continue
        if isinstance(environment.runner, MasterRunner | WorkerRunner):
            # Locust's workers don't know how many they are: each would send the whole profile.
            sys.stderr.write(
                f"{user.__name__} sends its whole profile from one process; for several leave out --processes, "
                "--master and --worker, and write workers: in an experiment's load\n"
            )
            sys.exit(Refused.exit_code)
        try:
            environment.stormdrill_profile = read_profile(Path(inspect.getfile(user)).parent / f"{options.demand}.yaml")
            Demand(environment.stormdrill_profile, options.rate)
        except (Refused, ValueError) as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(Refused.exit_code)


def _standalone_driver(user: OpenLoopUser, environment: Environment) -> Driver:
    options, profile = environment.parsed_options, environment.stormdrill_profile
    return Driver(
        arrivals(profile, options.rate, options.seed),
        run=f"locust-{secrets.token_hex(3)}",
        streams=profile.every_stream,
        entries=(user.host.rstrip("/"),),
        max_in_flight=2000,
        lost=lambda flight: report_lost(environment, flight),
        retries=[part.retry for part in profile.parts for _ in part.streams],
        seed=options.seed,
    )
