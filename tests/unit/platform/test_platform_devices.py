"""GPU devices: how they fail, how that is found out, and what a region does without them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from jumping_loop import play

from stormdrill.platform import bugs
from stormdrill.platform.devices import (
    COLD,
    HANG,
    LOST,
    PROBE_EVERY_S,
    SLOW,
    SLOW_FACTOR,
    DeviceLostError,
    Devices,
    Watched,
)
from stormdrill.platform.jobs import MODEL_LOAD_S
from stormdrill.platform.lanes import Lanes
from stormdrill.platform.pools import OK, QUOTA_SLOTS, PoolState
from stormdrill.platform.queue import Entry
from stormdrill.platform.store import StoredJob


def devices(work: Path, blind: bool = False) -> tuple[Devices, list[str]]:
    told: list[str] = []

    async def changed(watched: Watched) -> None:
        told.append(f"{watched.device.name} {watched.state}")

    return Devices(work / "devices", blind, changed), told


async def probed(it: Devices, times: int = 12) -> None:
    for _ in range(times):
        await it.probe()
        await asyncio.sleep(PROBE_EVERY_S)


def write(work: Path, word: str, name: str = "gpu0") -> None:
    (work / "devices" / name).write_text(f"{word}\n")


@pytest.mark.parametrize("word", [SLOW, HANG, COLD])
def test_a_grey_device_is_found_by_its_times_takes_nothing_and_comes_back(tmp_path: Path, word: str) -> None:
    async def story() -> None:
        it, _ = devices(tmp_path)
        await probed(it)
        assert it.states() == {OK: 2}
        write(tmp_path, word)
        await probed(it)
        assert it.states() == {OK: 1, word: 1}
        best = it.best()
        assert best is not None
        assert best.device.name == "gpu1"
        write(tmp_path, OK)
        await probed(it)
        assert it.states() == {OK: 2}

    play(story())


def test_a_lost_device_is_seen_at_the_next_probe_and_is_not_made_again(tmp_path: Path) -> None:
    async def story() -> None:
        it, told = devices(tmp_path)
        (tmp_path / "devices" / "gpu1").unlink()
        await it.probe()
        assert told == ["gpu1 lost"]
        with pytest.raises(DeviceLostError):
            it.all[1].device.allocate()
        again, _ = devices(tmp_path)
        assert again.states() == {OK: 1, LOST: 1}

    play(story())


def test_a_worker_blind_to_grey_failures_sees_only_that_a_device_is_there(tmp_path: Path) -> None:
    async def story() -> None:
        it, told = devices(tmp_path, blind=True)
        write(tmp_path, HANG)
        await probed(it)
        assert told == []
        (tmp_path / "devices" / "gpu0").unlink()
        await it.probe()
        assert told == ["gpu0 lost"]

    play(story())


def test_what_hangs_ends_when_the_device_is_well_again_and_not_before(tmp_path: Path) -> None:
    async def story() -> None:
        it, _ = devices(tmp_path)
        write(tmp_path, HANG)
        batch = asyncio.create_task(it.all[0].device.run(0.1))
        await asyncio.sleep(600)
        assert not batch.done()
        write(tmp_path, OK)
        await batch

    play(story())


@pytest.mark.parametrize(("word", "takes_s"), [(OK, 0.2), (SLOW, 0.2 * SLOW_FACTOR), (COLD, 0.2 + MODEL_LOAD_S)])
def test_a_batch_takes_as_long_as_its_device_lets_it(tmp_path: Path, word: str, takes_s: float) -> None:
    async def story() -> float:
        it, _ = devices(tmp_path)
        write(tmp_path, word)
        clock = asyncio.get_running_loop().time
        began_s = clock()
        await it.all[0].device.run(0.2)
        return clock() - began_s

    assert play(story()) == pytest.approx(takes_s)


def test_slots_follow_the_devices_that_work_and_come_back_with_them() -> None:
    pool = PoolState.of("gpu")
    for step in range(10):
        pool.scale(float(step), 1.0)
    assert (pool.slots, pool.quota) == (4, QUOTA_SLOTS["gpu"])
    pool.last_contact_s = 10.0
    pool.devices = {OK: 1, SLOW: 1}
    assert (pool.slots, pool.quota, pool.ready(10.0)) == (2, 2, True)
    pool.devices = {LOST: 2}
    assert (pool.slots, pool.quota, pool.ready(10.0)) == (0, 0, False)
    pool.devices = {OK: 2}
    assert pool.slots == 4


def lanes_with(*kinds: str, devices_ok: int = 2, cpu_fallback: bool = True) -> Lanes:
    lanes = Lanes(bug=bugs.NONE if cpu_fallback else bugs.NO_CPU_FALLBACK)
    for pool in lanes.pools.values():
        pool.last_contact_s = 0.0
    lanes.pools["gpu"].devices = {OK: devices_ok, LOST: 2 - devices_ok}
    lanes.pools["gpu"].wanted = 4
    for number, kind in enumerate(kinds):
        tier = 3 if kind in ("training", "batch") else 1
        job = StoredJob(f"{kind}-{number}", kind, tier, 30_000.0, True, "eu", 0.0, 0.0, 0.0)  # type: ignore[arg-type]
        lanes.push(Entry(job, "cpu" if kind in ("api", "batch") else "gpu", 0.1, 0.0, 10.0))
    return lanes


def leased(lanes: Lanes, pool: str) -> list[str]:
    found = []
    while (entry := lanes.next(pool, 99, 0.0)) is not None:  # type: ignore[arg-type]
        lanes.take(entry, pool)  # type: ignore[arg-type]
        found.append(entry.job.kind)
    return found


def test_training_gets_at_most_half_of_the_gpu_slots_and_inference_goes_first() -> None:
    lanes = lanes_with(*["training"] * 4, *["inference"] * 20)
    assert leased(lanes, "gpu") == ["inference"] * 16
    lanes = lanes_with(*["training"] * 4, *["inference"] * 3)
    assert leased(lanes, "gpu") == [*["inference"] * 3, *["training"] * 2]


def test_without_devices_inference_goes_to_the_cpu_and_training_waits() -> None:
    lanes = lanes_with("training", "inference", "api", devices_ok=0)
    assert leased(lanes, "gpu") == []
    assert sorted(leased(lanes, "cpu")) == ["api", "inference"]
    assert lanes.depth == 1


def test_with_the_bug_no_cpu_fallback_inference_waits_for_the_devices() -> None:
    lanes = lanes_with("inference", "api", devices_ok=0, cpu_fallback=False)
    assert leased(lanes, "cpu") == ["api"]


def test_a_worker_that_was_away_does_not_take_its_devices_for_slow(tmp_path: Path) -> None:
    async def story() -> None:
        it, told = devices(tmp_path)
        for away_s in (0.01, 0.03, 0.3, 30.0):
            await it.probe()
            await asyncio.sleep(0)
            asyncio.get_running_loop().away(away_s)  # type: ignore[attr-defined]
            await asyncio.sleep(PROBE_EVERY_S)
        assert told == []

    play(story())
