"""How services become instances, and what else a system file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from stormdrill.errors import Refused
from stormdrill.model.policy import Policy
from stormdrill.model.profile import Piece
from stormdrill.model.system import (
    AlertSource,
    Dependency,
    DockerSpec,
    HopCounters,
    Indicators,
    JobLedger,
    MetricSource,
    Pressure,
    Ready,
    Release,
    Servers,
    Traffic,
)
from stormdrill.spec.policy import read_policy
from stormdrill.spec.profile import read_profile
from stormdrill.spec.system import read_system

REPOSITORY = Path(__file__).parent / "repository"
SYSTEM = REPOSITORY / "experiments" / "systems" / "platform.yaml"


def test_services_are_expanded_into_named_and_labelled_instances() -> None:
    instances = {one.name: one for one in read_system(SYSTEM).instances}
    assert list(instances) == ["edge-1", "edge-2", "gateway-eu", "gateway-us", "cpu-eu", "cpu-us", "feed"]
    assert instances["gateway-eu"].labels == {"region": "eu"}
    assert instances["cpu-us"].labels == {"region": "us", "pool": "cpu"}
    assert instances["edge-1"].labels == {}
    assert instances["edge-1"].ready == Ready("GET", "/healthz")
    assert instances["cpu-eu"].ready is None


def test_parameters_are_filled_in_and_the_port_is_left_to_the_target() -> None:
    instances = {one.name: one for one in read_system(SYSTEM).instances}
    assert instances["edge-1"].command == ("python", "-m", "service", "edge", "--port", "$port")
    assert instances["gateway-us"].command[-4:] == ("--region", "us", "--bug", "none")
    assert instances["gateway-us"].env == {"REGION_NAME": "in-us"}


def test_the_rest_of_the_system_is_resolved() -> None:
    system = read_system(SYSTEM, {"bug": "no-failover"})
    assert (system.name, system.entry, system.admin) == ("platform", "edge", "gateway")
    assert system.dependencies == (Dependency("feed", ("gateway", "cpu"), "feed"),)
    assert system.metrics == (
        MetricSource("queue_age", "gateway", "queue_oldest_age_seconds"),
        MetricSource("queue_depth", "gateway", "queue_depth", labels=("queue",)),
    )
    assert system.served == MetricSource("served", "gateway", "requests_served_total")
    assert system.alerts == (AlertSource("RegionDown", "edge", "alerts"),)
    assert system.jobs == JobLedger("gateway", "/jobs")
    assert system.capacity == {"cpu": "16 slots"}
    assert (system.ready_timeout_s, system.stop_timeout_s) == (20.0, 3.0)
    assert system.parameters == {"bug": "no-failover", "regions": "eu,us"}


def system_of(tmp_path: Path, services: str, head: str = "") -> Path:
    file = tmp_path / "app.yaml"
    file.write_text(f"name: app\nentry: app\n{head}process:\n  services:\n{services}")
    return file


CONTAINERS = """name: app
entry: web
parameters: {zones: [a, b]}
labels: [zone, node]
dependencies: {store: {from: [web], to: store, lag: /lag}}
releases: {web: {from: store, of: web, path: /version, version: "2", stable: "1"}}
"""
SHARED = """process:
  services:
    web: {command: [web, $port], ready: GET /, each: zones, instances: 2, labels: {node: $zone-front}, memory: 64MB}
    store: {command: [store], devices: [gpu0, gpu1], env: {STORMDRILL_MEMORY_LIMIT_MB: 5}}
docker: {build: ., image: app, limits: {memory: 1GB, cpus: 0.5}, ready_timeout: 9s}
"""
OWN = """docker:
  limits: {cpus: 0.5}
  services:
    web: {image: web, ready: GET /, each: zones, port: 80, cpus: 2}
    store: {image: store, command: [store, $port], port: 80, memory: 1GB}
"""


def test_without_services_of_its_own_a_container_section_runs_the_processes_services_within_its_limits(
    tmp_path: Path,
) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(CONTAINERS + SHARED)
    processes, containers = read_system(file, target="process"), read_system(file, target="docker")
    assert read_system(file) == processes
    assert (processes.target, containers.target, containers.ready_timeout_s) == ("process", "docker", 9.0)
    assert containers.docker == DockerSpec(build=".", image="app")
    assert [one.name for one in containers.instances] == ["web-a-1", "web-a-2", "web-b-1", "web-b-2", "store"]
    web, store = containers.instances[0], containers.instances[-1]
    assert web.labels == {"zone": "a", "node": "a-front"}
    assert (web.memory_mb, web.cpus, web.env) == (64.0, 0.5, {"STORMDRILL_MEMORY_LIMIT_MB": "64"})
    assert (store.memory_mb, store.env) == (1024.0, {"STORMDRILL_MEMORY_LIMIT_MB": "5"}), "what a file says stands"
    assert (processes.instances[-1].memory_mb, processes.instances[-1].devices) == (0.0, ("gpu0", "gpu1"))
    assert processes.dependencies == (Dependency("store", ("web",), "store", "/lag"),)
    assert processes.releases == {"web": Release("store", "/version", "2", "1", "web")}


def test_a_container_section_may_have_services_of_its_own_and_stand_alone(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(CONTAINERS + OWN)
    system = read_system(file)
    assert (system.target, [one.name for one in system.instances]) == ("docker", ["web-a", "web-b", "store"])
    web, _, store = system.instances
    assert (web.image, web.command, web.port, web.cpus, web.env) == ("web", (), 80, 2.0, {})
    assert (store.command, store.cpus, store.memory_mb) == (("store", "$port"), 0.5, 1024.0)


def test_a_target_without_its_section_is_refused_with_the_two_lines_to_write(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(CONTAINERS + OWN)
    with pytest.raises(Refused, match=r"no section process: .*; use --target docker, or write\nprocess:\n  services: "):
        read_system(file, target="process")
    file.write_text(CONTAINERS)
    with pytest.raises(Refused, match="no section says how the system runs; write\nprocess:\n"):
        read_system(file)


def test_only_a_services_env_may_hold_a_secret_in_a_container_too(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    head = "name: app\nentry: env\nparameters: {token: {secret: true, env: T}}\ndocker:\n  services:\n    "
    file.write_text(f"{head}env: {{image: web, ready: GET /, env: {{TOKEN: $token}}}}\n")
    assert read_system(file).instances[0].env == {"TOKEN": "${secret:token}"}
    file.write_text(f"{head}env: {{image: web, ready: GET /, command: [$token]}}\n")
    with pytest.raises(Refused, match="outside of a service's env"):
        read_system(file)


def test_each_and_instances_multiply(tmp_path: Path) -> None:
    file = system_of(
        tmp_path,
        "    app: {command: [app, $zone], each: zones, instances: 2, ready: GET /}\n",
        "parameters: {zones: [a, b]}\n",
    )
    instances = read_system(file).instances
    assert [one.name for one in instances] == ["app-a-1", "app-a-2", "app-b-1", "app-b-2"]
    assert [one.command for one in instances][::2] == [("app", "a"), ("app", "b")]
    assert instances[0].labels == {}, "an item becomes a label only where the system declares it"


def test_numbers_stand_as_written_in_commands_and_labels(tmp_path: Path) -> None:
    file = system_of(
        tmp_path,
        "    app: {command: [app, 8080, 0.50, 1e3], labels: {tier: 1}, env: {LEVEL: 3}, ready: HEAD /up, port: 8080}\n",
        "labels: [tier]\n",
    )
    (app,) = read_system(file).instances
    assert app.command == ("app", "8080", "0.50", "1e3")
    assert (app.labels, app.env, app.port) == ({"tier": "1"}, {"LEVEL": "3"}, 8080)
    assert app.ready == Ready("HEAD", "/up")


def test_an_argument_may_be_empty_text(tmp_path: Path) -> None:
    (app,) = read_system(system_of(tmp_path, "    app: {command: [app, ''], ready: GET /}\n")).instances
    assert app.command == ("app", "")


def test_two_services_may_not_make_one_name(tmp_path: Path) -> None:
    file = system_of(
        tmp_path,
        "    app: {command: [app, $zone], each: zones, ready: GET /}\n    app-a: {command: [app]}\n",
        "parameters: {zones: [a, b]}\n",
    )
    with pytest.raises(Refused, match="two instances are named app-a"):
        read_system(file)


def test_a_literal_dollar_before_port_is_refused_because_the_target_would_fill_it(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"\$\$ before port"):
        read_system(system_of(tmp_path, "    app: {command: [app, $$port], ready: GET /}\n"))


def test_an_unknown_setting_of_a_system_is_refused() -> None:
    with pytest.raises(Refused, match="no parameter bugs in the system; write bug"):
        read_system(SYSTEM, {"bugs": "none"})


def test_a_profile_is_resolved() -> None:
    profile = read_profile(REPOSITORY / "loadgen" / "peak.yaml")
    assert (profile.name, profile.user, profile.arrivals) == ("peak", "platform_user", "poisson")
    assert profile.shape == (Piece(0.0, 1.0), Piece(5.0, 1.5))
    assert [(one.name, one.share, one.deadline_s) for one in profile.streams] == [
        ("api", 0.5, 1.0),
        ("batch", 0.5, 10.0),
    ]
    assert profile.streams[0].labels == {"tier": "1", "kind": "api"}
    assert profile.streams[1].parameters == {"slots": 2}


def test_a_policy_is_resolved(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "faults: [region-loss]\ntargets: [process, docker]\nmax_share: 12.5%\nmax_instances: 3\nmax_fault: 2m\n"
        "max_rate: 60/m\nwindows: [mon-fri 09:00-17:00 Europe/Berlin]\nfreeze: [2026-12-20/2027-01-03]\n"
        "min_memory: 1GB\nmin_disk: 512KB\nmax_nodes: 7\nmax_pods: 8\ndisruption_budgets: ignore\n"
    )
    assert read_policy(file) == Policy(
        faults=("region-loss",),
        targets=("process", "docker"),
        max_share=0.125,
        max_instances=3,
        max_nodes=7,
        max_pods=8,
        disruption_budgets="ignore",
        max_fault_s=120.0,
        max_rate_per_s=1.0,
        windows=("mon-fri 09:00-17:00 Europe/Berlin",),
        freeze=("2026-12-20/2027-01-03",),
        min_memory_mb=1024,
        min_disk_mb=0,
    )


def test_an_empty_policy_is_refused_rather_than_taken_for_no_limits(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("# nothing\n")
    with pytest.raises(Refused, match="the file is empty"):
        read_policy(file)


SMALL = "    app: {command: [app], ready: GET /}\n"
DEPTH = "metrics: {depth: {prometheus: depth, from: app}, in: {prometheus: in_total, from: app}}\n"


def test_what_is_what_under_pressure_is_said_by_the_names_of_metrics(tmp_path: Path) -> None:
    assert read_system(SYSTEM).pressure == Pressure()
    pressed = """backpressure:
  queue: {depth: depth, limit: depth}
  in_flight: depth
  memory: depth
  hops: {app: {received: in, sent: in}}
  breaker: {open: depth, probes: in}
  hedges: in
"""
    hops = (HopCounters("app", "in", "in"),)
    everything = Pressure("depth", "depth", "depth", "depth", hops, breaker="depth", probes="in", hedges="in")
    assert read_system(system_of(tmp_path, SMALL, DEPTH + pressed)).pressure == everything


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{queue: {depth: dept}}", r"app.yaml:4:31: unknown metric dept; write depth"),
        ("{queue: {limit: depth}}", r"queue lacks depth; add depth: queue_depth"),
        ("{hops: {ap: {received: in, sent: in}}}", r"app.yaml:4:23: unknown service ap; write app"),
        ("{hops: {app: {received: in}}}", r"hops.app lacks sent"),
        ("{breaker: {open: depth, probe: in}}", r"unknown key probe in breaker; write probes"),
        ("{memory: 3}", r"3 is a number where .* is meant"),
    ],
)
def test_what_is_no_metric_is_no_sign_of_pressure(written: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=said):
        read_system(system_of(tmp_path, SMALL, f"{DEPTH}backpressure: {written}\n"))


SERVED_BY = "servers: {prometheus: http://127.0.0.1:9090/, alertmanager: 'https://alerts.example:9093/am'}\n"


def test_a_metric_is_read_from_one_of_four_kinds_of_sources(tmp_path: Path) -> None:
    head = f"""parameters: {{zone: a}}
{SERVED_BY}metrics:
  depth: {{prometheus: depth, from: app, path: /m, labels: [queue], every: 500ms}}
  age: {{promql: 'max by (queue) (age{{zone="$zone"}})', labels: [queue], unit: s, every: 15s}}
  backlog: {{command: [ls, -1, /var/spool/$zone, 3], unit: bytes}}
  free: {{http: /capacity, value: .pools.headroom, from: app, unit: ratio}}
  freshness: {{prometheus: age_seconds, from: app, labels: {{kind: report, tier: 3}}}}
"""
    system = read_system(system_of(tmp_path, SMALL, head))
    assert system.metrics == (
        MetricSource("depth", "app", "depth", "/m", ("queue",), every_s=0.5),
        MetricSource("age", "", promql='max by (queue) (age{zone="a"})', labels=("queue",), unit="s", every_s=15.0),
        MetricSource("backlog", "", command=("ls", "-1", "/var/spool/a", "3"), unit="bytes"),
        MetricSource("free", "app", http="/capacity", value=".pools.headroom", unit="ratio"),
        MetricSource("freshness", "app", "age_seconds", constants={"kind": "report", "tier": "3"}),
    )
    assert system.servers == Servers("http://127.0.0.1:9090", "https://alerts.example:9093/am")


def test_a_servers_headers_may_hold_a_secret_which_stands_there_by_its_name(tmp_path: Path) -> None:
    head = """parameters: {token: {secret: true, env: T}}
servers: {prometheus: {url: "http://127.0.0.1:9090", headers: {Authorization: Bearer $token}}}
"""
    servers = read_system(system_of(tmp_path, SMALL, head)).servers
    assert servers.prometheus == "http://127.0.0.1:9090"
    assert servers.prometheus_headers == {"Authorization": "Bearer ${secret:token}"}
    with pytest.raises(Refused, match="outside of a service's env"):
        read_system(system_of(tmp_path, SMALL, head + "metrics: {up: {promql: up $token}}\n"))


def test_what_lets_somebody_in_is_no_text_of_the_file(tmp_path: Path) -> None:
    head = 'servers: {alertmanager: {url: "http://127.0.0.1:9093", headers: {HEADER: hidden}}}\n'
    for header in ("Authorization", "X-Api-Key", "Cookie"):
        with pytest.raises(Refused, match=f"{header} as text would stand in the record .*; declare token:"):
            read_system(system_of(tmp_path, SMALL, head.replace("HEADER", header)))
    assert read_system(system_of(tmp_path, SMALL, head.replace("HEADER", "X-Scope-OrgID"))).servers.alertmanager


@pytest.mark.parametrize("url", ["http://me:hidden@127.0.0.1:9090", "http://127.0.0.1:9090/?token=hidden"])
def test_an_address_that_holds_a_secret_is_refused_without_telling_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(Refused, match="with a user, a password or a query is not an address") as refused:
        read_system(system_of(tmp_path, SMALL, f'servers: {{prometheus: "{url}"}}\n'))
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(("window", "said"), [("0s", "too small; write at least 1m"), ("367d", "at most 366d")])
def test_a_budgets_window_is_a_minute_to_a_year(tmp_path: Path, window: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        read_system(system_of(tmp_path, SMALL, f"traffic: {{rate: 4/s, window: {window}}}\n"))
    traffic = read_system(system_of(tmp_path, SMALL, "traffic: {rate: 4/s, window: 365d}\n")).traffic
    assert traffic == Traffic(4.0, 365 * 86400.0)


def test_an_alert_is_read_from_instances_or_from_a_server(tmp_path: Path) -> None:
    head = SERVED_BY + (
        "alerts: {Down: {prometheus: alerts, from: app}, Slow: {server: prometheus, labels: [job]}, "
        "Full: {server: alertmanager}}\n"
    )
    assert read_system(system_of(tmp_path, SMALL, head)).alerts == (
        AlertSource("Down", "app", "alerts"),
        AlertSource("Slow", "", labels=("job",), server="prometheus"),
        AlertSource("Full", "", server="alertmanager"),
    )


def test_indicators_and_traffic_are_resolved(tmp_path: Path) -> None:
    head = """indicators: {from: app, good: ok_total, total: all_total, histogram: took_seconds_bucket, labels: [tier]}
traffic: {rate: 40/s}
"""
    system = read_system(system_of(tmp_path, SMALL, head))
    assert system.indicators == Indicators("app", "/metrics", "ok_total", "all_total", "took_seconds", ("tier",))
    assert system.traffic == Traffic(40.0, 30 * 86400.0)
    assert read_system(SYSTEM).indicators is read_system(SYSTEM).traffic is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "metrics: {a: {from: app}}",
            r"3:11: the metric a has no source; add one of prometheus, promql,",
        ),
        ("metrics: {a: {http: /x, promql: up, from: app}}", r"3:25: promql beside http: .*; keep one"),
        ("metrics: {a: {prometheus: depth}}", r"3:11: the metric a lacks from; add from"),
        ("metrics: {a: {http: /x}}", r"3:11: the metric a lacks from; add from"),
        ("metrics: {a: {promql: up}}", r"3:15: no Prometheus server to ask; add servers: {prometheus: http"),
        ("metrics: {a: {command: [x], from: app}}", r"3:29: from with command: it is asked once, not of each"),
        ("metrics: {a: {prometheus: x, from: app, value: .a}}", r"3:41: value with prometheus: .*; remove it"),
        ("metrics: {a: {http: /x, from: app, path: /y}}", r"3:36: path with http: http is the path itself"),
        ("metrics: {a: {http: /x, from: app, value: a.b}}", r"'a.b' is not a path; it starts with a dot: .a.b"),
        ("metrics: {a: {command: [x, --at=$port]}}", r"3:28: \$port in a metric's command"),
        ("metrics: {a: {command: [x], labels: [tier]}}", r"3:37: labels of a command: .*; write {tier: VALUE}"),
        ("metrics: {a: {command: x y}}", r"x y where a list is meant for command; write \[x, y\]"),
        ("metrics: {a: {command: [x], unit: sec}}", r"unknown value sec for unit; "),
        ("metrics: {a: {command: [x], every: 100ms}}", r"100ms is too small; write at least 500ms"),
        ("metrics: {a: {prom: x, from: app}}", r"unknown key prom in metrics.a; write promql"),
        ("metrics: {served: {prometheus: x, from: app}}", r"served is a name of stormdrill's own"),
        ("metrics: {a: {prometheus: x, from: app, labels: tier}}", r"tier where a list is meant for labels"),
        ("servers: {prometheus: '127.0.0.1:9090'}", r"3:23: .* is not an address .*; write http://127.0.0.1:9090"),
        ("servers: {prometheus: 'http://me:pass@h:1/x?y=1'}", r"is not an address of a server; write http://h:1/x$"),
        ("servers: {prometheus: {headers: {A: b}}}", r"prometheus lacks url"),
        ("alerts: {A: {from: app}}", r"the alert A has no source; add prometheus: PATH and from"),
        ("alerts: {A: {prometheus: alerts}}", r"the alert A lacks from"),
        ("alerts: {A: {server: alertmanager}}", r"no alertmanager to ask under servers; add .*:9093"),
        ("alerts: {A: {server: promtheus}}", r"unknown value promtheus for server; write prometheus"),
        ("alerts: {A: {server: prometheus, prometheus: x}}", r"server beside prometheus: an alert has one source"),
        ("alerts: {A: {server: prometheus, from: app}}", r"from with server: a server knows of all instances"),
        ("indicators: {from: app, good: ok_total}", r"3:25: good without total: .*; add total"),
        ("indicators: {from: app}", r"3:1: indicators that count nothing; add good and total, or histogram"),
        ("indicators: {from: ap, total: x}", r"3:20: unknown service ap; write app"),
        ("traffic: {rate: 0/s}", r"3:17: a rate of 0; write for instance 40/s"),
        ("traffic: {rate: 40}", r"40 is not a rate: it has no unit; write 40/s"),
    ],
)
def test_a_source_that_can_t_be_read_is_refused_where_it_stands(written: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=said):
        read_system(system_of(tmp_path, SMALL, f"{written}\n"))
