"""What tests ask the fake cluster for: trouble, moments, outages, snapshots, rights, speed of paging."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_cluster import FakeCluster, Reply, Request
from stormdrill.cluster.api import MERGE_PATCH, Api, Lost

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        yield made


@pytest.fixture
def api(cluster: FakeCluster) -> Iterator[Api]:
    made = Api(cluster.admin)
    yield made
    made.close()


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("500", 500, "InternalError"),
        ("429", 429, "TooManyRequests"),
        ("503", 503, "ServiceUnavailable"),
        ("401", 401, "Unauthorized"),
        ("410", 410, "Expired"),
    ],
)
def test_refusals_meet_as_many_requests_as_asked_and_nothing_is_done(
    cluster: FakeCluster, api: Api, what: str, status: int, reason: str
) -> None:
    cluster.trouble(("POST", "/configmaps"), what, times=2)
    for _ in range(2):
        refused = api.call("POST", MAPS, config_map("a"))
        assert (refused.status, refused.reason) == (status, reason)
    assert cluster.read(f"{MAPS}/a") is None
    assert api.call("POST", MAPS, config_map("a")).status == 201


def test_too_many_requests_say_when_to_ask_again(cluster: FakeCluster, api: Api) -> None:
    cluster.trouble(("GET", ".*"), "429")
    assert api.call("GET", MAPS).retry_after_s == 1.0


def test_a_request_dropped_before_it_acts_leaves_nothing(cluster: FakeCluster, api: Api) -> None:
    cluster.trouble(("POST", "/configmaps"), "drop-before")
    with pytest.raises(Lost) as lost:
        api.call("POST", MAPS, config_map("a"))
    assert lost.value.sent
    assert cluster.read(f"{MAPS}/a") is None


def test_an_answer_dropped_after_the_request_acted_leaves_the_change(cluster: FakeCluster, api: Api) -> None:
    cluster.trouble(("POST", "/configmaps"), "drop-after")
    with pytest.raises(Lost) as lost:
        api.call("POST", MAPS, config_map("a"))
    assert lost.value.sent
    assert cluster.read(f"{MAPS}/a") is not None


def test_a_slow_answer_passes_the_limit_of_who_asks(cluster: FakeCluster, api: Api) -> None:
    cluster.trouble(("GET", "/configmaps"), "slow:5")
    with pytest.raises(Lost):
        api.call("GET", MAPS, limit_s=0.1)


def test_an_outage_refuses_everybody_and_ends(cluster: FakeCluster, api: Api) -> None:
    assert api.call("GET", "/version").good
    with cluster.outage(), pytest.raises(Lost):
        api.call("GET", "/version", limit_s=1.0)
    assert api.call("GET", "/version").good


def test_the_nth_change_calls_back_before_it_acts_and_after(cluster: FakeCluster, api: Api) -> None:
    seen: list[tuple[str, bool]] = []

    def look(word: str) -> object:
        return lambda request: seen.append((word, cluster.read(f"{MAPS}/b") is not None))

    cluster.at(2, look("before"))  # type: ignore[arg-type]  # a list's append answers nothing
    cluster.at(2, look("after"), when="after")  # type: ignore[arg-type]  # as above
    api.call("POST", MAPS, config_map("a"))
    api.call("GET", MAPS)
    api.call("POST", MAPS, config_map("dry"), query={"dryRun": "All"})
    api.call("POST", MAPS, config_map("b"))
    api.call("POST", MAPS, config_map("c"))
    assert seen == [("before", False), ("after", True)]


def test_what_was_asked_is_kept_in_order(cluster: FakeCluster, api: Api) -> None:
    token = cluster.account("default", "somebody")
    api.call("POST", MAPS, config_map("a"))
    Api(cluster.access(token)).call("GET", MAPS, query={"limit": "5"})
    told = [(asked.method, asked.path, asked.user, asked.status) for asked in cluster.requests]
    assert told == [
        ("POST", MAPS, "kubernetes-admin", 201),
        ("GET", MAPS, "system:serviceaccount:default:somebody", 403),
    ]
    assert isinstance(cluster.requests[0], Request)
    assert cluster.requests[0].read() == config_map("a")


def test_two_snapshots_are_equal_when_everything_was_put_back(cluster: FakeCluster, api: Api) -> None:
    api.call("POST", MAPS, config_map("a", k="v"))
    before = cluster.snapshot()
    api.call("PATCH", f"{MAPS}/a", {"data": {"k": "w"}}, content_type=MERGE_PATCH)
    assert cluster.snapshot() != before
    api.call("PATCH", f"{MAPS}/a", {"data": {"k": "v"}}, content_type=MERGE_PATCH)
    assert cluster.snapshot() == before


def test_an_expired_token_is_refused(cluster: FakeCluster) -> None:
    token = cluster.account("default", "somebody")
    api = Api(cluster.access(token))
    assert api.call("GET", "/version").status == 200
    cluster.tokens.expire(token)
    assert api.call("GET", "/version").status == 401


def test_writers_on_one_version_have_one_winner(cluster: FakeCluster, api: Api) -> None:
    api.call("POST", MAPS, config_map("a"))
    held = api.call("GET", f"{MAPS}/a").read()
    statuses: list[int] = []

    def put(number: int) -> None:
        obj = json.loads(json.dumps(held))
        obj["data"] = {"by": str(number)}
        statuses.append(Api(cluster.admin).call("PUT", f"{MAPS}/a", obj).status)

    writers = [threading.Thread(target=put, args=[number]) for number in range(10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(statuses) == [200] + [409] * 9


def test_pages_are_a_snapshot_whatever_is_written_between(cluster: FakeCluster, api: Api) -> None:
    for number in range(25):
        cluster.apply(config_map(f"m-{number:02}"))
    seen: list[str] = []
    token = ""
    while True:
        query = {"limit": "7", **({"continue": token} if token else {})}
        page = api.call("GET", MAPS, query=query).read()
        seen += [item["metadata"]["name"] for item in page["items"]]  # type: ignore[attr-defined]  # a list's items
        cluster.apply(config_map(f"m-{len(seen):02}-more"))
        api.call("DELETE", f"{MAPS}/m-{len(seen):02}")
        token = str(page["metadata"].get("continue", ""))  # type: ignore[attr-defined]  # a list's metadata
        if not token:
            break
    assert [name for name in seen if name.startswith("m-")] == [f"m-{number:02}" for number in range(25)]


def test_ten_thousand_pods_are_paged_once_each(cluster: FakeCluster, api: Api) -> None:
    for number in range(10_000):
        pod = {"metadata": {"name": f"p-{number}", "namespace": "default"}, "spec": {"nodeName": f"n-{number % 1000}"}}
        cluster.store.put(cluster.registry.kinds.named("pods"), pod)
    names: list[str] = []
    token = ""
    for _ in range(20):
        query = {"limit": "500", **({"continue": token} if token else {})}
        page = json.loads(api.call("GET", "/api/v1/pods", query=query).body)
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
    assert not token
    assert len(names) == len(set(names)) == 10_000


def test_a_watch_hears_what_is_written_and_a_troubled_one_an_error(cluster: FakeCluster, api: Api) -> None:
    version = str(cluster.store.version)
    cluster.apply([config_map("a"), config_map("b")])
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "0.1"}
    lines = [json.loads(line) for line in api.call("GET", MAPS, query=query).body.splitlines()]
    assert [(line["type"], line["object"]["metadata"]["name"]) for line in lines] == [("ADDED", "a"), ("ADDED", "b")]
    cluster.trouble(("GET", "/configmaps"), "410")
    (line,) = api.call("GET", MAPS, query=query).body.splitlines()
    assert json.loads(line)["object"]["reason"] == "Expired"
    cluster.store.forget()
    (line,) = api.call("GET", MAPS, query=query).body.splitlines()
    assert json.loads(line)["object"]["code"] == 410


def test_subscribers_hear_writes_in_order_even_those_of_a_subscriber(cluster: FakeCluster) -> None:
    heard: list[tuple[int, str]] = []

    def answer(event: object) -> None:
        if getattr(event, "key", ("", ""))[1] == "first":
            cluster.apply(config_map("second"))

    cluster.store.subscribe(answer)
    cluster.store.subscribe(lambda event: heard.append((event.version, event.key[1])))
    cluster.apply(config_map("first"))
    assert [name for _, name in heard] == ["first", "second"]
    assert heard == sorted(heard)


def test_a_mistake_of_the_fake_itself_is_told(cluster: FakeCluster, api: Api) -> None:
    def broken(call: object) -> Reply:
        raise KeyError("broken")

    cluster.registry.handler("configmaps", "", "POST")(broken)
    assert api.call("POST", MAPS, config_map("a")).status == 500
    assert len(cluster.mistakes) == 1
    assert "broken" in cluster.mistakes.pop()


def test_a_kubeconfig_names_the_server_and_the_token(cluster: FakeCluster, tmp_path: Path) -> None:
    token = cluster.account("default", "somebody")
    written = json.loads(cluster.kubeconfig(tmp_path / "config", token, context="here").read_text())
    assert written["clusters"][0]["cluster"]["server"] == cluster.url
    assert written["users"][0]["user"]["token"] == token
    assert written["current-context"] == "here"
