"""Whatever was armed, there is room for what becomes of it, and for closing the ledger."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import cluster_rig as rig
from stormdrill.cluster import naming
from stormdrill.cluster.api import JSON_PATCH, Answer, Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.ledger import CLOSED, REVERTING, Armed, Ended, Full, Ledger
from stormdrill.model.undo import KubePatch

MOST = 1 << 20
"""Bytes of a ConfigMap's data, as an API server counts them."""
BATCH = 100


class OneMap(Api):
    """An API server with one ConfigMap, which takes no data of more than 1 MiB. The fake cluster has that rule too, but
    copies the object for each operation."""

    def __init__(self) -> None:
        self.there: dict[str, Any] = {}

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        if method == "POST":
            self.there = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        elif method == "PATCH":
            data = dict(self.there["data"])
            if options["content_type"] == JSON_PATCH:
                for op in body:
                    if op["op"] == "add":
                        data[op["path"].removeprefix("/data/")] = op["value"]
            else:
                data.update(body["data"])
            if sum(len(value.encode()) for value in data.values()) > MOST:
                return Answer(422, {}, b'{"kind":"Status","reason":"Invalid","message":"Too long"}')
            self.there["data"] = data
        return Answer(200, {}, json.dumps(self.there).encode())


def entry(number: int, name: str) -> Armed:
    injection = f"region-loss@1/{name}-{number}"
    path = f"/api/v1/nodes/{name}-{number}"
    word = KubePatch("", path, "0" * 36, naming.marker("r1", injection), (rig.taint("r1"), rig.cordon()))
    return Armed(injection, (word,), 600.0, number)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.text("abcdefghij-0123456789.ü\U0001f300", min_size=1, max_size=120),
    detail=st.text(min_size=0, max_size=30),
    times=st.integers(1, 400),
    word=st.sampled_from(["done", "superseded", "failed", REVERTING]),
)
@example(name="ip-10-11-12.eu-central-1.compute.internal", detail="put back: spec.taints; ", times=20, word="done")
def test_all_that_fits_can_be_ended_and_the_ledger_closed(name: str, detail: str, times: int, word: str) -> None:
    server = OneMap()
    made = Ledger(server, rig.SUITE, "r1")
    made.create({"run": "r1", "needs": ["x" * 60] * 100}, "platform")
    armed: list[Armed] = []
    with contextlib.suppress(Full):
        while True:
            batch = [entry(len(armed) + n, name) for n in range(BATCH)]
            made.arm(batch, Until(0.5))
            armed += batch
    assert len(armed) >= BATCH
    seen = "a look into the container"
    made.end([Ended(one.injection, Undone(word, detail * times, seen), "watchdog") for one in armed], Until(0.5))
    made.write({"watchdog": json.dumps({"said": "x" * 60_000})}, Until(0.5), while_open=False)
    for state in (REVERTING, CLOSED):
        made.turn(state, "ü" * 5000, Until(0.5))
    assert server.there["data"]["state"] == CLOSED
