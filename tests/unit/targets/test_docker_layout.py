"""Where a run's containers will be, and what an engine's words mean: without an engine."""

from __future__ import annotations

import ipaddress
import time

from hypothesis import given
from hypothesis import strategies as st

from stormdrill.model.system import Dependency, ServiceInstance, System
from stormdrill.targets.docker.engine import joined, state_of
from stormdrill.targets.docker.events import Told, told_by
from stormdrill.targets.docker.fleet import Fleet, Member
from stormdrill.targets.docker.layout import command, environment, lay_out, subnets
from stormdrill.targets.process.wiring import FreePorts

WEB = ServiceInstance("web", "web", ("python", "-m", "web", "$port"), env={"KEY": "${secret:key}", "AT": "$port"})
DB = ServiceInstance("db", "db", ("db",), port=5432)
SYSTEM = System("shop", "web", (WEB, DB), dependencies=(Dependency("db", ("web",), "db"),))


def test_each_has_an_address_of_its_own_and_calls_pass_the_proxy() -> None:
    free = FreePorts()
    laid = lay_out(SYSTEM, "run", "10.196.7.0/24", free)
    free.close()
    addresses = [ipaddress.ip_address(place.ip) for place in laid.places.values()]
    assert len(set(addresses)) == 3
    assert all(address in ipaddress.ip_network(laid.subnet) for address in addresses)
    (route,) = laid.routes
    assert route["to"] == f"{laid.places['db'].ip}:5432"
    assert laid.peers["web"] == {"STORMDRILL_PEERS_DB": f"db={laid.places['proxy'].ip}:{route['listen']}"}
    told = environment(WEB, laid.places["web"], laid.peers["web"], {"key": "hush"})
    assert (told["KEY"], told["AT"], told["STORMDRILL_HOST"]) == ("hush", "8000", "0.0.0.0")  # noqa: S104
    assert command(WEB, laid.places["web"]) == ["python3", "-m", "web", "8000"]


def test_who_knows_names_alone_finds_the_proxy_under_each_name_at_the_callees_own_port() -> None:
    other = ServiceInstance("cache", "cache", (), port=5432)  # the same port: so it takes an address of its own
    dependencies = (Dependency("db", ("web",), "db"), Dependency("cache", ("web",), "cache"))
    system = System("shop", "web", (WEB, DB, other), dependencies=dependencies)
    free = FreePorts()
    laid = lay_out(system, "run", "10.196.7.0/24", free, {"web"}, {"db": ["store"]})
    free.close()
    known = laid.known_as["web"]
    assert known["db"] == known["store"] != known["cache"]
    assert [(route["at"], route["listen"]) for route in laid.routes] == [(known["db"], 5432), (known["cache"], 5432)]
    assert not {*laid.stand_ins} & {place.ip for place in laid.places.values()}
    assert laid.peers["web"]["STORMDRILL_PEERS_CACHE"] == f"cache={known['cache']}:5432"
    assert (laid.direct("db"), laid.direct("web")) == (["db-direct"], [])


@given(st.text(max_size=30), st.lists(st.integers(0, 1023), max_size=20))
def test_a_network_of_a_run_overlaps_with_none_that_is_there(run: str, taken: list[int]) -> None:
    used = [f"10.{196 + number // 256}.{number % 256}.0/24" for number in taken]
    found = subnets(run, used)
    assert len(found) == 1024 - len(set(used))
    assert not set(found) & set(used)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=10))
def test_output_is_joined_from_its_pieces(pieces: list[tuple[int, bytes]]) -> None:
    framed = b"".join(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4) + data for stream, data in pieces)
    assert joined(framed) == b"".join(data for _, data in pieces)


def test_a_paused_container_is_frozen_and_a_dead_one_gone() -> None:
    def life(status: str, paused: bool = False) -> str:
        state = {"Status": status, "Paused": paused, "Pid": 1, "ExitCode": 0, "StartedAt": ""}
        return state_of({"Id": "c", "State": state}).life

    assert [life("running"), life("running", True), life("exited"), life("dead"), life("created")] == [
        "running",
        "frozen",
        "gone",
        "gone",
        "gone",
    ]


def test_only_what_says_something_of_a_life_is_told() -> None:
    def told(kind: str, action: str, **attributes: str) -> Told | None:
        return told_by({"Type": kind, "Action": action, "Actor": {"ID": "c", "Attributes": attributes}}, 1.0)

    died = told("container", "die", exitCode="137")
    assert died is not None
    assert (died.action, died.code) == ("die", 137)
    cut = told("network", "disconnect", container="c", name="n")
    assert cut is not None
    assert (cut.container, cut.action) == ("c", "network-disconnect")
    assert told("container", "exec_create: sh") is None
    assert told("network", "create") is None


def test_what_we_do_is_expected_once_and_what_comes_early_is_kept() -> None:
    fleet = Fleet()
    pause = Told("id", "pause", None, 1.0)
    assert fleet.told_of(pause) is None
    member = Member("web", "web", "system", "id", "name", "image")
    assert fleet.join(member) == [pause]
    fleet.expect("web", "pause")
    assert [fleet.event(member, pause).expected for _ in range(2)] == [True, False]


def test_what_is_told_late_of_a_start_is_how_it_was_made_and_a_death_is_none_of_that() -> None:
    fleet, made_ms = Fleet(), time.monotonic() * 1000
    fleet.join(Member("web", "web", "system", "c1", "web", "image"))
    later_ms = time.monotonic() * 1000 + 1.0
    told = [("network-connect", made_ms), ("die", made_ms), ("network-connect", later_ms)]
    assert [fleet.is_how_it_was_made(Told("c1", word, None, at_ms)) for word, at_ms in told] == [True, False, False]
