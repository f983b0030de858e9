"""What the proxy promises to those who talk through it, over real sockets in one event loop."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys

import pytest
from hop_world import LIMIT_S, in_time, send, until, world

from stormdrill.proxy.board import Board
from stormdrill.proxy.config import ConfigError, Route, parse
from stormdrill.proxy.control import Control
from stormdrill.proxy.flow import READ_BYTES
from stormdrill.proxy.relay import Hop


def test_bytes_arrive_unchanged_in_both_directions_and_are_counted() -> None:
    async def story() -> None:
        sent = bytes(range(256)) * 4096
        async with world() as here:
            hop = here.hop
            reader, writer = await here.connect()
            got, _ = await asyncio.gather(reader.readexactly(len(sent)), send(writer, sent))
            assert got == sent
            assert (hop.traffic.bytes_up, hop.traffic.bytes_down) == (len(sent), len(sent))
            assert (hop.traffic.open, hop.traffic.connections) == (1, 1)
            writer.close()

    in_time(story)


def test_a_half_closed_connection_still_gets_its_answer() -> None:
    async def answer_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        writer.write(b"you said " + asked)
        writer.close()

    async def story() -> None:
        async with world(answer_after_the_end) as here:
            reader, writer = await here.connect()
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"you said hello"
            await until(lambda: not here.hop.traffic.open)

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

        async with world(late_reader) as here:
            _, writer = await here.connect()
            total = 64 * 1024 * 1024
            sending = asyncio.create_task(send(writer, b"x" * total))
            passed = -1
            while passed != here.hop.traffic.bytes_up:
                passed = here.hop.traffic.bytes_up
                await asyncio.sleep(0.2)
            (pair,) = here.hop.pairs
            assert pair.up.kept_bytes <= READ_BYTES
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
            async with world(to=taken.getsockname()[1]) as here:
                reader, _ = await here.connect()
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                assert here.hop.traffic.refused == 1

    in_time(story)


def test_a_callee_that_resets_resets_the_callers_connection() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        socket_of = writer.get_extra_info("socket")
        socket_of.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def story() -> None:
        async with world(die) as here:
            reader, writer = await here.connect()
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await until(lambda: not here.hop.traffic.open)

    in_time(story)


@pytest.mark.parametrize(
    ("request_line", "status"), [("GET /routes", 200), ("GET /healthz", 200), ("GET /x", 404), ("POST /routes", 405)]
)
def test_the_control_endpoint_answers_what_it_knows(request_line: str, status: int) -> None:
    async def story() -> None:
        hop = Hop(Route("edge-1>gateway-eu", 5001, "127.0.0.1", 6001))
        server = await asyncio.get_running_loop().create_server(lambda: Control(Board([hop])), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(f"{request_line} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
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
        ('{"host": "here", "routes": []}', "host"),
        ('[{"name": "a", "listen": 5, "to": "h:1"}, {"name": "a", "listen": 6, "to": "h:1"}]', "more than one"),
        ('[{"name": "a", "listen": 5, "to": "h:1"}, {"name": "b", "listen": 5, "to": "h:1"}]', "both listen"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_two_routes_may_listen_on_one_port_of_two_addresses() -> None:
    own = '{"name": "b", "listen": 5, "to": "h:1", "at": "127.0.0.2"}'
    assert [route.at for route in parse(f'[{{"name": "a", "listen": 5, "to": "h:1"}}, {own}]').routes] == [
        "",
        "127.0.0.2",
    ]
    with pytest.raises(ConfigError, match="`at`"):
        parse('[{"name": "a", "listen": 5, "to": "h:1", "at": "here"}]')


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
