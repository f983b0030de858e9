"""exec and port-forward of the fake cluster, as clients see them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from fake_cluster import FakeCluster
from fake_cluster.processes import marked
from stormdrill.cluster.api import Api
from waiting import eventually

Obj = dict[str, Any]
IMAGE = "stormdrill:test"
ECHO = (
    "import os,socket,threading\n"
    "def serve(c):\n"
    "    while (d := c.recv(65536)): c.sendall(d.upper())\n"
    "    c.close()\n"
    "s=socket.create_server((os.environ['IP'], 7001))\n"
    "while True: threading.Thread(target=serve, args=[s.accept()[0]], daemon=True).start()\n"
)


def pod(name: str, image: str, program: str = "") -> Obj:
    container = {
        "name": "c", "image": image, "command": ["python", "-c", program],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }  # fmt: skip
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(run_images={IMAGE}) as made:
        made.nodes(1)
        made.apply([pod("said", "c:1"), pod("real", IMAGE, ECHO)])
        made.settle()
        yield made


def connect(cluster: FakeCluster, name: str, query: str, protocol: str = "v5.channel.k8s.io") -> websocket.WebSocket:
    url = f"{cluster.url.replace('http', 'ws')}/api/v1/namespaces/default/pods/{name}/{query}"
    return websocket.create_connection(url, subprotocols=[protocol], header=["Authorization: Bearer admin"], timeout=20)


def uid_of(cluster: FakeCluster, name: str) -> str:
    return str((cluster.read(f"/api/v1/namespaces/default/pods/{name}") or {})["metadata"]["uid"])


def test_a_command_sees_the_environment_of_its_pod(cluster: FakeCluster) -> None:
    ws = connect(cluster, "real", "exec?stdout=true&command=sh&command=-c&command=echo+$IP+$HOSTNAME")
    assert ws.recv() == b"\x01"
    ip = (cluster.read("/api/v1/namespaces/default/pods/real") or {})["status"]["podIP"]
    assert ws.recv() == f"\x01{ip} real\n".encode()
    assert ws.recv() == b'\x03{"metadata":{},"status":"Success"}'
    assert ws.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE


@pytest.mark.parametrize("how", ["the v5 frame", "the end of the connection"])
def test_stdin_ends(cluster: FakeCluster, tmp_path: Path, how: str) -> None:
    begun, over = tmp_path / "begun", tmp_path / "over"
    script = f"touch+{begun};cat;touch+{over}"
    ws = connect(cluster, "said", f"exec?stdout=true&stdin=true&command=sh&command=-c&command={script}")
    ws.send_binary(b"\0hi\n")
    assert [ws.recv(), ws.recv()] == [b"\x01", b"\x01hi\n"]
    assert begun.exists()
    assert not over.exists()
    if how == "the v5 frame":
        ws.send_binary(b"\xff\x00")
        assert ws.recv() == b'\x03{"metadata":{},"status":"Success"}'
    else:
        ws.shutdown()
    eventually(over.exists)


@pytest.mark.parametrize("name", ["said", "real"])
def test_a_command_ends_with_its_pod(cluster: FakeCluster, name: str) -> None:
    uid = uid_of(cluster, name)
    ws = connect(cluster, name, "exec?stdout=true&command=sleep&command=600", "v4.channel.k8s.io")
    assert ws.recv() == b"\x01"
    eventually(lambda: any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in marked([uid])))
    cluster.registry.end("pods", "default", name, grace=0)
    assert b"exit code 137" in ws.recv()
    eventually(lambda: not marked([uid]))


def test_nothing_executed_outlives_the_cluster() -> None:
    with FakeCluster() as cluster:
        cluster.nodes(1)
        cluster.apply(pod("said", "c:1"))
        cluster.settle()
        uid = uid_of(cluster, "said")
        ws = connect(cluster, "said", "exec?stdout=true&command=sleep&command=600")
        ws.recv()
        eventually(lambda: marked([uid]))
    assert not marked([uid])


def test_what_is_forwarded_goes_both_ways_on_each_port(cluster: FakeCluster) -> None:
    ip = (cluster.read("/api/v1/namespaces/default/pods/real") or {})["status"]["podIP"]
    eventually(lambda: _answers(ip))
    ws = connect(cluster, "real", "portforward?ports=7001&ports=7001", "v4.channel.k8s.io")
    port = (7001).to_bytes(2, "little")
    assert [ws.recv() for _ in range(4)] == [bytes([channel]) + port for channel in range(4)]
    ws.send_binary(b"\x00one")
    assert ws.recv() == b"\x00ONE"
    ws.send_binary(b"\x02two")
    assert ws.recv() == b"\x02TWO"
    big = os.urandom(70_000).hex().encode()
    ws.send_binary(b"\x00" + big)
    got = b""
    while len(got) < len(big):
        got += ws.recv()[1:]
    assert got == big.upper()


def test_a_tls_connection_is_read_and_written_at_once() -> None:
    with FakeCluster(run_images={IMAGE}, tls=True) as cluster:
        cluster.nodes(1)
        cluster.apply(pod("real", IMAGE, ECHO))
        cluster.settle()
        ip = (cluster.read("/api/v1/namespaces/default/pods/real") or {})["status"]["podIP"]
        eventually(lambda: _answers(ip))
        ws = websocket.create_connection(
            f"{cluster.url.replace('http', 'ws')}/api/v1/namespaces/default/pods/real/portforward?ports=7001",
            subprotocols=["v4.channel.k8s.io"], header=["Authorization: Bearer admin"], timeout=20,
            sslopt={"context": cluster.admin.context()},
        )  # fmt: skip
        assert [len(ws.recv()) for _ in range(2)] == [3, 3]
        parts = [os.urandom(9_000).hex().encode() for _ in range(40)]
        got = b""
        for at, part in enumerate(parts):  # some are on their way while the next are sent
            ws.send_binary(b"\x00" + part)
            while len(got) < len(parts[0]) * (at - 2):
                got += ws.recv()[1:]
        while len(got) < sum(map(len, parts)):
            got += ws.recv()[1:]
        assert got == b"".join(parts).upper()


def _answers(ip: str) -> bool:
    import socket

    try:
        socket.create_connection((ip, 7001), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["real", "said"])
def test_a_port_where_nobody_listens_is_told_on_its_error_channel(cluster: FakeCluster, name: str) -> None:
    ws = connect(cluster, name, "portforward?ports=7999", "v4.channel.k8s.io")
    assert [ws.recv(), ws.recv()] == [b"\x00" + (7999).to_bytes(2, "little"), b"\x01" + (7999).to_bytes(2, "little")]
    told = ws.recv()
    assert told.startswith(b"\x01error forwarding port 7999 to pod")
    assert b"refused" in told


def test_a_refusal_is_an_answer(cluster: FakeCluster) -> None:
    answer = Api(cluster.admin).call("GET", "/api/v1/namespaces/default/pods/said/exec")
    assert (answer.status, answer.reason) == (400, "BadRequest")
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect(cluster, "absent", "exec?stdout=true&command=true")
    assert refused.value.status_code == 404
