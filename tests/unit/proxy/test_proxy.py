"""What the proxy promises to those who talk through it, over real sockets in one event loop."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from stormdrill.proxy.config import ConfigError, Route, parse
from stormdrill.proxy.control import Control
from stormdrill.proxy.relay import BUFFER_BYTES, Hop

LIMIT_S = 10.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def in_time(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), LIMIT_S))


@asynccontextmanager
async def hop_to(serve: Serve) -> AsyncIterator[tuple[Hop, int]]:
    """A hop to a callee that behaves as told; gives the hop and its listening port."""
    callee = await asyncio.start_server(serve, "127.0.0.1", 0)
    hop = Hop(Route("a>b", 1, "127.0.0.1", callee.sockets[0].getsockname()[1]))
    listener = await asyncio.get_running_loop().create_server(hop.accept, "127.0.0.1", 0)
    try:
        yield hop, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        hop.cut()
        callee.close()


def test_bytes_arrive_unchanged_in_both_directions_and_are_counted() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def story() -> None:
        sent = bytes(range(256)) * 4096
        async with hop_to(echo) as (hop, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            got, _ = await asyncio.gather(reader.readexactly(len(sent)), _send(writer, sent))
            assert got == sent
            assert (hop.traffic.bytes_up, hop.traffic.bytes_down) == (len(sent), len(sent))
            assert (hop.traffic.open, hop.traffic.connections) == (1, 1)
            writer.close()

    in_time(story)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def test_a_half_closed_connection_still_gets_its_answer() -> None:
    async def answer_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        writer.write(b"you said " + asked)
        writer.close()

    async def story() -> None:
        async with hop_to(answer_after_the_end) as (hop, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"you said hello"
            while hop.traffic.open:
                await asyncio.sleep(0.01)

    in_time(story)


def test_a_callee_that_does_not_read_makes_the_caller_wait_and_nothing_piles_up() -> None:
    async def story() -> None:
        may_read = asyncio.Event()
        got = bytearray()

        async def late_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await may_read.wait()
            while data := await reader.read(1 << 20):
                got.extend(data)
            writer.close()

        async with hop_to(late_reader) as (hop, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            total = 64 * 1024 * 1024
            sending = asyncio.create_task(_send(writer, b"x" * total))
            passed = -1
            while passed != hop.traffic.bytes_up:
                passed = hop.traffic.bytes_up
                await asyncio.sleep(0.2)
            (pair,) = hop.pairs
            assert pair.other is not None
            assert pair.other.transport is not None
            assert pair.other.transport.get_write_buffer_size() <= BUFFER_BYTES + 256 * 1024
            assert passed < total
            assert not sending.done()
            may_read.set()
            await sending
            writer.write_eof()
            while len(got) < total:
                await asyncio.sleep(0.01)

    in_time(story)


def test_a_callee_that_is_gone_is_seen_as_refused_by_the_caller() -> None:
    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
            hop = Hop(Route("a>b", 1, "127.0.0.1", taken.getsockname()[1]))
            listener = await asyncio.get_running_loop().create_server(hop.accept, "127.0.0.1", 0)
            reader, _ = await asyncio.open_connection("127.0.0.1", listener.sockets[0].getsockname()[1])
            with pytest.raises(ConnectionResetError):
                await reader.read()
            listener.close()
        assert hop.traffic.refused == 1

    in_time(story)


def test_a_callee_that_resets_resets_the_callers_connection() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        socket_of = writer.get_extra_info("socket")
        socket_of.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def story() -> None:
        async with hop_to(die) as (hop, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            while hop.traffic.open:
                await asyncio.sleep(0.01)

    in_time(story)


@pytest.mark.parametrize(
    ("request_line", "status"), [("GET /routes", 200), ("GET /healthz", 200), ("GET /x", 404), ("POST /routes", 405)]
)
def test_the_control_endpoint_answers_what_it_knows(request_line: str, status: int) -> None:
    async def story() -> None:
        hop = Hop(Route("edge-1>gateway-eu", 5001, "127.0.0.1", 6001))
        server = await asyncio.get_running_loop().create_server(lambda: Control([hop]), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(f"{request_line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.split()[1] == str(status).encode()
        if request_line == "GET /routes":
            assert json.loads(body)[0]["name"] == "edge-1>gateway-eu"
        server.close()

    in_time(story)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("3", "no routes"),
        ('{"control": 0}', "no routes"),
        ("[3]", "route 0"),
        ('[{"listen": 5, "to": "h:1"}]', "no name"),
        ('[{"name": "a", "listen": 0, "to": "h:1"}]', "listen"),
        ('[{"name": "a", "listen": true, "to": "h:1"}]', "listen"),
        ('[{"name": "a", "listen": 5, "to": "nowhere"}]', "host:port"),
        ('[{"name": "a", "listen": 5, "to": "h:99999"}]', "to"),
        ('[{"name": "a", "listen": 5, "to": "h:1"}, {"name": "b", "listen": 5, "to": "h:1"}]', "both listen"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_a_taken_port_ends_the_proxy_with_a_clear_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = json.dumps([{"name": "a>b", "listen": port, "to": "127.0.0.1:9"}])
        ended = subprocess.run(
            [sys.executable, "-m", "stormdrill.proxy"],
            env={"STORMDRILL_PROXY": config},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert ended.returncode == 2
    assert f"port {port} is taken" in ended.stderr
    assert "Traceback" not in ended.stderr
