"""What whole runs on a cluster leave behind when they are killed or refused: nothing, and never a secret."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import textwrap
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_shop import PODS, SHOP, SUITE, Shop, outcome, printed_rules, shop

from stormdrill.model.event import (
    CauseChanged,
    ClusterHeld,
    EffectObserved,
    Injected,
    KeeperStarted,
    Reverted,
    RunEnded,
    StepFinished,
)

LIMIT_S = 180.0
KEPT, HELD = "DB_PASSWORD", "hunter2-prod"
pytestmark = [pytest.mark.real, pytest.mark.timeout(LIMIT_S)]
DESK = textwrap.dedent(
    """
    import http.server, json, os

    class Handler(http.server.BaseHTTPRequestHandler):
        level = 1

        def do_GET(self):
            body = json.dumps({"level": Handler.level}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            Handler.level = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["level"]
            self.do_GET()

        def log_message(self, *args):
            pass

    http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
    """
)
BOOK = """---
title: Refuse what may wait
answers: [Slow]
service: shop
owner: tests
escalation: nobody
severity: SEV-3
parameters:
  admin: {from: system.admin}
exit: success{region=us} > 1%
---
```action id=shed timeout=5s risk=low idempotent undo=unshed
capture: before = GET {{ admin }}/level .level
POST {{ admin }}/level {"level": 3}
verify: GET {{ admin }}/level .level == 3
```

```undo id=unshed
POST {{ admin }}/level {"level": {{ captured.before }}}
```
"""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as found:
        found.as_user("admin")
        yield found


def allow(at: Shop) -> None:
    """What `plan --rbac` prints, applied."""
    at.cluster.apply(printed_rules(at))


def rewrite(at: Shop, name: str, old: str, new: str) -> None:
    path = at.root / "experiments" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def drill(at: Shop) -> subprocess.Popen[str]:
    return at.repository.start("run", "experiments/shop.yaml", "--target", "kubernetes", "--json")


def deployment(name: str, *argv: str, env: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """One pod of the shop's image that knows its own address."""
    labels = {"app": name}
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    ports = [{"containerPort": 8080}]
    container = {"name": name, "image": SHOP, "command": list(argv), "ports": ports, "env": [address, *env]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def addresses(at: Shop, app: str) -> list[str]:
    """Of the pods that are told to be ready."""
    pods = [one for one in at.cluster.objects("pods", "shop") if one["metadata"]["labels"].get("app") == app]
    told = [(one["status"].get("podIP"), one["status"].get("conditions", ())) for one in pods]
    return [ip for ip, all_ in told if any(one["type"] == "Ready" and one["status"] == "True" for one in all_)]


def level(at: Shop) -> bytes:
    (address,) = addresses(at, "desk")
    with urllib.request.urlopen(f"http://{address}:8080/level", timeout=5) as answer:
        return bytes(answer.read())


def test_what_a_runbook_had_changed_when_its_runner_was_killed_is_taken_back_by_recover(at: Shop) -> None:
    at.lay_out(PODS, fault="60s")
    rewrite(at, "systems/shop.yaml", "    front:", "    desk: {select: {app: desk}, port: 8080}\n    front:")
    rewrite(at, "systems/shop.yaml", "entry: web", "entry: web\nadmin: desk")
    start = "runbook: {run: shed, start: 'success{region=us} < 1%', else_after: 1s}"
    rewrite(at, "shop.yaml", "guards: []", f"guards: []\n{start}")
    (at.root / "runbooks").mkdir()
    (at.root / "runbooks" / "shed.md").write_text(BOOK)
    at.cluster.apply(deployment("desk", "python3", "-c", DESK))
    at.eventually(lambda: addresses(at, "desk"), what="the desk never got ready")
    allow(at)
    process = drill(at)
    at.eventually(lambda: at.of(StepFinished) or process.poll() is not None, what="the runbook did nothing")
    assert process.poll() is None, process.communicate()[1]
    assert (level(at), bool(at.causes())) == (b'{"level": 3}', True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    at.eventually(lambda: at.of(RunEnded) and at.causes() == [])
    assert at.of(RunEnded)[-1].status == "dirty"
    assert level(at) == b'{"level": 3}', "nobody has a way to it"
    recovered = at.repository.command("recover", at.run_dir.name)
    assert recovered.returncode == 0, recovered.stderr + recovered.stdout
    assert level(at) == b'{"level": 1}'
    assert at.of(RunEnded)[-1].status == "aborted"
    assert at.left_behind() == []


def test_without_ledger_and_without_a_watchdog_that_remembers_the_runs_own_record_reverts_it(at: Shop) -> None:
    at.lay_out(PODS, fault="60s")
    allow(at)
    process = drill(at)
    at.eventually(lambda: at.of(EffectObserved) or process.poll() is not None, what="it never bit")
    assert process.poll() is None, process.communicate()[1]
    (held,) = at.of(ClusterHeld)
    os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(at.of(KeeperStarted)[0].pid, signal.SIGKILL)
    process.communicate()
    for pod in at.cluster.objects("pods", held.suite):
        at.cluster.registry.end("pods", held.suite, pod["metadata"]["name"])
    assert at.cluster.registry.end("configmaps", held.suite, held.ledger)
    assert at.causes(), "nobody is left who would know of it"
    recovered = at.repository.command("recover", at.run_dir.name)
    assert recovered.returncode == 0, recovered.stderr + recovered.stdout
    assert at.causes() == []
    assert at.cluster.objects("jobs", held.suite) == []


def test_an_image_that_can_not_be_pulled_is_refused_and_nothing_is_left(at: Shop) -> None:
    at.lay_out(PODS)
    rewrite(at, "systems/shop.yaml", SUITE, "stormdrill.invalid/none:1")
    allow(at)
    before = at.cluster.snapshot()
    process = drill(at)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    (problem,) = outcome(out)["problems"]
    assert "the watchdog (stormdrill.invalid/none:1) did not begin: " in problem["what"]
    assert "ImagePullBackOff" in problem["what"]
    assert at.of(Injected) == []

    def left() -> dict[str, Any]:
        now = at.cluster.snapshot()
        return {name: now.get(name) for name in {*before, *now} if now.get(name) != before.get(name)}

    at.eventually(lambda: len(left()) <= 1, what="more than a Lease is left")
    (name,) = left()
    assert name == "leases.coordination.k8s.io/stormdrill/stormdrill-shop", "it stays, held by nobody"
    assert at.left_behind() == []


def releasing(at: Shop, **variables: str) -> None:
    """A drill that rolls a release out which sets these, on pods that hold a secret in clear."""
    held = [{"name": KEPT, "value": HELD}, {"name": "MODE", "value": "1"}]
    at.cluster.registry.change(
        "deployments",
        "shop",
        "web-eu",
        lambda there: there["spec"]["template"]["spec"]["containers"][0]["env"].extend(held),
    )
    env = ", ".join(f'{name}: "{value}"' for name, value in variables.items())
    at.lay_out("bad-release: {mode: release, release: next, region: eu}", fault="4s")
    rewrite(at, "systems/shop.yaml", "  services:", f"  releases: {{next: {{of: web, env: {{{env}}}}}}}\n  services:")


def holding(at: Shop, asked: int, *told: str) -> list[str]:
    """Where that secret stands of all that runs have written since: files, objects, and what was printed."""
    found = [str(path) for path in at.root.rglob("*") if path.is_file() and HELD.encode() in path.read_bytes()]
    found += [f"{one.method} {one.path}" for one in at.cluster.requests[asked:] if HELD.encode() in one.body]
    return found + [f"printed: {text}" for text in told if HELD in text]


def test_a_secret_that_a_release_would_replace_is_refused_and_stands_nowhere(at: Shop) -> None:
    releasing(at, MODE="2", **{KEPT: "wrong"})
    asked = len(at.cluster.requests)
    process = drill(at)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    (problem,) = outcome(out)["problems"]
    assert f"variable {KEPT} of container web" in problem["what"]
    assert "secretKeyRef" in problem["what"]
    assert [one.path for one in at.cluster.requests[asked:] if one.method == "PATCH"] == []
    assert at.left_behind() == []
    assert holding(at, asked, out, err) == []


def test_what_somebody_gives_a_container_during_a_fault_stands_nowhere(at: Shop) -> None:
    releasing(at, MODE="2")
    allow(at)
    asked = len(at.cluster.requests)
    process = drill(at)
    at.eventually(lambda: at.of(EffectObserved) or process.poll() is not None, what="it never bit")
    assert process.poll() is None, process.communicate()[1]

    def give(there: dict[str, Any]) -> None:
        (mode,) = (one for one in there["spec"]["template"]["spec"]["containers"][0]["env"] if one["name"] == "MODE")
        assert mode["value"] == "2"
        mode["value"] = HELD

    at.cluster.registry.change("deployments", "shop", "web-eu", give)
    out, err = process.communicate(timeout=90)
    told = at.of(Reverted)[-1]
    assert told.outcome == "superseded", err
    assert "env.[name=MODE] is set" in told.detail
    assert at.of(CauseChanged)
    assert at.left_behind() == []
    assert holding(at, asked, out, err) == []
