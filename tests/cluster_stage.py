"""A stage on which runner, watchdog, a second runner and a person act in an order that a test chooses.

Each actor is a thread that stops before every request and every pause until it is its turn; time is what the stage
says. A request may be lost before or after it took effect, or arrive much later. So what a test sees depends on its
choices alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from stormdrill.cluster import asking, heart, hold, lease, recovering, reverting, setting, vigil, watchdog
from stormdrill.cluster.api import Access, Answer, Api, Lost

TIMED = (asking, heart, hold, lease, recovering, setting, watchdog)
REQUEST_S = 0.005
GO, LATE, LOST_AFTER, LOST_BEFORE, BUSY = "go", "late", "lost-after", "lost-before", "503"


class Killed(BaseException):
    """The actor's process was killed."""


@dataclass(eq=False)
class Actor:
    name: str
    thread: threading.Thread
    turn: threading.Event = field(default_factory=threading.Event)
    wake_s: float = 0.0
    parked: bool = False
    over: bool = False
    killed: bool = False
    fate: str = GO
    asks: str = ""
    """METHOD path of the request it is about to send; empty for a pause."""
    error: BaseException | None = None


@dataclass
class Stage:
    now_s: float = 1000.0
    actors: list[Actor] = field(default_factory=list)
    late: list[tuple[str, Callable[[], Any]]] = field(default_factory=list)
    """Requests whose sender has given up, and that may still arrive."""
    delivered: list[str] = field(default_factory=list)
    """Of those, which have."""
    jobs: list[str] = field(default_factory=list)
    """Runs whose watchdog's Job was made and isn't played yet."""
    said: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    # the actors' side

    def spawn(self, name: str, play: Callable[[], None]) -> Actor:
        def body() -> None:
            try:
                self._park(actor, self.now_s)
                play()
            except Killed:
                pass
            except BaseException as error:
                actor.error = error
            finally:
                with self._changed:
                    actor.over, actor.parked = True, True
                    self._changed.notify_all()

        actor = Actor(name, threading.Thread(target=body, name=name, daemon=True))
        self.actors.append(actor)
        actor.thread.start()
        return actor

    def sleep(self, pause_s: float) -> None:
        self._park(self._me(), self.now_s + max(0.0, pause_s))

    def turn(self, asks: str) -> str:
        me = self._me()
        me.asks = asks
        try:
            self._park(me, self.now_s)
        finally:
            me.asks = ""
        self.now_s += REQUEST_S
        return me.fate

    def _me(self) -> Actor:
        here = threading.current_thread()
        return next(actor for actor in self.actors if actor.thread is here)

    def _park(self, me: Actor, wake_s: float) -> None:
        if me.killed:
            raise Killed
        with self._changed:
            me.wake_s, me.parked = wake_s, True
            self._changed.notify_all()
        assert me.turn.wait(30.0), f"{me.name}: nobody gave it a turn"
        me.turn.clear()
        if me.killed:
            raise Killed

    # the test's side

    def waiting(self) -> list[Actor]:
        """Whose turn it may be, the one that is due first at the head."""
        with self._changed:
            assert self._changed.wait_for(lambda: all(actor.parked for actor in self.actors), 30.0), "an actor hangs"
            return sorted((a for a in self.actors if not a.over), key=lambda actor: actor.wake_s)

    def give(self, actor: Actor, fate: str = GO) -> None:
        """Let it go on to its next request or pause, and wait until it is there."""
        self.now_s = max(self.now_s, actor.wake_s)
        actor.fate, actor.parked = fate, False
        actor.turn.set()
        self.waiting()

    def kill(self, *names: str) -> None:
        for actor in self.waiting():
            if actor.name in names:
                actor.killed = True
                self.give(actor)

    def deliver(self, index: int) -> None:
        what, send = self.late.pop(index)
        self.delivered.append(what)
        send()

    def end(self) -> None:
        self.kill(*(actor.name for actor in self.actors))

    @contextmanager
    def time(self) -> Iterator[None]:
        """The time of the stage for everything in `stormdrill.cluster` but the transport."""
        clock = SimpleNamespace(
            monotonic=lambda: self.now_s, sleep=self.sleep, clock_gettime=lambda _: self.now_s, CLOCK_BOOTTIME=7
        )
        patches = [patch.object(module, "time", clock) for module in TIMED]
        patches.append(patch.object(reverting, "ThreadPoolExecutor", _OneByOne))
        stage = self

        def start(beating: heart.Heart) -> None:
            beating._over = _Event(stage)  # type: ignore[assignment]
            stage.spawn(f"heart of {beating.ledger.run}", beating._go)

        patches.append(patch.object(heart.Heart, "start", start))
        patches.append(patch.object(vigil.Vigil, "start", lambda _: None))  # there is a watchdog when the test says so
        for each in patches:
            each.start()
        try:
            yield
        finally:
            self.end()
            for each in patches:
                each.stop()


class StagedApi(Api):
    """Each request waits for its turn, and meets the fate that the test has chosen."""

    def __init__(self, access: Access, stage: Stage) -> None:
        super().__init__(access)
        self.stage = stage

    def call(self, method: str, path: str, body: object = None, **options: Any) -> Answer:
        what = f"{method} {path}"
        fate = self.stage.turn(what)
        options.pop("limit_s", None)

        def send() -> Answer:
            answer = Api.call(self, method, path, body, **options)
            if method == "POST" and path.endswith("/jobs") and answer.good:
                self.stage.jobs.append(str(answer.read()["metadata"]["labels"]["stormdrill"]))  # type: ignore[index]
            return answer

        if fate == LOST_BEFORE:
            raise Lost(f"{what}: lost before it arrived", sent=False)
        if fate == LATE and method != "GET":
            self.stage.late.append((f"{what} {body}", send))
            raise Lost(f"{what}: nothing heard", sent=True)
        if fate == BUSY:
            return Answer(503, {}, b'{"kind":"Status","message":"busy"}')
        answer = send()
        if fate in (LOST_AFTER, LATE):
            raise Lost(f"{what}: the answer was lost", sent=True)
        return answer


class _Event:
    def __init__(self, stage: Stage) -> None:
        self.stage, self.isset = stage, False

    def set(self) -> None:
        self.isset = True

    def is_set(self) -> bool:
        return self.isset

    def wait(self, pause_s: float) -> bool:
        self.stage.sleep(pause_s)
        return self.isset


class _OneByOne:
    def __init__(self, _: int) -> None:
        pass

    def __enter__(self) -> _OneByOne:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, does: Callable[[Any], Any], things: Any) -> Iterator[Any]:
        return iter([does(thing) for thing in things])
