"""Replays the exchanges in which controllers, kubelets and commands act. What they may do differently is left open: how
many steps a status takes, which versions that costs, how fast they are."""

from __future__ import annotations

import json
import re
import time
from itertools import permutations
from typing import Any

import websocket

from fake_cluster import FakeCluster
from fake_cluster.processes import marked
from fake_cluster.recorded import REAL, prepare
from fake_cluster.replay import PLACE, Bindings, Difference, Open, Replay, Told, _keep

IMAGE = "debian:bookworm-slim"
"""What ran on the real nodes: here local processes."""
STEPS_DIFFER = ("WATCH of the Deployment through its life: status over time", "WATCH of the ReplicaSets meanwhile")
"""Of these watches the first and the last event of each object are compared."""
NOT_WAITED_FOR = {"WATCH of a DELETE whose grace is shortened": 2}
"""Beginnings of the names of watches of which only the first events are compared: the rest would take long."""
FILE = "/etc/passwd"
"""A file that is there and no program, on whatever machine; /etc/hostname isn't always."""
Json = dict[str, Any]


class Loose(Bindings):
    """Versions need no order, a time needs only to be one."""

    def _order(self, kind: str, number: int, found: str) -> Difference:
        return ""

    def _bind(self, key: tuple[str, int], found: str) -> Difference:
        if key[0] in ("time", "microtime"):
            self.bound.setdefault(key, found)
            return "" if found[:2] == "20" and found.endswith("Z") else f"{found} is no time"
        return super()._bind(key, found)


def recorded_cluster(cluster: FakeCluster) -> None:
    assert cluster.behaviour is not None
    cluster.behaviour.kubelet.first_ones = True
    prepare(cluster)
    for node in cluster.objects("nodes"):
        cluster.registry.change("nodes", "", node["metadata"]["name"], _as_recorded)
        name, real = node["metadata"]["name"], node["metadata"]["name"] in REAL
        meta: Json = {"name": name, "namespace": "kube-node-lease"}
        if real:
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
            meta["ownerReferences"] = [owner]
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}
        cluster.apply({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec})
    cluster.settle()


def _as_recorded(node: Json) -> None:
    name = node["metadata"]["name"]
    labels, zone = node["metadata"]["labels"], {"n1": "r1a", "n2": "r1b", "n3": "r2a"}
    if name in REAL:
        labels |= {
            "node": "real",
            "topology.kubernetes.io/zone": zone[name],
            "topology.kubernetes.io/region": zone[name][:2],
        }
    if labels["pool"] == "gpu":
        labels["accelerator"] = "nvidia"
    node["status"]["addresses"] = [
        {"type": "InternalIP", "address": "192.0.2.7"}, {"type": "Hostname", "address": name},
    ]  # fmt: skip
    node["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": 0}}


class Acting(Replay):
    def __init__(self, cluster: FakeCluster, name: str, patience_s: float) -> None:
        super().__init__(cluster, name, patience_s)
        self.bindings = Loose()

    def one(self, exchange: Json, place: int) -> list[Difference]:
        text = json.dumps(exchange).replace("/etc/hostname", FILE).replace("%2Fetc%2Fhostname", FILE)
        exchange = json.loads(text.replace('"progressDeadlineSeconds": 15', '"progressDeadlineSeconds": 4'))
        self._rest()
        self._choose(exchange["request"]["path"])
        if "frames" in exchange["response"] or self._asks_websocket(exchange):
            return self._exec(exchange)
        wrong = super().one(exchange, place)
        if exchange["name"] == "Setup: POST api/v1/namespaces exchange-services":
            # what the recorder wrote so that versions moved counts in the quota
            meta = {"name": "recorders", "namespace": "exchange-services"}
            self.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        return wrong

    def _choose(self, path: str) -> None:
        """The recorder looked up a name that a request uses and no answer before showed: any that fits will do."""
        for found in re.finditer(r"/pods/([^/?]*?)<gen:(\d+)>", path):
            begins, key = self.bindings.fill(found[1], ""), ("gen", int(found[2]))
            names = [one["metadata"]["name"] for one in self.cluster.objects("pods")]
            fitting = [name.removeprefix(begins) for name in names if name.startswith(begins)]
            if key not in self.bindings.bound and fitting:
                self.bindings.bound[key] = fitting[0]

    def differences(self, expected: Any, actual: Any, where: str, *more: Any) -> list[Difference]:
        if expected == "<a stream of the upgraded protocol>":
            return []
        if where.endswith(".nodeName") and expected in REAL and actual in REAL:
            return []  # where the scheduler had the choice
        if isinstance(expected, str) and expected.endswith("<host>") and isinstance(actual, str):
            return [] if actual.startswith(expected.removesuffix("<host>")) else [f"{where} is {actual}"]
        return super().differences(expected, actual, where, *more)

    def _rest(self) -> None:
        """Until kubelets have done what they are about to do."""
        until = time.monotonic() + self.patience_s
        self.cluster.settle()
        while time.monotonic() < until and any(_under_way(one) for one in self.cluster.objects("pods")):
            time.sleep(0.01)

    def ask(self, exchange: Json) -> Told:
        told = super().ask(exchange)
        if exchange["request"]["path"].endswith("/token") and isinstance(told.body, dict):
            number = 1 + sum(kind == "token" for kind, _ in self.bindings.bound)
            self.bindings.bound["token", number] = told.body["status"]["token"]
        return told

    # -- comparing

    def compare(self, exchange: Json, told: Told) -> list[Difference]:
        expected, body = exchange["response"], told.body
        if "kept" in expected and isinstance(body, dict) and str(body.get("kind")).endswith("List"):
            items = [_cut(item, expected["kept"]) for item in body["items"]]
            return self._in_any_order({**exchange, "response": _without_kept(expected)}, told, items)
        if told.body is None and expected.get("body") == "":
            told.body = ""
        return super().compare(exchange, told)

    def _in_any_order(self, exchange: Json, told: Told, items: list[Json]) -> list[Difference]:
        """A list stands in the order of its names, and these may be drawn by lot."""
        drawn = "<hash:" in json.dumps(exchange["response"]["body"]["items"])
        best: list[Difference] = []
        for order in permutations(items) if drawn and len(items) < 5 else [tuple(items)]:
            kept = dict(self.bindings.bound)
            wrong = super().compare(exchange, Told(told.status, told.headers, {**told.body, "items": list(order)}))
            if not wrong:
                return []
            self.bindings.bound = kept
            best = wrong if not best or len(wrong) < len(best) else best
        return best

    def _closed(self, watch: Open) -> list[Difference]:
        wanted = [event["line"] for event in watch.exchange["response"]["events"]]
        name, lines = watch.exchange["name"], watch.told.lines
        first = next((count for begins, count in NOT_WAITED_FOR.items() if name.startswith(begins)), len(wanted))
        wanted = wanted[:first]
        if name in STEPS_DIFFER:
            wanted = _first_and_last(wanted)
        until = time.monotonic() + max(self.patience_s, 2.0)
        while (wrong := self._in_order(wanted, list(lines))) and time.monotonic() < until:
            time.sleep(0.05)
        if watch.connection.sock is not None:
            watch.connection.sock.close()
        return wrong

    def _in_order(self, wanted: list[Json], lines: list[Json]) -> list[Difference]:
        """Each line is there, after the one before; between them may be others, and there may be more in them."""
        at = 0
        for number, line in enumerate(wanted):
            found: list[Difference] = [f"there are only {len(lines)} events"]
            while at < len(lines):
                kept = dict(self.bindings.bound)
                wrong = self.differences(line, _like(line, lines[at]), f"events[{number}]")
                at += 1
                if not wrong:
                    break
                if line["type"] == lines[at - 1]["type"]:
                    found = wrong
                self.bindings.bound = kept
            else:
                return found
        return []

    # -- websockets

    @staticmethod
    def _asks_websocket(exchange: Json) -> bool:
        request = exchange["request"]
        asked = (request.get("headers") or {}).get("Upgrade") == "websocket"
        return asked and request["method"] == "GET"

    def _exec(self, exchange: Json) -> list[Difference]:
        request, expected = exchange["request"], exchange["response"]
        headers = {"Authorization": "Bearer admin"} | {
            key: self.bindings.fill(value, "") for key, value in request["headers"].items()
        }
        protocol = headers.pop("Sec-WebSocket-Protocol", None)
        headers.pop("Upgrade")
        url = f"ws://127.0.0.1:{self.cluster.port}{self.bindings.fill(request['path'], '', escape=True)}"
        try:
            ws = websocket.create_connection(
                url, subprotocols=[one.strip() for one in protocol.split(",")] if protocol else None, timeout=10,
                header=[f"{key}: {value}" for key, value in headers.items()],
            )  # fmt: skip
        except websocket.WebSocketBadStatusException as refused:
            return self._refused(exchange, refused)
        if expected["status"] != 101:
            return [f"status 101, not {expected['status']}"]
        wrong = [] if ws.subprotocol == expected["subprotocol"] else [f"subprotocol {ws.subprotocol}"]
        try:
            return wrong + self._frames(exchange, ws)
        finally:
            ws.close(timeout=0)

    def _refused(self, exchange: Json, refused: websocket.WebSocketBadStatusException) -> list[Difference]:
        from fake_cluster.replay import _parsed

        headers = {key.title(): value for key, value in (refused.resp_headers or {}).items()}
        raw = refused.resp_body or b""
        body = _parsed(raw, headers.get("Content-Type", "")) if raw else ""
        return self.compare(exchange, Told(refused.status_code, headers, body))

    def _frames(self, exchange: Json, ws: websocket.WebSocket) -> list[Difference]:
        much = "frames with output are left out" in (exchange["notes"] or "")
        sizes: list[int] = []
        for number, frame in enumerate(exchange["response"]["frames"]):
            if frame.get("from") == "client":
                ws.send(bytes.fromhex(frame["hex"]), websocket.ABNF.OPCODE_BINARY)
                continue
            opcode, data = ws.recv_data()
            while much and opcode == websocket.ABNF.OPCODE_BINARY and data[0] == 1 and len(data) > 1:
                sizes.append(len(data) - 1)
                opcode, data = ws.recv_data()
            if wrong := self._frame(frame, opcode, data):
                return [f"frame {number}: {one}" for one in wrong]
            if number == 0 and "is deleted while a command runs" in exchange["name"]:
                self._delete_under(exchange)
        if much and (sum(sizes) != 100_000 or max(sizes) > 32_768):
            return [f"{sum(sizes)} bytes, the largest frame had {max(sizes)}"]
        return []

    def _delete_under(self, exchange: Json) -> None:
        uid = (self.cluster.registry.read("pods", "exchange-exec", "two") or {})["metadata"]["uid"]
        before = time.monotonic() + 5
        while len(marked([uid])) < 3 and time.monotonic() < before:
            time.sleep(0.01)  # until the command runs: two containers, and it
        self.cluster.registry.end("pods", "exchange-exec", "two", grace=1)

    def _frame(self, frame: Json, opcode: int, data: bytes) -> list[Difference]:
        kinds = {websocket.ABNF.OPCODE_TEXT: "text", websocket.ABNF.OPCODE_BINARY: "binary"}
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return [] if frame["opcode"] == "close" else [f"closed, not {frame}"]
        if frame["opcode"] != kinds[opcode]:
            return [f"{kinds[opcode]} {data[:200]!r}, not {frame['opcode']}"]
        channel, text = data[0] - (48 if opcode == websocket.ABNF.OPCODE_TEXT else 0), data[1:].decode()
        if channel != frame["channel"]:
            return [f"channel {channel} {text[:200]!r}, not {frame['channel']}"]
        if PLACE.search(frame["text"]):
            told = self.bindings.meet(frame["text"], text)
            return [told] if told else []
        return [] if frame["text"] == text else [f"{text[:300]!r}, not {frame['text'][:300]!r}"]


def _under_way(pod: Json) -> bool:
    """A container is about to start, or to end by itself."""
    status, spec = pod["status"], pod["spec"]
    if not spec.get("nodeName") or pod["metadata"].get("deletionTimestamp"):
        return False
    waiting = [
        (one["state"].get("waiting") or {}).get("reason", "")
        for one in status.get("containerStatuses") or [{"state": {}}]
    ]
    if status["phase"] == "Pending":
        return not any(reason.startswith(("ErrImage", "ImagePull")) for reason in waiting)
    ends = "exit" in " ".join(spec["containers"][0].get("command") or []).rpartition(";")[2]
    ends = ends and "trap" not in spec["containers"][0]["command"][-1]
    if spec["restartPolicy"] == "Never":
        return ends and status["phase"] == "Running"
    return ends and "CrashLoopBackOff" not in waiting


def _without_kept(expected: Json) -> Json:
    return {key: value for key, value in expected.items() if key != "kept"}


def _cut(item: Json, paths: list[str]) -> Json:
    cut: Json = {}
    for path in paths:
        if path not in ("kind", "apiVersion"):
            _keep(item, cut, path.split("."))
    return cut


def _like(wanted: Any, got: Any) -> Any:
    """What came, without what was not recorded of it."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return {key: _like(wanted[key], got[key]) for key in got if key in wanted}
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        return [_like(one, other) for one, other in zip(wanted, got, strict=True)]
    return got


def _first_and_last(lines: list[Json]) -> list[Json]:
    names = [line["object"]["metadata"]["name"] for line in lines]
    ends = {names.index(name) for name in names}
    return [line for at, line in enumerate(lines) if at in ends or at == len(lines) - 1]
