"""A small system for real runs: HTTP servers of the standard library, a counter of what they served, an alert."""

from __future__ import annotations

import sys
import textwrap

from stormdrill.model.experiment import Experiment, FaultUse, Objective, Phases
from stormdrill.model.expression import Expression
from stormdrill.model.system import MetricSource, Ready, ServiceInstance, System

SERVER = textwrap.dedent(
    """
    import http.server, os, sys, threading

    served = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            global served
            if self.path == "/metrics":
                body = f"served_total {served}\\nqueue_depth 3\\n".encode()
            else:
                served += 1
                body = b"ok"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
)


def server(name: str, region: str, command: tuple[str, ...] | None = None, ready: bool = True) -> ServiceInstance:
    return ServiceInstance(
        name=name,
        service="web",
        command=command or (sys.executable, "-c", SERVER, "$port"),
        labels={"region": region},
        ready=Ready(path="/") if ready else None,
    )


def system(*instances: ServiceInstance, ready_timeout_s: float = 10.0) -> System:
    return System(
        name="small",
        entry="web",
        instances=instances or (server("web-eu", "eu"), server("web-us", "us")),
        labels=("region",),
        metrics=(MetricSource("queue_depth", "web", "queue_depth"),),
        served=MetricSource("served", "web", "served_total"),
        ready_timeout_s=ready_timeout_s,
    )


def experiment(
    mode: str = "freeze",
    phases: Phases | None = None,
    objectives: tuple[Objective, ...] = (),
    guards: tuple[Expression, ...] = (),
) -> Experiment:
    return Experiment(
        name="small",
        title="A small system loses a region",
        hypothesis="it comes back",
        owner="tests",
        system="small",
        phases=phases or Phases(0.0, 0.2, 0.4, 0.2),
        faults=(FaultUse("region-loss", {"region": "eu", "mode": mode}),),
        objectives=objectives,
        guards=guards,
    )
