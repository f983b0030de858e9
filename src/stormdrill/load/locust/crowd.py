"""A closed loop: somebody's own Locust users, run unchanged, each of whom waits for an answer before it asks again.

Every request that Locust reports is a record: its start is its intended time, its lag is 0, its kind is what the
locustfile calls it. Locust reports a request only when it is over, so the two HTTP clients are watched as well: what is
in flight at the end is unfinished, and not forgotten.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Literal

import gevent
from gevent.event import Event
from geventhttpclient.response import HTTPParseError
from locust import User
from locust.dispatch import UsersDispatcher
from locust.env import Environment
from locust.exception import CatchResponseError
from locust.runners import Runner, WorkerNode

from stormdrill.load.locust.answers import REJECTED, retry_after
from stormdrill.load.locust.flights import RecordFile, whole_seconds
from stormdrill.load.locust.source import Terms
from stormdrill.load.locust.watched import ASKING, Asking, watch_clients
from stormdrill.load.messages import Ended, Progress
from stormdrill.store.records import UNTOLD, Flag, LabelClass, Outcome

now = time.monotonic
_FLUSH_EVERY_S = 0.05
_REFUSED_AFTER_S = 0.05
_KILL_LIMIT_S = 2.0
_ROOM = 1 << 16
_LONGEST_NAME = 120
_ACCEPTED, _NOT_ACCEPTED = 200, 0
_LABELS_OF_CONTEXT = ("tier", "kind")
_OTHER = 0

log = logging.getLogger(__name__)


class Crowd:
    """See `source.Source`."""

    loop: Literal["open", "closed"] = "closed"
    room: int = _ROOM

    def __init__(self, path: str, users: tuple[type[User], ...], terms: Terms) -> None:
        self._path = path
        self._terms = terms
        self.user_classes = users
        # Kinds are learnt as they come; those for which there is no room any more are of this one.
        self.labels = [LabelClass(labels={"name": "other"}, deadline_ms=terms.deadline_s * 1e3)]
        self.waiting, self.finished, self.asked_to_end = Event(), Event(), Event()
        self.failure = ""
        self._recorder: RecordFile | None = None
        self._environment: Environment | None = None
        self._runner: Runner | None = None
        self._kinds: dict[tuple[tuple[str, str], ...], int] = {}
        self._open: set[Asking] = set()
        self._unreported: set[Asking] = set()
        """Answered, in a `with` block of the locustfile's that has not said yet what it takes the answer for."""
        self._end_changed = Event()
        self._last_s = self._wait_s = math.inf
        self._life: gevent.Greenlet | None = None
        self._users = self._living = 0
        self._number = self.sent = self.done = self.dropped = self.unfinished = self.errors = 0
        self.first_error = ""

    def attach(self, environment: Environment) -> None:
        self._environment = environment
        environment.events.request.add_listener(self._reported)
        environment.events.user_error.add_listener(self._user_failed)
        watch_clients(self._asks, self._leaves)

    def start(self, runner: Runner) -> None:
        """Users start at `begin`: what they do in `on_start` is load already."""
        self._runner = runner
        runner.environment._filter_tasks_by_tags()
        turns = _Turns(self._terms.entries)
        for user in self.user_classes:
            user.host = turns
        self.waiting.set()

    @property
    def begun(self) -> bool:
        return self._recorder is not None

    def begin(self, epoch_s: float, recorder: RecordFile) -> None:
        self._recorder = recorder
        self._life = gevent.spawn(self._live, epoch_s)

    def end(self, last_intended_s: float, timeout_s: float, *, retries: bool = True) -> None:
        """`retries` are the users' own, and new requests."""
        self._last_s, self._wait_s = last_intended_s, timeout_s
        self.asked_to_end.set()
        self._end_changed.set()
        if self._recorder is None:
            self.finished.set()

    def fail(self, text: str) -> None:
        self.failure = self.failure or text
        self.end(min(self._last_s, now()), 0.0)

    def flush(self) -> None:
        if self._recorder is not None and not self.finished.is_set():
            self._recorder.flush()

    def progress(self) -> Progress:
        """A user sends when it sends: what was scheduled is what was sent, and nothing of it late."""
        return Progress(now() * 1e3, self.sent + self.dropped, self.sent, self.done, self.dropped, 0.0)

    def summary(self, cpu_s: float) -> Ended:
        sent, dropped = self.sent, self.dropped
        scheduled = sent + dropped
        return Ended(
            scheduled,
            sent,
            self.done,
            dropped,
            self.unfinished,
            0,
            self.errors,
            self.first_error,
            cpu_s,
            users=self._users,
            fewest_users=self._living,
        )

    def _live(self, epoch_s: float) -> None:
        gevent.sleep(max(epoch_s - now(), 0.0))
        flusher = gevent.spawn(self._flush_often)
        ramp = gevent.spawn(self._ramp)
        try:
            while (remaining_s := self._last_s - now()) > 0:
                self._end_changed.clear()
                self._end_changed.wait(None if math.isinf(remaining_s) else remaining_s)
            ramp.kill()
            self._stop()
        except Exception as error:
            self.failure = self.failure or f"{type(error).__name__}: {error}"
            log.exception("The closed loop could not be ended")
        finally:
            flusher.kill()
            self._close()

    def _ramp(self) -> None:
        """Users of all workers, as Locust spreads them; this worker starts its own."""
        terms, runner = self._terms, self._runner
        assert runner is not None
        runner.environment.events.test_start.fire(environment=runner.environment)
        nodes = [WorkerNode(id=f"{index:06d}") for index in range(terms.workers)]
        dispatcher = UsersDispatcher(worker_nodes=nodes, user_classes=list(runner.user_classes))
        dispatcher.new_dispatch(target_user_count=terms.users, spawn_rate=terms.spawn_per_s or float(terms.users))
        started: dict[str, int] = {}
        for counts in dispatcher:
            mine: Mapping[str, int] = counts[nodes[terms.worker].id]
            more = {name: count - started.get(name, 0) for name, count in mine.items() if count > started.get(name, 0)}
            started.update(mine)
            self._spawn(runner, more)
        runner.environment.events.spawning_complete.fire(user_count=sum(started.values()))

    def _spawn(self, runner: Runner, more: Mapping[str, int]) -> None:
        try:
            made = runner.spawn_users(more)
        except Exception as error:
            # They were asked for: those that can't be made are missing as those that stop are.
            self._users += sum(more.values())
            self._user_failed(error)
            raise
        self._users += len(made)
        self._living += len(made)
        for user in made:
            user.greenlet.rawlink(self._user_gone)

    def _user_gone(self, _: object) -> None:
        if now() <= self._last_s:
            self._living -= 1

    def _stop(self) -> None:
        """Whoever asks may still be answered; whoever waits or is silent at the end of that is stopped."""
        runner = self._runner
        assert runner is not None
        events, environment = runner.environment.events, runner.environment
        events.test_stopping.fire(environment=environment)
        environment.stop_timeout = self._wait_s
        with gevent.Timeout(self._wait_s + _KILL_LIMIT_S, False):
            runner.stop_users(dict(runner.user_classes_count))
        events.test_stop.fire(environment=environment)

    def _close(self) -> None:
        for asking in sorted(self._open, key=lambda item: item.start_s):
            self._unfinished(asking)
        self._open.clear()
        # Locust reports nothing of an answer whose `with` block raised; it was answered all the same.
        for asking in sorted(self._unreported, key=lambda item: item.start_s):
            self.done += 1
            status = status_of(asking.answer)
            outcome = Outcome.ANSWERED if status else Outcome.REFUSED
            kind = self._kind(asking.name, asking.method, asking.context)
            self._record(asking.start_s, asking.done_s - asking.start_s, outcome, status, kind, asking.answer)
        self._unreported.clear()
        try:
            if self._recorder is not None:
                self._recorder.close()
        except OSError as error:
            self.failure = self.failure or f"the records can't be written: {error}"
        self.finished.set()

    def _asks(self, asking: Asking) -> None:
        if now() > self._last_s and gevent.getcurrent() is not self._life:
            # Not Locust's StopUser, which an `except Exception` of the task's would take for a request that failed;
            # and whoever catches even this one must leave the others time to end.
            gevent.sleep(_REFUSED_AFTER_S)
            raise gevent.GreenletExit
        self.sent += 1
        self._open.add(asking)

    def _leaves(self, asking: Asking, error: BaseException | None) -> None:
        """The client returned, and what the answer is taken for follows; or it was left by an exception."""
        if asking not in self._open:
            return
        self._open.discard(asking)
        if error is None:
            self._unreported.add(asking)
        elif isinstance(error, gevent.GreenletExit):
            self._unfinished(asking)
        elif isinstance(error, gevent.Timeout):
            # The locustfile's own patience, which Locust doesn't report.
            self.done += 1
            self._record_unanswered(asking, Outcome.TIMED_OUT)
        else:
            # An address that is none: the locustfile's, of which nothing was sent, or that of a redirection. Locust
            # doesn't report it, and nobody knows what would have become of it.
            self.sent -= 1
            self.dropped += 1
            self._record_unanswered(asking, Outcome.DROPPED)

    def _unfinished(self, asking: Asking) -> None:
        self.unfinished += 1
        self._record_unanswered(asking, Outcome.UNFINISHED)

    def _record_unanswered(self, asking: Asking, outcome: Outcome) -> None:
        latency_s = max(now() - asking.start_s, self._terms.deadline_s)
        kind = self._kind(asking.name, asking.method, asking.context)
        self._record(asking.start_s, latency_s, outcome, 0, kind, None)

    def _reported(
        self,
        request_type: object = "",
        name: object = "",
        response_time: float | None = 0.0,
        exception: BaseException | None = None,
        context: Mapping[str, object] | None = None,
        response: object = None,
        **_: object,
    ) -> None:
        context = context or {}
        asking = context.get(ASKING)
        latency_s = max(float(response_time or 0.0), 0.0) / 1e3
        if isinstance(asking, Asking):
            start_s = asking.start_s
            self._open.discard(asking)
            self._unreported.discard(asking)
        else:
            start_s = now() - latency_s
            self.sent += 1
        self.done += 1
        outcome, status = outcome_of(response, exception)
        if outcome is Outcome.TIMED_OUT:
            latency_s = max(latency_s, self._terms.deadline_s)
        self._record(start_s, latency_s, outcome, status, self._kind(name, request_type, context), response)
        if not isinstance(asking, Asking) and now() > self._last_s:
            self._end_user()

    def _end_user(self) -> None:
        """What users of other protocols begin is not seen; so they end with what they had begun."""
        if self._runner is not None and gevent.getcurrent() in self._runner.user_greenlets:
            raise gevent.GreenletExit

    def _kind(self, name: object, method: object, context: Mapping[str, object]) -> int:
        labels = {"name": str(name)[:_LONGEST_NAME], "method": str(method)[:_LONGEST_NAME]}
        labels |= {label: str(context[label])[:_LONGEST_NAME] for label in _LABELS_OF_CONTEXT if label in context}
        key = tuple(labels.items())
        known = self._kinds.get(key)
        if known is None:
            known = _OTHER
            if self._recorder is not None:
                made = LabelClass(labels=labels, deadline_ms=self._terms.deadline_s * 1e3)
                known = self._recorder.writer.learn_label(made) or _OTHER
            self._kinds[key] = known
        return known

    def _record(
        self, start_s: float, latency_s: float, outcome: Outcome, status: int, kind: int, response: object
    ) -> None:
        recorder = self._recorder
        if recorder is None or self.finished.is_set():
            return
        fields = getattr(response, "headers", None) or {}
        region = fields.get(self._terms.region_header)
        asked = retry_after(fields.get("Retry-After")) if status in REJECTED else None
        flags = Flag.FINAL
        if asked is not None:
            flags |= Flag.GARBLED if asked.wait_s is None else Flag.RETRY_AFTER
        recorder.writer.add(
            intended_us=max(round((start_s - recorder.epoch_s) * 1e6), 0),
            lag_us=0,
            latency_us=round(latency_s * 1e6),
            job=self._number * self._terms.workers + self._terms.worker,
            status=status,
            labels=kind,
            outcome=outcome,
            flags=int(flags),
            retry_after_s=whole_seconds(asked.wait_s) if asked is not None else 0,
            region=recorder.region(region) if isinstance(region, str) else UNTOLD,
        )
        self._number += 1

    def _user_failed(self, exception: Exception, **_: object) -> None:
        self._count_error(f"{type(exception).__name__}: {exception}")

    def _count_error(self, text: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or text

    def _flush_often(self) -> None:
        while True:
            gevent.sleep(_FLUSH_EVERY_S)
            try:
                self.flush()
            except OSError as error:
                self.fail(f"the records can't be written: {error}")
                return


class _Turns:
    """In the place of a user class's `host`: each user keeps one entry, and they take turns."""

    def __init__(self, entries: tuple[str, ...]) -> None:
        self._entries = entries
        self._next = 0

    def __get__(self, user: User | None, owner: type[User]) -> str:
        if user is None:
            return self._entries[0]
        self._next += 1
        found = user.__dict__["host"] = self._entries[(self._next - 1) % len(self._entries)]
        return found


def outcome_of(response: object, exception: BaseException | None) -> tuple[Outcome, int]:
    """What became of a request that Locust reports; its client may be anybody's."""
    status = status_of(response)
    if exception is None:
        # What the locustfile accepts is a success, whatever its status says.
        return Outcome.ANSWERED, status if 200 <= status < 400 else _ACCEPTED
    if isinstance(exception, CatchResponseError):
        return Outcome.ANSWERED, _NOT_ACCEPTED
    if status:
        return Outcome.ANSWERED, status
    causes = (exception, getattr(exception, "original", None), exception.__cause__, exception.__context__)
    if any(isinstance(cause, gevent.Timeout | TimeoutError) or _says_timeout(cause) for cause in causes):
        return Outcome.TIMED_OUT, 0
    if any(isinstance(cause, OSError | EOFError | HTTPParseError) for cause in causes):
        return Outcome.REFUSED, 0
    return Outcome.ANSWERED, _NOT_ACCEPTED


def status_of(response: object) -> int:
    """0 when it has none."""
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) and 0 < status <= 0xFFFF else 0


def _says_timeout(cause: BaseException | None) -> bool:
    """Libraries have time-outs of their own (requests.Timeout, grpc's DEADLINE_EXCEEDED wrappers), by one name."""
    return cause is not None and any("Timeout" in kind.__name__ for kind in type(cause).__mro__)
