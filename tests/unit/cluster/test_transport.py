"""One request, one limit: what was heard, whether it was sent, who asks. And programs in pods."""

from __future__ import annotations

import json
import shutil
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_cluster import FakeCluster, scenes
from stormdrill.cluster import inside
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.exec import STATUS, STDOUT, Exec, Refusal, exit_code
from stormdrill.cluster.inside import InCluster
from stormdrill.cluster.undoing import undo
from stormdrill.errors import Refused
from stormdrill.model.undo import KubeEndExec

CORPUS = Path(__file__).resolve().parents[2] / "corpus" / "kubernetes"
NODES = "/api/v1/nodes"
IMAGE = "here:1"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        made.apply(scenes.node("n1", "eu"))
        yield made


class Renewed:
    """A token that expires, and is renewed when somebody asks."""

    def __init__(self, server: str, *tokens: str) -> None:
        self.server = server
        self.tokens = list(tokens)

    def context(self) -> None:
        return None

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[0]}"}

    def refresh(self) -> bool:
        if len(self.tokens) > 1:
            del self.tokens[0]
            return True
        return False


def test_an_expired_token_is_renewed_once_and_the_request_repeated(cluster: FakeCluster) -> None:
    assert Api(Renewed(cluster.url, "expired", "admin")).call("GET", NODES).status == 200
    assert Api(Renewed(cluster.url, "expired", "expired too", "admin")).call("GET", NODES).status == 401
    assert Api(Renewed(cluster.url, "expired")).call("GET", NODES).status == 401


def test_what_was_not_sent_is_told_apart_from_what_may_have_been_done(cluster: FakeCluster) -> None:
    api = Api(cluster.admin)
    body = {"metadata": {"name": "late"}}
    cluster.trouble(("POST", "namespaces"), "drop-after")
    with pytest.raises(Lost) as lost:
        api.call("POST", "/api/v1/namespaces", body)
    assert lost.value.sent
    assert cluster.read("/api/v1/namespaces/late")
    with cluster.outage(), pytest.raises(Lost) as lost:
        Api(cluster.admin).call("POST", "/api/v1/namespaces", body)
    assert not lost.value.sent


def test_no_change_is_sent_twice_by_itself(cluster: FakeCluster) -> None:
    api = Api(cluster.admin)
    api.call("GET", NODES)  # the connection is kept, and dropped at the next request
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        cluster.trouble((method, "nodes"), "drop-before")
        asked = len(cluster.requests)
        with pytest.raises(Lost):
            api.call(method, f"{NODES}/n1", {})
        assert len(cluster.requests) - asked <= 1


def test_a_read_on_a_connection_that_was_closed_meanwhile_is_asked_again(cluster: FakeCluster) -> None:
    api = Api(cluster.admin)
    assert api.call("GET", NODES).good
    with cluster.outage():
        pass
    assert api.call("GET", NODES).good


def test_a_server_that_does_not_answer_is_left_at_the_limit(cluster: FakeCluster) -> None:
    cluster.trouble(("GET", "nodes"), "slow:3")
    with pytest.raises(Lost, match="no answer in time"):
        Api(cluster.admin).call("GET", NODES, limit_s=0.2)


def test_a_path_before_the_api_is_kept(cluster: FakeCluster) -> None:
    api = Api(Renewed(f"{cluster.url}/k8s/clusters/c-1", "admin"))
    assert api.call("GET", NODES).status == 404
    assert cluster.requests[-1].path == f"/k8s/clusters/c-1{NODES}"


def test_no_secret_is_in_what_is_said_of_an_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _account(tmp_path, monkeypatch, "very-secret")
    access = InCluster()
    access.headers()
    assert "very-secret" not in repr(Api(access))


# inside


def _account(place: Path, monkeypatch: pytest.MonkeyPatch, token: str, host: str = "127.0.0.1", port: int = 1) -> None:
    (place / "token").write_text(token, encoding="ascii")
    (place / "namespace").write_text("stormdrill\n", encoding="ascii")
    monkeypatch.setenv(inside.DIRECTORY, str(place))
    monkeypatch.setenv(inside.PLAIN, "1")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))


def test_from_a_pod_the_token_is_read_anew_when_the_kubelet_has_replaced_it(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _account(tmp_path, monkeypatch, "admin", port=cluster.port)
    access = InCluster()
    api = Api(access)
    assert api.call("GET", NODES).status == 200
    assert access.namespace == "stormdrill"
    (tmp_path / "token").write_text("expired")
    assert api.call("GET", NODES).status == 401
    (tmp_path / "token").write_text("admin\n")
    assert api.call("GET", NODES).status == 200
    (tmp_path / "token").unlink()  # in the middle of being replaced
    assert api.call("GET", NODES).status == 200


def test_outside_of_a_pod_it_is_refused_with_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(inside.DIRECTORY, str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert not inside.there()
    with pytest.raises(Refused, match="KUBERNETES_SERVICE_HOST is not set"):
        InCluster()


def test_an_authority_is_not_read_more_strictly_than_clusters_make_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeCluster(world=False, tls=True) as cluster:
        _account(tmp_path, monkeypatch, "admin", port=cluster.port)
        monkeypatch.delenv(inside.PLAIN)
        shutil.copyfile(cluster.admin.ca, tmp_path / "ca.crt")
        access = InCluster()
        context = access.context()
        assert context is not None
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert Api(access).call("GET", NODES).good


def test_a_token_does_not_travel_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _account(tmp_path, monkeypatch, "t", host="10.0.0.1")
    with pytest.raises(Refused, match=r"127\.0\.0\.0/8 only"):
        InCluster()


def test_an_address_of_ipv6_is_written_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _account(tmp_path, monkeypatch, "t", host="fd00::1", port=443)
    monkeypatch.delenv(inside.PLAIN)
    assert InCluster().server == "https://[fd00::1]:443"


# programs in pods


@pytest.fixture(scope="module")
def pods() -> Iterator[FakeCluster]:
    with FakeCluster(run_images={IMAGE: ["sleep", "600"]}) as made:
        made.apply(scenes.node("n1", "eu"))
        spec = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": IMAGE}]}
        meta = {"name": "p", "namespace": "default"}
        made.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        made.settle()
        yield made


def run(pods: FakeCluster, *argv: str, stdin: bytes = b"", limit_s: float = 10.0) -> tuple[int, bytes, bytes]:
    ran = Exec(Api(pods.admin)).run("default", "p", "c", argv, stdin, limit_s)
    return ran.code, ran.out, ran.err


def test_a_program_says_what_it_has_to_say_and_how_it_ended(pods: FakeCluster) -> None:
    assert run(pods, "sh", "-c", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")
    assert run(pods, "true") == (0, b"", b"")


def test_it_is_told_what_it_reads_and_that_no_more_comes(pods: FakeCluster) -> None:
    text = bytes(range(256)) * 3800
    assert run(pods, "cat", stdin=text) == (0, text, b"")


def test_what_was_not_started_is_told_apart_from_what_has_failed(pods: FakeCluster) -> None:
    with pytest.raises(Refusal, match="nosuch"):
        run(pods, "nosuch-program")
    with pytest.raises(Refusal) as refusal:
        Exec(Api(pods.admin)).run("default", "absent", "c", ["true"])
    assert refusal.value.status == 404


def test_a_program_that_does_not_end_is_left_at_the_limit(pods: FakeCluster) -> None:
    with pytest.raises(Lost, match=r"has not ended within 0\.3 s"):
        run(pods, "sleep", "60", limit_s=0.3)


def test_a_stream_is_heard_while_it_is_spoken_to(pods: FakeCluster) -> None:
    stream = Exec(Api(pods.admin)).open("default", "p", "c", ["cat"])
    for said in (b"one\n", b"two\n"):
        stream.send(said)
        assert stream.receive(10.0) == (STDOUT, said)
    assert stream.receive(0.01) is None
    assert not stream.ended
    stream.finish()
    heard = stream.receive(10.0)
    assert heard is not None
    assert heard[0] == STATUS
    assert exit_code(heard[1]) == 0
    stream.close()
    assert stream.ended


def test_exit_codes_are_read_as_a_real_server_has_told_them() -> None:
    codes = {}
    for exchange in json.loads((CORPUS / "exec.json").read_text(encoding="utf-8")):
        for frame in exchange["response"].get("frames") or []:
            if frame.get("channel") == STATUS and "status" in frame:
                try:
                    codes[exchange["name"]] = exit_code(json.dumps(frame["status"]).encode())
                except Refusal:
                    codes[exchange["name"]] = -1
    assert {codes[name] for name in codes if "command not found" in name} == {-1}
    assert {codes[name] for name in codes if "exit code 3" in name} == {3}
    assert {codes[name] for name in codes if "killed by a signal" in name} == {137}
    assert codes["v4 and v5 offered: the server takes v5"] == 0


def test_what_was_started_in_a_pod_is_found_by_its_tag_and_ended(pods: FakeCluster) -> None:
    tag = f"stormdrill-{time.monotonic_ns()}"
    program = "import os,time; os.write(1, b'up'); time.sleep(600)"
    stream = Exec(Api(pods.admin)).open("default", "p", "c", [sys.executable, "-c", program, tag], stdin=False)
    assert stream.receive(10.0) == (STDOUT, b"up")
    uid = (pods.read("/api/v1/namespaces/default/pods/p") or {})["metadata"]["uid"]
    word = KubeEndExec("", "default", "p", uid, "c", tag)
    api = Api(pods.admin)
    assert undo(api, word, Exec(api)).word == "done"
    heard = stream.receive(10.0)
    assert heard is not None
    assert exit_code(heard[1]) == 137
    assert undo(api, word, Exec(api)).word == "superseded"
    stream.close()
