"""What a compose file becomes in a run: read and arranged without a tool, an engine or a container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stormdrill.errors import Refused
from stormdrill.model.system import Dependency, Ready, ServiceInstance, System
from stormdrill.targets.docker.composition import Composition, Wish, arranged, problems, read, to_build

LABELS = {"stormdrill": "run-1"}
WEB = ServiceInstance("web", "web", (), ready=Ready(path="/"), port=8080)
DB = ServiceInstance("db", "db", (), port=5432)
SHOP = System("shop", "web", (WEB, DB), dependencies=(Dependency("db", ("web",), "db"),))


def resolved(**services: object) -> Composition:
    return read(json.dumps({"services": services}).encode(), ["web", "db"])


def started(service: dict[str, object], **wish: Any) -> dict[str, Any]:
    """What the tool is told of one service."""
    told = arranged(
        resolved(web=service),
        "shop",
        "run-1",
        "stormdrill-run-1",
        {"web": Wish("c", "10.0.0.9", LABELS, **wish)},
        LABELS,
    )
    found: dict[str, Any] = json.loads(told)["services"]["web"]
    return found


def test_nothing_of_a_compose_file_is_published_or_restarted_or_named_but_by_the_run() -> None:
    made = started(
        {
            "image": "shop",
            "ports": ["0.0.0.0:80:80", {"published": 443, "target": 443}],
            "restart": "always",
            "container_name": "precious",
            "networks": {"front": {"aliases": ["www"]}},
            "labels": ["team=serving"],
        },
        published="127.0.0.1:15000:8080",
        aliases=("www",),
    )
    assert made["ports"] == ["127.0.0.1:15000:8080"]
    assert (made["restart"], made["container_name"]) == ("no", "c")
    assert made["networks"] == {"run": {"ipv4_address": "10.0.0.9", "aliases": ["www"]}}
    assert made["labels"] == {"team": "serving", "stormdrill": "run-1"}
    assert "ports" not in started({"image": "shop", "ports": ["80:80"]})


def test_what_the_run_puts_into_the_environment_is_not_filled_in_again() -> None:
    made = started({"image": "shop", "environment": {"KEPT": "a$$b"}}, env={"SECRET": "p$HOME"})
    assert made["environment"] == {"KEPT": "a$$b", "SECRET": "p$$HOME"}


def test_limits_are_the_systems_else_the_files_wherever_it_says_them_and_swap_is_none() -> None:
    deploy = {"deploy": {"resources": {"limits": {"memory": "64M", "cpus": "0.5"}}}}
    found = started({"image": "shop", **deploy})
    assert (found["mem_limit"], found["memswap_limit"], found["cpus"]) == ("64M", "64M", 0.5)
    found = started({"image": "shop", "cpus": 2, "mem_limit": "1g", "memswap_limit": "2g"}, memory_mb=64.0, cpus=0.5)
    assert (found["mem_limit"], found["memswap_limit"], found["cpu_quota"]) == ("65536k", "65536k", 50_000)
    assert "cpus" not in found


def test_names_and_processes_are_bounded_unless_the_file_says_how() -> None:
    found = started({"image": "shop"})
    assert (found["dns_opt"], found["pids_limit"]) == (["ndots:0"], 256)
    found = started({"image": "shop", "dns_opt": ["ndots:2"], "pids_limit": 4000})
    assert (found["dns_opt"], found["pids_limit"]) == (["ndots:2"], 4000)
    found = started({"image": "shop", "deploy": {"resources": {"limits": {"pids": 9}}}})
    assert found["pids_limit"] == 9


def test_volumes_are_the_runs_own_however_they_are_called() -> None:
    text = (
        b'{"services": {"web": {"image": "a", "volumes": ["data:/data"]}}, "volumes": {"data": {"name": "precious"}}}'
    )
    wish = {"web": Wish("c", "10.0.0.9", LABELS)}
    told = json.loads(arranged(read(text, []), "shop", "run-1", "net", wish, LABELS))
    assert told["volumes"] == {"data": {"name": "stormdrill-run-1-data", "labels": LABELS}}
    assert told["services"]["web"]["volumes"] == ["data:/data"]


def test_a_service_is_found_under_every_name_that_the_file_gives_it() -> None:
    found = resolved(
        web={"image": "a", "links": ["db:database"]},
        db={"image": "b", "container_name": "pg", "networks": {"x": {"aliases": ["store"]}, "y": None}},
    )
    assert found.also_known_as("db") == ["store", "pg", "database"]


def test_what_is_built_has_a_name_and_a_profile_counts_for_whom_the_system_does_not_name() -> None:
    found = resolved(
        web={"build": {"context": "/src"}, "profiles": ["drill"]}, extra={"image": "x", "profiles": ["debug"]}
    )
    assert list(found.services) == ["web"]
    assert json.loads(to_build(found, "shop"))["services"]["web"]["image"] == found.image("web", "shop") == "shop-web"


def test_what_only_a_held_back_service_uses_is_none_of_the_runs() -> None:
    outside = {"external": True, "name": "precious"}
    held_back = {"image": "x", "profiles": ["debug"], "volumes": ["v:/v", "shared:/s"], "networks": ["n"]}
    web = {"image": "a", "volumes": [{"type": "volume", "source": "shared", "target": "/s"}]}
    found = read(
        json.dumps(
            {
                "services": {"web": web, "db": {"image": "b"}, "extra": held_back},
                "volumes": {"v": outside, "shared": {}},
                "networks": {"n": outside},
            }
        ).encode(),
        ["web", "db"],
    )
    assert (list(found.volumes), list(found.networks)) == (["shared"], [])
    assert problems(found, SHOP, "compose.yaml") == []


@pytest.mark.parametrize(
    ("depends_on", "told"),
    [(["extra"], 1), ({"extra": {"condition": "service_started"}}, 1), ({"extra": {"required": False}}, 0)],
)
def test_who_needs_a_held_back_service_is_refused_before_the_start(depends_on: object, told: int) -> None:
    found = resolved(
        web={"image": "a", "depends_on": depends_on}, db={"image": "b"}, extra={"image": "x", "profiles": ["debug"]}
    )
    said = [one.what for one in problems(found, SHOP, "compose.yaml")]
    assert said == ["web depends on extra, which its profile holds back"] * told


@pytest.mark.parametrize(
    ("web", "says"),
    [
        ({"network_mode": "host"}, "network_mode: host"),
        ({"deploy": {"replicas": 3}}, "several times"),
        ({"networks": {"x": {"ipv4_address": "172.20.0.5"}}}, "fixed address"),
    ],
)
def test_what_a_run_cannot_carry_out_is_refused_with_what_to_write(web: dict[str, object], says: str) -> None:
    found = problems(resolved(web={"image": "a", **web}, db={"image": "b"}), SHOP, "compose.yaml")
    assert [says in one.what for one in found] == [True]
    assert found[0].fix


def test_who_is_called_has_a_port_and_who_is_named_is_there() -> None:
    bare = System("shop", "web", (ServiceInstance("web", "web", ()), ServiceInstance("cache", "cache", ())))
    said = [one.what for one in problems(resolved(web={"image": "a"}), bare, "compose.yaml")]
    assert said == [
        "nothing says where web listens inside, and it is called",
        "no service cache, which the system shop names",
    ]


def test_what_would_reach_beyond_the_run_is_refused() -> None:
    outside = {"external": True, "name": "precious"}
    text = json.dumps({"services": {"web": {}, "db": {}}, "volumes": {"v": outside}, "networks": {"n": outside}})
    said = [one.what for one in problems(read(text.encode(), []), SHOP, "compose.yaml")]
    assert ["v is external" in said[0], "n is external" in said[1]] == [True, True]


def test_a_file_without_services_is_bad_input() -> None:
    with pytest.raises(Refused, match="no services that can be read"):
        read(b"version: '3'", [])
