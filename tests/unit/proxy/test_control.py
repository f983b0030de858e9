"""What the proxy's control answers: many small requests on one connection, and refusals that say what to write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hop_world import NAME, World, in_time, said, world

from stormdrill.proxy.control import Control

STALL = {"routes": [NAME], "kind": "stall"}


@asynccontextmanager
async def control() -> AsyncIterator[tuple[World, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with world() as here:
        server = await asyncio.get_running_loop().create_server(lambda: Control(here.board), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield here, reader, writer
        finally:
            writer.close()
            server.close()


def asked(method: str, path: str, body: object = None) -> bytes:
    text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


def test_many_requests_written_at_once_are_answered_in_their_order() -> None:
    async def story() -> None:
        async with control() as (here, reader, writer):
            writer.write(asked("PUT", "/toxics/late-dependency%2Ffeed", STALL) + asked("GET", "/routes"))
            writer.write(asked("GET", "/toxics") + asked("DELETE", "/toxics/late-dependency%2Ffeed") * 2)
            writer.write(asked("PUT", "/toxics/a", STALL) + asked("DELETE", "/toxics"))
            answers = [await said(reader) for _ in range(7)]
            assert [status for status, _ in answers] == [200] * 7
            put, routes, toxics, first, second, _, all_ = (body for _, body in answers)
            assert put["tag"] == "late-dependency/feed"
            assert routes[0]["toxics"] == ["late-dependency/feed"]
            assert toxics[0] | {"expires_in_s": None} == put
            assert (first, second, all_) == ({"removed": 1}, {"removed": 0}, {"removed": 1})
            assert here.hop.toxics == ()

    in_time(story)


def test_a_request_that_comes_byte_by_byte_is_one_request() -> None:
    async def story() -> None:
        async with control() as (_, reader, writer):
            for byte in asked("PUT", "/toxics/t", STALL):
                writer.write(bytes([byte]))
                await writer.drain()
            assert (await said(reader))[0] == 200

    in_time(story)


@pytest.mark.parametrize(
    ("body", "status", "parts"),
    [
        (b"[", 400, ["not JSON"]),
        (b"[" * 60_000, 400, ["not JSON"]),
        ([], 400, ["not an object"]),
        ({"kind": "stall"}, 400, ["`routes` is missing", "edge-1>gateway-eu"]),
        ({"routes": [], "kind": "stall"}, 400, ["`routes`"]),
        ({"routes": [[]], "kind": "stall"}, 400, ["`routes`"]),
        ({"routes": [NAME]}, 400, ["`kind` is missing", "squeeze"]),
        ({"routes": [NAME], "kind": {}}, 400, ["`kind`"]),
        ({"routes": [NAME], "kind": "delay"}, 400, ["`delay_ms` is missing"]),
        ({"routes": [NAME], "kind": "delay", "delay_ms": True}, 400, ["`delay_ms`"]),
        (b'{"routes": ["a>b"], "kind": "delay", "delay_ms": NaN}', 400, ["`delay_ms`"]),
        (b'{"routes": ["a>b"], "kind": "delay", "delay_ms": 1e999}', 400, ["`delay_ms`"]),
        (b'{"routes": ["a>b"], "kind": "squeeze", "bytes_per_s": 1' + b"0" * 400 + b"}", 400, ["`bytes_per_s`"]),
        ({"routes": [NAME], "kind": "trickle", "bytes_per_s": 0}, 400, ["from 1"]),
        (STALL | {"direction": []}, 400, ["`direction`"]),
        (STALL | {"expires_in_s": -1}, 400, ["`expires_in_s`"]),
        (STALL | {"seed": None, "delay_ms": 1}, 400, ["no `delay_ms`", "`seed`"]),
        ({"routes": [NAME, "c>d"], "kind": "stall"}, 404, ["no route c>d", "there are a>b"]),
    ],
)
def test_bad_input_is_refused_with_all_its_problems_and_nothing_is_applied(
    body: object, status: int, parts: list[str]
) -> None:
    async def story() -> None:
        async with control() as (here, reader, writer):
            writer.write(asked("PUT", "/toxics/t", body))
            got, answer = await said(reader)
            assert got == status
            assert [part for part in parts if part not in answer["error"]] == []
            assert here.board.list() == []
            assert here.hop.toxics == ()

    in_time(story)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"PUT /toxics/t HTTP/1.1\r\nContent-Length: x\r\n\r\n", 413),
        (b"PUT /toxics/t HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"PUT /toxics/t HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET /" + b"x" * 9000, 431),
        (asked("PUT", "/toxics/", STALL), 400),
        (asked("PUT", "/toxics/%FF", STALL), 400),
        (asked("PUT", "/toxics/" + "x" * 300, STALL), 400),
        (asked("PATCH", "/toxics/t", STALL), 405),
        (asked("POST", "/toxics"), 405),
    ],
)
def test_what_is_no_request_is_answered_all_the_same(raw: bytes, status: int) -> None:
    async def story() -> None:
        async with control() as (here, reader, writer):
            writer.write(raw)
            assert (await said(reader))[0] == status
            assert here.board.list() == []

    in_time(story)


def test_the_caller_may_vanish_and_the_toxic_still_ends() -> None:
    async def story() -> None:
        async with control() as (here, reader, writer):
            writer.write(asked("PUT", "/toxics/t", STALL | {"expires_in_s": 0.05}))
            assert (await said(reader))[0] == 200
            writer.transport.abort()
            while here.hop.toxics:
                await asyncio.sleep(0.01)

    in_time(story)


def test_a_toxic_may_be_on_many_thousand_hops() -> None:
    """A partition between two halves of a large system is one request."""

    async def story() -> None:
        async with control() as (_, reader, writer):
            writer.write(asked("PUT", "/toxics/t", STALL | {"routes": [f"caller-{n}>callee" for n in range(20_000)]}))
            status, answer = await said(reader)
            assert (status, answer["error"][:20]) == (404, "no route caller-0>ca"), "read whole, and looked up"

    in_time(story)
