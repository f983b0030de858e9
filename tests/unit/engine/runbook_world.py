"""A small admin API that really listens, a keeper in memory, and a person with prepared answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stormdrill.errors import KeeperGone
from stormdrill.model.event import Armed, Event, Reverted, RevertStarted
from stormdrill.model.undo import Call, Command, Undo, undo_to_json
from stormdrill.ports import Held, Spawned
from stormdrill.probes.call import Calls
from stormdrill.spec.runbook import parse_runbook

FRONT = """---
title: A test
answers: [RegionDown]
service: platform
owner: serving
escalation: nobody
severity: SEV-3
parameters:
  region: {from: alert.labels.region, choices: [eu, us], default: eu}
  admin: {from: system.admin}
exit: success > 98% for 1s
---
"""


def runbook_of(*blocks: str, front: str = FRONT):
    return parse_runbook("test.md", front + "\n\n".join(blocks) + "\n")


def block(info: str, *lines: str) -> str:
    return "\n".join([f"```{info}", *lines, "```"])


class Admin:
    """Regions, a shed level and room, as a platform's admin API has them."""

    def __init__(self) -> None:
        self.regions = {
            "eu": {"healthy": False, "draining": False, "elsewhere": True},
            "us": {"healthy": True, "draining": False, "elsewhere": False},
        }
        self.level: object = 0
        self.headroom: object = -4
        self.calls: list[str] = []
        self.on_post: Callable[[str], tuple[int, float]] = lambda path: (200, 0.0)
        """Path → status, and how long to wait after acting and before answering."""
        self.lock = threading.Lock()
        self.url = ""

    def get(self, path: str) -> object:
        if path.startswith("/regions/"):
            return self.regions.get(path.split("/")[2])
        return {"/shed-level": {"level": self.level}, "/capacity": {"headroom": self.headroom}}.get(path)

    def post(self, path: str, body: dict[str, object]) -> None:
        parts = path.strip("/").split("/")
        if parts[0] == "regions":
            self.regions[parts[1]]["draining"] = parts[2] == "drain"
        elif parts[0] == "shed-level":
            self.level = body["level"]


@contextmanager
def admin_server() -> Iterator[Admin]:
    admin = Admin()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with admin.lock:
                admin.calls.append(f"GET {self.path}")
                found = admin.get(self.path)
            self.answer(404 if found is None else 200, found)

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, wait_s = admin.on_post(self.path)
            with admin.lock:
                admin.calls.append(f"POST {self.path} {raw}".rstrip())
                if status < 300:
                    admin.post(self.path, json.loads(raw or "{}"))
            time.sleep(wait_s)
            self.answer(status, {})

        def answer(self, status: int, found: object) -> None:
            data = json.dumps(found).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    admin.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield admin
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class MemoryKeeper:
    """Records into a list and executes undos by real calls; `refuse` names event types that cannot be written."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.refuse: set[str] = set()
        self.undos: dict[str, tuple[Undo, ...]] = {}
        self.expiries: dict[str, float] = {}

    def record(self, event: Event, mono_ms: float | None = None) -> int:
        if event.type in self.refuse:
            raise KeeperGone("the disk is full")
        self.events.append(event)
        return len(self.events)

    def arm(self, injection, *, fault, instance, mechanism, undo, expires_in_s) -> None:
        self.record(Armed(injection, fault, instance, mechanism, [undo_to_json(one) for one in undo], 0.0, ""))
        self.undos[injection] = tuple(undo)
        self.expiries[injection] = expires_in_s

    def revert(self, injection: str, cause: str) -> str:
        outcome = "done"
        self.record(RevertStarted(injection, cause, "keeper"))
        for undo in self.undos.pop(injection, ()):
            if isinstance(undo, Call):
                reply = Calls().http(undo.method, undo.url, undo.body, undo.timeout_s)
                outcome = outcome if 200 <= reply.status < 300 and not reply.error else "failed"
            elif isinstance(undo, Command):
                outcome = outcome if Calls().command(undo.argv, undo.timeout_s).code == 0 else "failed"
        self.record(Reverted(injection, outcome, "", 0.0))
        return outcome

    def disarm(self, injection: str) -> None:
        self.undos.pop(injection)
        self.record(Reverted(injection, "superseded", "", 0.0))

    def spawn(self, *args: object, **kwargs: object) -> Spawned:
        raise AssertionError("a runbook spawns nothing")

    def stop(self, instance: str, timeout_s: float) -> None:
        raise AssertionError("a runbook stops nothing")

    def teardown(self) -> list[str]:
        return []

    def close(self, status: str, reason: str) -> str:
        return ""

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


class Answers:
    """A person whose answers are prepared: question kind → answer, or a function of the question."""

    name = "ada"

    def __init__(self, **answers) -> None:
        self.answers, self.asked = answers, []

    def ask(self, question, timeout_s, cancelled):
        self.asked.append(question)
        answer = self.answers.get(question.kind)
        return answer(question, timeout_s, cancelled) if callable(answer) else answer


class Eyes:
    """Live data that follows a script: one `Held` after another, the last one for ever."""

    def __init__(self, *script: Held) -> None:
        self.script, self.looks = list(script), 0

    def evaluate(self, expression: object) -> Held:
        self.looks += 1
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def wait_for(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


REPOSITORY = Path(__file__).resolve().parents[3]
