"""One HTTP exchange of our own: however the bytes come, the same answer; whatever comes, a word for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormdrill.keeper.engine import Heard, ask
from stormdrill.keeper.exchange import Answer, place_of, request_bytes
from stormdrill.keeper.loop import Steps, Wait, run_now, together

BODY = st.binary(max_size=200)


def whole(kind: str, body: bytes) -> bytes:
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: x\r\n"
    if kind == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if kind == "close":
        return head + b"\r\n" + body
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@given(st.sampled_from(["length", "close", "chunked"]), BODY, st.lists(st.integers(1, 40), max_size=40))
def test_an_answer_is_the_same_however_its_bytes_are_cut(kind: str, body: bytes, cuts: list[int]) -> None:
    data, answer = whole(kind, body), Answer("GET")
    for size in [*cuts, len(data)]:
        if data and not answer.complete:
            answer.feed(data[:size])
            data = data[size:]
    if not answer.complete:
        answer.feed(b"")
    assert (answer.status, bytes(answer.body), answer.complete) == (200, body, True)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), st.booleans())
def test_what_is_no_answer_is_told_as_a_value_error_and_nothing_else(parts: list[bytes], headed: bool) -> None:
    answer = Answer("GET")
    try:
        for part in [b"HTTP/1.1 200 OK\r\n"] * headed + parts:
            answer.feed(part)
            if answer.complete:
                return
        answer.feed(b"")
    except ValueError:
        return
    else:
        assert answer.complete


@contextmanager
def a_server(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"unix://{path}"
        thread.join(5.0)
        assert not thread.is_alive()


def heard_of(tmp_path: Path, answer: bytes) -> Heard:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with a_server(tmp_path / "s", talk) as engine:
        return ask(engine, "GET", "/", timeout_s=2.0)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "without an answer"),
        (b"SSH-2.0-x\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "ended early"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "no number"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "without a size"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000, "endless head"),
    ],
)
def test_a_bad_answer_is_an_error_and_may_have_been_acted_upon(tmp_path: Path, answer: bytes, error: str) -> None:
    heard = heard_of(tmp_path, answer)
    assert error in heard.error
    assert heard.sent


def test_an_answer_that_drips_ends_at_the_one_limit(tmp_path: Path) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while True:
                connection.sendall(b"x")
                time.sleep(0.005)
        except OSError:
            return

    with a_server(tmp_path / "s", drip) as engine:
        heard = ask(engine, "GET", "/slow", timeout_s=0.2)
        assert "within 0.2 s" in heard.error
        assert heard.status == 200


@pytest.mark.parametrize(
    "url",
    ["unix://relative", "http://engine.example:2375", "https://127.0.0.1:1", "127.0.0.1", "http://127.0.0.1:0", ""],
)
def test_only_a_socket_or_a_literal_address_is_spoken_to(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        place_of(url)
    assert ask(url, "GET", "/").error


@pytest.mark.parametrize(("method", "path"), [("GET", "/a b"), ("GET", "/a\r\nX: y"), ("GET", "a"), ("G T", "/")])
def test_a_request_is_one_line(method: str, path: str) -> None:
    with pytest.raises(ValueError, match="not a request"):
        request_bytes("h", method, path, "")


def test_what_is_done_together_ends_each_in_its_own_time_and_one_error_hinders_no_other() -> None:
    done: list[str] = []

    def wait(name: str, seconds: float) -> Steps[None]:
        yield Wait(lambda: False, seconds)
        done.append(name)
        if name == "bad":
            raise KeyError(name)

    with pytest.raises(KeyError):
        run_now(together([wait("long", 0.3), wait("bad", 0.1), wait("short", 0.2)]))
    assert done == ["bad", "short", "long"]
