"""Every probe, against endpoints that misbehave: not fresh, with a reason, within its limit, and never an exception."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from stormdrill.ports import Answer, Probe, Scraped
from stormdrill.probes.alerts import AlertsProbe, read_alerts
from stormdrill.probes.call import Calls, http_call
from stormdrill.probes.command import CommandProbe
from stormdrill.probes.http import HttpProbe
from stormdrill.probes.prometheus import PrometheusProbe
from stormdrill.probes.servers import PromqlProbe, managed_alerts, prometheus_alerts

LIMIT_S = 0.6
Serve = Callable[[socket.socket], None]


@contextmanager
def endpoint(serve: Serve) -> Iterator[str]:
    """Accepts connections and lets `serve` answer, each in a thread; the address without a path."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def one(connection: socket.socket) -> None:
        with suppress(OSError):
            serve(connection)
        with suppress(OSError):
            connection.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            with suppress(OSError):
                connection.close()
        thread.join(5)


def answering(body: bytes, status: str = "200 OK", headers: str = "") -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        connection.sendall(head.encode() + body)

    return serve


def raw(data: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)

    return serve


def dripping(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b"q")
        time.sleep(0.05)


def dripping_headers(connection: socket.socket) -> None:
    connection.recv(65536)
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):  # head and body may come apart; only the other side ends it
        pass


def endless(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
    for _ in range(50):
        connection.sendall(b"# " + b"x" * 999_997 + b"\n")


MISBEHAVIOUR: dict[str, Serve] = {
    "says nothing": silent,
    "drips its body": dripping,
    "drips its headers": dripping_headers,
    "sends 50 MB": endless,
    "closes at once": lambda connection: None,
    "closes after reading": lambda connection: (connection.recv(65536), None)[1],
    "is no HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "sends bytes": raw(bytes(range(256)) * 50),
    "ends early": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nqueue_depth 3\n"),
    "breaks its chunks": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nqueue_depth 3\n"),
    "ends inside a chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFF\r\nqueue_depth 3\n"),
    "fails": answering(b"queue_depth 3\n", "500 Internal Server Error"),
    "redirects": answering(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"),
    "sends a page": answering(b"<html><body>It works!</body></html>\n"),
    "sends garbage": answering(bytes(range(256))),
    "says NaN": answering(b'queue_depth NaN\nALERTS{alertname="A"} NaN\n'),
    "says infinity": answering(b'queue_depth +Inf\nALERTS{alertname="A"} +Inf\n'),
    "says it twice": answering(b'queue_depth 1\nqueue_depth 2\nALERTS{alertname="A"} 1\nALERTS{alertname="A"} 1\n'),
    "cuts a line": answering(b'queue_depth{a="b\nALERTS{alertname="A\n'),
    "has a great many headers": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\nqueue_depth 3\n"),
    "nests without end": answering(b"[" * 100_000),
}
PROBES: dict[str, Callable[[str], Probe]] = {
    "prometheus": lambda url: PrometheusProbe(url + "/metrics", "queue_depth"),
    "http": lambda url: HttpProbe(url + "/state", ".depth"),
    "alerts": lambda url: AlertsProbe(url + "/alerts"),
    "promql": lambda url: PromqlProbe(url, "queue_depth"),
    "prometheus's alerts": lambda url: ServerAlerts(prometheus_alerts, url),
    "alertmanager's alerts": lambda url: ServerAlerts(managed_alerts, url),
}


def queried(*series: str, kind: str = "vector", more: str = "") -> bytes:
    """What a Prometheus server answers."""
    result = ",".join(series)
    result = f"[{result}]" if kind != "scalar" else result
    return f'{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}{more}}}'.encode()


def one_series(value: str, **labels: str) -> str:
    return json.dumps({"metric": labels, "value": [1.5, value]})


ALERT = '{"labels": {"alertname": "A"}, "annotations": {}, "state": "firing", "value": "1e+00"}'
MANAGED = '{"labels": {"alertname": "A"}, "status": {"state": "active", "silencedBy": [], "inhibitedBy": []}}'
GOOD: dict[str, bytes] = {
    "prometheus": b"queue_depth 3\n",
    "http": b'{"depth": 3}',
    "alerts": b'ALERTS{alertname="A"} 1\n',
    "promql": queried(one_series("3", job="x")),
    "prometheus's alerts": f'{{"status": "success", "data": {{"alerts": [{ALERT}]}}}}'.encode(),
    "alertmanager's alerts": f"[{MANAGED}]".encode(),
}


class ServerAlerts:
    """The alerts of a server as a probe: 1 for each that fires."""

    def __init__(self, read: Callable[[str, float], Scraped], url: str) -> None:
        self.look, self.url = read, url

    def read(self, timeout_s: float) -> Answer:
        seen = self.look(self.url, timeout_s)
        return Answer(tuple((item.labels, item.value) for item in seen.samples), seen.detail, seen.took_ms)


def ask(probe: Probe, limit_s: float = LIMIT_S) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = probe.read(limit_s)
    return answer, time.monotonic() - began


@pytest.mark.parametrize("name", MISBEHAVIOUR)
@pytest.mark.parametrize("kind", PROBES)
def test_an_endpoint_that_misbehaves_gives_no_fresh_reading_and_a_reason(kind: str, name: str) -> None:
    with endpoint(MISBEHAVIOUR[name]) as url:
        answer, took_s = ask(PROBES[kind](url))
    assert not answer.fresh
    assert answer.values == ()
    assert answer.detail
    assert "\n" not in answer.detail
    assert took_s < 10 * LIMIT_S  # bounded; how closely is the benchmark's business


@pytest.mark.parametrize("kind", PROBES)
def test_an_endpoint_that_vanishes_is_not_remembered(kind: str) -> None:
    good = answering(GOOD[kind])
    with endpoint(good) as url:
        probe = PROBES[kind](url)
        first, _ = ask(probe, 20)
        assert first.fresh
        assert [value for _, value in first.values] == [1.0 if "alerts" in kind else 3.0]
    second, _ = ask(probe, 20)
    assert second.values == ()
    assert second.detail.removeprefix("http://") == f"{url.removeprefix('http://')}: connection refused"


@pytest.mark.parametrize("kind", PROBES)
@pytest.mark.parametrize(
    "url", ["", "nonsense", "file:///etc/passwd", "http://", "http://127.0.0.1:99999", "http://[::1"]
)
def test_what_is_no_address_is_a_reason_too(kind: str, url: str) -> None:
    answer, _ = ask(PROBES[kind](url))
    assert not answer.fresh


@pytest.mark.parametrize("kind", PROBES)
def test_proxies_of_the_environment_take_no_part(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    good = answering(GOOD[kind])
    with endpoint(good) as url:
        assert ask(PROBES[kind](url), 20)[0].fresh


ANSWERS = {
    "answers an error": (
        answering(b'{"status":"error","errorType":"bad_data","error":"1:5: parse error: unexpected end"}', "400 Bad"),
        "it answered 400: 1:5: parse error: unexpected end",
    ),
    "gives up": (
        answering(b'{"status":"error","errorType":"timeout","error":"query timed out"}', "503 Service Unavailable"),
        "it answered 503: query timed out",
    ),
    "wants to know who asks": (answering(b"Unauthorized\n", "401 Unauthorized"), "it answered 401"),
    "matches nothing": (answering(queried()), "the query matches nothing now"),
    "has several series": (
        answering(queried(one_series("1", job="x", pod="a"), one_series("2", job="x", pod="b"))),
        "the query has 2 series where one number is meant: they differ by pod",
    ),
    "says NaN": (answering(queried(one_series("NaN"))), "the value is NaN"),
    "says infinity": (answering(queried('[1.5, "+Inf"]', kind="scalar")), "the value is +Inf"),
    "gives a range": (answering(queried(kind="matrix")), "the query gives a matrix, where one number now is meant"),
    "gives a histogram": (
        answering(queried('{"metric": {}, "histogram": [1.5, {"count": "1"}]}')),
        "the query gives a histogram, where a number is meant",
    ),
    "knows a part only": (
        answering(queried(one_series("3"), more=',"warnings":["remote read: connection refused"]')),
        "it warns: remote read: connection refused",
    ),
    "has a great many series": (
        answering(queried(*(one_series("3", pod=str(pod)) for pod in range(1001)))),
        "the query has 1,001 series, 1,000 are the most",
    ),
    "is another server": (answering(b'{"depth": 3}'), "its answer is not one of Prometheus'"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_query_that_gives_no_one_number_says_why(name: str) -> None:
    serve, said = ANSWERS[name]
    with endpoint(serve) as url:
        answer, _ = ask(PromqlProbe(url, "queue_depth"), 20)
        assert answer.values == ()
        assert answer.detail.startswith(f"{url}: {said}")


def test_a_query_is_read_by_the_labels_that_tell_its_series_apart() -> None:
    two = answering(queried(one_series("1", region="eu", pod="a"), one_series("2", region="us", pod="b")))
    with endpoint(two) as url:
        assert PromqlProbe(url, "q", ["region"]).read(20).values == (({"region": "eu"}, 1.0), ({"region": "us"}, 2.0))
    with endpoint(answering(queried('[1.5, "4.5e1"]', kind="scalar"))) as url:
        assert PromqlProbe(url, "q").read(20).values == (({}, 45.0),)
    remark = answering(queried(one_series("3"), more=',"warnings":["PromQL info: metric might not be a counter"]'))
    with endpoint(remark) as url:
        assert PromqlProbe(url, "q").read(20).fresh


def test_a_query_and_its_headers_reach_the_server_as_they_are() -> None:
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + queried(one_series("3")))

    with endpoint(serve) as url:
        probe = PromqlProbe(url, 'sum(up{job="a&b"}) + 1', headers={"Authorization": "Bearer s3cr3t-value"})
        assert probe.read(20).fresh
    assert b"GET /api/v1/query?query=sum%28up%7Bjob%3D%22a%26b%22%7D%29+%2B+1&timeout=20000ms " in heard[0]
    assert b"Authorization: Bearer s3cr3t-value\r\n" in heard[0]


def test_a_silenced_alert_and_a_pending_one_do_not_fire() -> None:
    silenced = MANAGED.replace("active", "suppressed")
    with endpoint(answering(f"[{MANAGED}, {silenced}]".encode())) as url:
        states = [item.labels["alertstate"] for item in managed_alerts(url, 20).samples]
    assert states == ["firing", "suppressed"]
    pending = ALERT.replace("firing", "pending")
    with endpoint(answering(f'{{"status": "success", "data": {{"alerts": [{ALERT}, {pending}]}}}}'.encode())) as url:
        states = [item.labels["alertstate"] for item in prometheus_alerts(url, 20).samples]
    assert states == ["firing", "pending"]


COMMANDS = {
    "does not exist": ["/nonexistent/program"],
    "is a directory": ["/tmp"],  # noqa: S108  (never written to)
    "fails": [sys.executable, "-c", "print(3); raise SystemExit(4)"],
    "says nothing": [sys.executable, "-c", ""],
    "says words": [sys.executable, "-c", "print('three')"],
    "says NaN": [sys.executable, "-c", "print('nan')"],
    "never ends": [sys.executable, "-c", "import time; print(3, flush=True); time.sleep(60)"],
    "ignores the request to end": [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(3, flush=True); time.sleep(60)",
    ],
    "leaves a child with its output": [
        sys.executable,
        "-c",
        "import subprocess as s, time; s.Popen(['sleep', '60']); time.sleep(60)",
    ],
    "floods": [sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('3\\n' * 100000)"],
    "floods standard error": [sys.executable, "-c", "import sys\nwhile True: sys.stderr.write('3\\n' * 100000)"],
    "holds a null byte": ["echo", "a\x00b"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_misbehaves_gives_no_fresh_reading_and_a_reason(name: str) -> None:
    answer, took_s = ask(CommandProbe(COMMANDS[name]))
    assert not answer.fresh
    assert answer.values == ()
    assert took_s < 10 * LIMIT_S


def test_a_command_that_behaves_is_read() -> None:
    program = [sys.executable, "-c", "print('a line'); print(3.5)"]
    assert CommandProbe(program).read(20).values == (({}, 3.5),)
    program = [sys.executable, "-c", 'print(\'{"pods": [{"ready": true}]}\')']
    assert CommandProbe(program, ".pods[0].ready").read(20).values == (({}, 1.0),)


def test_a_command_has_ended_though_what_it_started_goes_on_talking() -> None:
    """A server that was put into service, and that keeps the output of what started it."""
    ran = Calls().command(["sh", "-c", "(while :; do echo x; sleep 0.02; done) & echo $!"], 10.0)
    assert (ran.code, ran.error) == (0, "")
    assert ran.took_ms < 5000


def test_arguments_reach_a_command_as_they_are() -> None:
    program = [sys.executable, "-c", "import sys; print(len(sys.argv[1]))", "$(reboot); `x` | 'y'"]
    assert CommandProbe(program).read(20).values == (({}, float(len("$(reboot); `x` | 'y'"))),)


def test_a_call_says_whether_the_other_side_may_have_acted() -> None:
    assert not http_call("POST", "http://127.0.0.1:1/x", "{}", LIMIT_S).sent
    with endpoint(silent) as url:
        reply = http_call("POST", url + "/x", "{}", LIMIT_S)
    assert reply.sent
    assert "did not answer POST /x within" in reply.error


def test_a_name_that_cannot_be_looked_up_is_a_reason() -> None:
    reply = Calls().http("GET", "http://no-such-host.invalid/", "", LIMIT_S)
    assert reply.error
    assert not reply.sent


def test_an_alert_is_told_from_a_pending_one_and_found_by_its_labels() -> None:
    text = (
        b"# TYPE ALERTS gauge\n"
        b'ALERTS{alertname="RegionDown",alertstate="firing",region="eu"} 1\n'
        b'ALERTS{alertname="RegionDown",alertstate="pending",region="us"} 1\n'
        b'ALERTS{alertname="Old",alertstate="firing"} 0\n'
        b"other 3\n"
    )
    with endpoint(answering(text)) as url:
        seen = read_alerts(url + "/alerts", 20)
    assert seen.fresh
    found = seen.firing("RegionDown")
    assert found is not None
    assert found.labels == {"region": "eu"}
    assert seen.firing("RegionDown", {"region": "us"}) is None
    assert seen.firing("Old") is None


def test_no_alerts_freshly_seen_is_a_reading() -> None:
    with endpoint(answering(b"# nothing fires\n")) as url:
        seen = read_alerts(url + "/alerts", 20)
    assert seen.fresh
    assert seen.alerts == ()
