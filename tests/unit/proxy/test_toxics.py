"""What each toxic does to connections that are open and to new ones, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hop_world import LIMIT_S, World, echo, in_time, send, until, world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stormdrill.proxy import flow
from stormdrill.proxy.flow import READ_BYTES
from stormdrill.proxy.shaping import BUFFER_BYTES, DELAYED_BYTES, Jitter
from stormdrill.proxy.toxic import Toxic, ToxicError

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HOLDING = ["stall", "cut"]
PASSING: list[tuple[str, dict[str, object]]] = [
    ("delay", {"delay_ms": 5, "jitter_ms": 5, "direction": "both"}),
    ("stall", {}),
    ("trickle", {"bytes_per_s": 200_000}),
    ("squeeze", {"bytes_per_s": 200_000}),
    ("cut", {}),
]
"""Those under which no byte may be lost."""


async def said_back(stream: Stream, text: bytes) -> float:
    """Seconds until an echo of this has come."""
    began_s = asyncio.get_running_loop().time()
    await send(stream[1], text)
    assert await stream[0].readexactly(len(text)) == text
    return asyncio.get_running_loop().time() - began_s


async def is_silent(stream: Stream, for_s: float = 0.1) -> bool:
    try:
        await asyncio.wait_for(stream[0].read(1), for_s)
    except TimeoutError:
        return True
    return False


def test_a_delay_holds_back_open_and_new_connections_and_ends_with_its_removal() -> None:
    async def story() -> None:
        async with world() as here:
            opened = await here.connect()
            await said_back(opened, b"before")
            here.put("late", "delay", delay_ms=80)
            assert await said_back(opened, b"open before") >= 0.08
            assert await said_back(await here.connect(), b"new") >= 0.08
            here.put("late", "delay", delay_ms=60_000)
            await send(opened[1], b"on its way")
            assert await is_silent(opened)
            assert here.board.remove("late") == 1
            assert await opened[0].readexactly(10) == b"on its way"

    in_time(story)


def test_toxics_stack_and_the_removal_of_one_leaves_the_others() -> None:
    async def story() -> None:
        async with world() as here:
            opened = await here.connect()
            here.put("one", "delay", delay_ms=40, direction="up")
            here.put("two/three", "delay", delay_ms=50, direction="both")
            assert await said_back(opened, b"x") >= 0.14
            assert here.board.remove("one") == 1
            assert await said_back(opened, b"x") >= 0.1
            assert [one["tag"] for one in here.board.list()] == ["two/three"]
            assert here.board.clear() == 1
            assert here.board.remove("one") == 0

    in_time(story)


@pytest.mark.parametrize("kind", HOLDING)
def test_what_is_held_comes_out_in_order_when_it_is_let_go(kind: str) -> None:
    async def story() -> None:
        async with world() as here:
            opened = await here.connect()
            await said_back(opened, b"before")
            here.put("hold", kind)
            newcomer = await here.connect()
            for number in range(50):
                await send(opened[1], b"%04d" % number)
            await send(newcomer[1], b"hello")
            assert await is_silent(opened)
            assert await is_silent(newcomer)
            here.board.remove("hold")
            assert await opened[0].readexactly(200) == b"".join(b"%04d" % number for number in range(50))
            assert await newcomer[0].readexactly(5) == b"hello"

    in_time(story)


@pytest.mark.parametrize("kind", HOLDING)
def test_a_holding_hop_stops_reading_after_a_bounded_amount(kind: str) -> None:
    async def story() -> None:
        async with world() as here:
            reader, writer = await here.connect()
            await said_back((reader, writer), b"x")
            here.put("hold", kind)
            data = os.urandom(32 * 1024 * 1024)
            sending = asyncio.create_task(send(writer, data))
            (pair,) = here.hop.pairs
            await until(lambda: pair.up.kept_bytes >= BUFFER_BYTES)
            await asyncio.sleep(0.05)
            assert pair.up.kept_bytes == BUFFER_BYTES
            here.put("hold", "delay", delay_ms=60_000, direction="up")
            await until(lambda: pair.up.kept_bytes >= DELAYED_BYTES)
            assert pair.up.kept_bytes == DELAYED_BYTES
            here.board.clear()
            assert await reader.readexactly(len(data)) == data
            await sending
            assert pair.up.kept_bytes <= READ_BYTES

    in_time(story)


def test_a_cut_in_one_direction_lets_the_other_pass() -> None:
    async def story() -> None:
        heard = bytearray()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                heard.extend(data)
                writer.write(b"answer")
            writer.close()

        async with world(listen) as here:
            opened = await here.connect()
            await until(lambda: next(iter(here.hop.pairs)).joined)
            here.put("cut", "cut", direction="down")
            await send(opened[1], b"asked")
            await until(lambda: heard == b"asked")
            assert await is_silent(opened)
            here.board.clear()
            assert await opened[0].readexactly(6) == b"answer"

    in_time(story)


def test_the_callee_hears_of_no_new_connection_before_the_cut_has_healed() -> None:
    async def story() -> None:
        known = []

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            known.append(await reader.read(100))
            writer.close()

        async with world(note) as here:
            here.put("cut", "cut")
            gone = await here.connect()
            await send(gone[1], b"given up")
            waiting = await here.connect()
            await send(waiting[1], b"patient")
            gone[1].close()
            await until(lambda: len(here.hop.pairs) == 1)
            assert known == []
            here.board.clear()
            await until(lambda: known == [b"patient"])

    in_time(story)


def test_a_reset_hits_open_connections_on_both_sides_and_every_new_one() -> None:
    async def story() -> None:
        callee_saw: list[BaseException] = []

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read()
            except ConnectionResetError as error:
                callee_saw.append(error)
            writer.close()

        async with world(note) as here:
            opened = await here.connect()
            await until(lambda: next(iter(here.hop.pairs)).joined)
            assert here.put("r", "reset")["refused"] == 1
            with pytest.raises(ConnectionResetError):
                await opened[0].read()
            await until(lambda: len(callee_saw) == 1)
            with pytest.raises(ConnectionResetError):
                await (await here.connect())[0].read()
            assert here.board.list()[0]["refused"] == 2
            assert here.hop.traffic.open == 0

    in_time(story)


def test_a_refusing_hop_has_no_listener_until_it_is_removed_and_its_port_stays_its_own() -> None:
    async def story() -> None:
        async with world() as here:
            opened = await here.connect()
            await said_back(opened, b"x")
            here.put("r", "refuse")
            with pytest.raises(ConnectionResetError):
                await opened[0].read()
            with pytest.raises(ConnectionRefusedError):
                await here.connect()
            with socket.socket() as thief, pytest.raises(OSError, match="in use"):
                thief.bind(("127.0.0.1", here.port))
            here.board.remove("r")
            await said_back(await here.connect(), b"back")

    in_time(story)


def test_a_refusal_that_can_not_be_undone_yet_is_said_and_tried_again() -> None:
    async def story() -> None:
        async with world() as here:
            here.put("r", "refuse")
            with socket.socket() as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                thief.bind(("127.0.0.1", here.port))
                thief.listen()
                for _ in range(2):
                    with pytest.raises(ToxicError, match="can't be listened on"):
                        here.board.remove("r")
            await until(lambda: here.hop.listener is not None and here.hop.listener.listening)
            assert here.board.remove("r") == 0
            await said_back(await here.connect(), b"back")

    in_time(story)


def test_a_trickle_is_never_faster_than_told_for_each_connection() -> None:
    async def story() -> None:
        async with world() as here:
            opened = [await here.connect() for _ in range(3)]
            here.put("t", "trickle", bytes_per_s=20_000, direction="up")
            took_s = await asyncio.gather(*(said_back(stream, os.urandom(3_000)) for stream in opened))
            assert min(took_s) >= 0.9 * 3_000 / 20_000
            here.put("t", "trickle", bytes_per_s=1, direction="up")
            await send(opened[0][1], b"never to be waited for")
            here.board.clear()
            assert await opened[0][0].readexactly(22) == b"never to be waited for"

    in_time(story)


@pytest.mark.parametrize("kind", ["trickle", "squeeze"])
def test_a_rate_that_nobody_reaches_touches_nobody(kind: str) -> None:
    async def story() -> None:
        async with world() as here:
            stream = await here.connect()
            here.put("wide", kind, bytes_per_s=1_000_000_000)
            await said_back(stream, os.urandom(3_000))
            assert [(one["connections"], one["bytes"]) for one in here.board.list()] == [(0, 0)]
            here.put("narrow", kind, bytes_per_s=50_000, direction="up")
            await said_back(stream, os.urandom(3_000))
            seen = {one["tag"]: (one["connections"], one["bytes"]) for one in here.board.list()}
            assert seen["wide"] == (0, 0)
            assert seen["narrow"][0] == 1
            assert 0 < seen["narrow"][1] <= 3_000  # what was there already may have passed its first turn

    in_time(story)


def test_a_squeeze_is_shared_by_all_connections_and_starves_none() -> None:
    async def story() -> None:
        async with world() as here:
            opened = [await here.connect() for _ in range(4)]
            here.put("s", "squeeze", bytes_per_s=100_000, direction="down")
            took_s = await asyncio.gather(*(said_back(stream, os.urandom(5_000)) for stream in opened))
            assert max(took_s) >= 0.8 * 20_000 / 100_000
            assert min(took_s) >= 0.4 * max(took_s)  # nobody was served first and whole

    in_time(story)


def test_two_squeezes_on_the_same_connections_block_nobody_for_ever() -> None:
    async def story() -> None:
        async with world() as here:
            opened = [await here.connect() for _ in range(6)]
            here.put("one", "squeeze", bytes_per_s=150_000)
            here.put("two", "squeeze", bytes_per_s=100_000)
            here.put("three", "trickle", bytes_per_s=50_000)
            await asyncio.gather(*(said_back(stream, os.urandom(4_000)) for stream in opened))

    in_time(story)


def test_a_toxic_ends_by_itself_when_its_time_is_over() -> None:
    async def story() -> None:
        async with world() as here:
            opened = await here.connect()
            here.put("s", "stall", expires_in_s=3600)
            assert here.put("s", "stall", expires_in_s=0.1)["expires_in_s"] is not None
            assert await said_back(opened, b"x") >= 0.05
            assert here.board.list() == []

    in_time(story)


def test_the_same_request_again_changes_nothing_and_another_one_replaces() -> None:
    async def story() -> None:
        async with world() as here:
            opened = await here.connect()
            here.put("d", "delay", delay_ms=10)
            await said_back(opened, b"seen")
            assert here.put("d", "delay", delay_ms=10)["bytes"] == 4
            assert here.put("d", "delay", delay_ms=11)["bytes"] == 0
            assert len(here.board.list()) == 1

    in_time(story)


@pytest.mark.parametrize(("kind", "fields"), PASSING, ids=[kind for kind, _ in PASSING])
def test_half_a_connection_closes_behind_the_bytes_that_went_before(kind: str, fields: dict[str, object]) -> None:
    async def story() -> None:
        async def answer_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await reader.read()
            writer.write(asked[::-1])
            writer.close()

        async with world(answer_after_the_end) as here:
            reader, writer = await here.connect()
            await until(lambda: next(iter(here.hop.pairs)).joined)
            here.put("t", kind, **fields)
            sent = os.urandom(5_000)
            writer.write(sent)
            writer.write_eof()
            if kind in HOLDING:
                assert await is_silent((reader, writer))
                here.board.clear()
            assert await reader.read() == sent[::-1]
            await until(lambda: not here.hop.pairs)

    in_time(story)


@pytest.mark.parametrize("kind", HOLDING)
def test_a_reset_by_a_caller_waits_its_turn_too(kind: str) -> None:
    async def story() -> None:
        heard: list[bytes] = []

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(100):
                    heard.append(data)
            except ConnectionResetError:
                heard.append(b"RESET")
            writer.close()

        async def note_and_talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(bytes(4 * READ_BYTES))  # nobody reads it
            await note(reader, writer)

        async with world(note_and_talk) as here:
            _, writer = await here.connect()
            await until(lambda: next(iter(here.hop.pairs)).joined)
            here.put("hold", kind)
            await send(writer, b"last words")
            await until(lambda: bool(here.board.list()[0]["bytes"]))
            end = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await until(lambda: next(iter(here.hop.pairs)).up.ending != "")
            assert heard == []
            here.board.clear()
            await until(lambda: heard in ([b"last words", b"RESET"], [b"RESET"]))  # a reset may overtake in the kernel
            await until(lambda: not here.hop.pairs)

    in_time(story)


def _delays(seed: str, place: str, distribution: str = "uniform") -> list[float]:
    toxic = Toxic("tag", ("a>b",), "delay", "both", 100, 40, distribution, seed=seed)
    jitter = Jitter(toxic, place)
    return [jitter.draw_s() for _ in range(500)]


def test_the_same_seed_gives_the_same_delays_and_another_one_others() -> None:
    assert _delays("a", "0 up") == _delays("a", "0 up")
    assert len({tuple(_delays(seed, place)) for seed in "ab" for place in ("0 up", "0 down", "1 up")}) == 6


@pytest.mark.parametrize(
    ("distribution", "lowest_s", "mean_s"), [("uniform", 0.06, 0.1), ("normal", 0.0, 0.1), ("pareto", 0.1, 0.12)]
)
def test_each_distribution_has_the_mean_and_the_floor_that_its_page_tells(
    distribution: str, lowest_s: float, mean_s: float
) -> None:
    seen = [value for seed in "abcdef" for value in _delays(seed, "0 up", distribution)]
    assert min(seen) >= lowest_s
    assert sum(seen) / len(seen) == pytest.approx(mean_s, rel=0.1)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_hundreds_of_connections_under_changing_toxics_leave_nothing_behind() -> None:
    async def story() -> None:
        async with world() as here:
            before = descriptors()
            for round_ in range(12):
                kind, fields = [*PASSING, ("reset", {}), ("refuse", {})][round_ % 7]
                opened = [await here.connect() for _ in range(25)]
                here.put(f"t{round_}", kind, **fields)
                for index, (_, writer) in enumerate(opened):
                    writer.write(b"something")
                    if index % 2:
                        writer.transport.abort()
                    else:
                        writer.close()
                here.board.remove(f"t{round_}")
            await until(lambda: not here.hop.pairs)
            await until(lambda: descriptors() <= before)
            assert here.hop.traffic.open == 0
            assert here.hop.traffic.connections == 300

    in_time(story)


Step = tuple[str, Callable[[World], object]]
PIECES = 12
TAGS = ["one", "two", "three"]
PUTS = st.tuples(st.sampled_from(TAGS), st.sampled_from(PASSING), st.sampled_from(["up", "down", "both"])).map(
    lambda drawn: (
        f"put {drawn[0]} {drawn[1][0]} {drawn[2]}",
        lambda here: here.put(drawn[0], drawn[1][0], **{**drawn[1][1], "direction": drawn[2]}),
    )
)
REMOVALS = st.sampled_from(TAGS).map(lambda tag: (f"remove {tag}", lambda here: here.board.remove(tag)))


@given(
    steps=st.lists(st.one_of(PUTS, PUTS, REMOVALS), max_size=8),
    sizes=st.lists(st.integers(1, 30_000), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_put_and_removed_no_byte_is_lost_doubled_or_moved(steps: list[Step], sizes: list[int]) -> None:
    async def talk(stream: Stream, size: int) -> None:
        sent = os.urandom(size)
        getting = asyncio.create_task(stream[0].readexactly(size))
        for at in range(0, size, size // PIECES + 1):
            await send(stream[1], sent[at : at + size // PIECES + 1])
            await asyncio.sleep(0.001)
        assert await getting == sent

    async def story() -> None:
        async with world(echo) as here:
            opened = [await here.connect() for _ in sizes]
            talks = [asyncio.create_task(talk(stream, size)) for stream, size in zip(opened, sizes, strict=True)]
            for _, step in steps:
                step(here)
                late = await here.connect()
                talks.append(asyncio.create_task(talk(late, 500)))
                opened.append(late)
                await asyncio.sleep(0.004)
            here.board.clear()
            await asyncio.gather(*talks)
            for stream in opened:
                await said_back(stream, b"as before")
                stream[1].write_eof()
                assert await stream[0].read() == b""
            await until(lambda: not here.hop.pairs)

    asyncio.run(asyncio.wait_for(story(), LIMIT_S))


def test_however_many_connections_are_delayed_what_is_kept_of_them_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_KEPT_BYTES", DELAYED_BYTES)
    count = 8

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass
        writer.close()

    async def story() -> None:
        async with world(swallow) as here:
            here.put("late", "delay", delay_ms=600_000, direction="up")
            writers = [(await here.connect())[1] for _ in range(count)]
            for writer in writers:
                writer.write(b"x" * 4 * DELAYED_BYTES)
            await until(lambda: len(here.hop.pairs) == count)
            await until(lambda: all(pair.up.kept_bytes >= BUFFER_BYTES for pair in here.hop.pairs))
            kept = sum(pair.up.kept_bytes for pair in here.hop.pairs)
            assert kept <= DELAYED_BYTES + READ_BYTES + count * BUFFER_BYTES
            here.board.clear()
            await until(lambda: all(pair.up.kept_bytes == 0 for pair in here.hop.pairs))
            await until(lambda: here.hop.traffic.bytes_up >= count * 4 * DELAYED_BYTES)
            for writer in writers:
                writer.transport.abort()
            await until(lambda: not here.hop.pairs)
            assert flow._ALL.bytes == 0

    in_time(story)
