"""Makes images, networks and containers, by testcontainers and the docker SDK: imported only when something is made."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct

from stormdrill.errors import Refused, StormdrillError, SystemNotReady
from stormdrill.targets.docker.engine import address, as_docker_host
from stormdrill.targets.docker.here import INSTALL
from stormdrill.targets.docker.layout import LABEL

# Read by testcontainers when it is imported: no reaper, since the keeper removes what the run made (and the reaper's
# image may not be here); addresses as this machine sees them, in a container of its own too. And the engine on which
# names are claimed: left to itself it would follow a docker context, where nobody looks for what is left.
os.environ["DOCKER_HOST"] = as_docker_host(address())
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
os.environ["TESTCONTAINERS_CONNECTION_MODE"] = "docker_host"
os.environ["TESTCONTAINERS_HOST_OVERRIDE"] = "127.0.0.1"

try:
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions
    from docker.types import EndpointConfig, IPAMConfig, IPAMPool, LogConfig
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.image import DockerImage
    from testcontainers.core.network import Network
except ImportError as error:
    raise Refused(f"target docker needs {error.name}, which is not installed; {INSTALL}") from error

testcontainers_config.tc_properties.pop("tc.host", None)  # of the user's own file; it would win over $DOCKER_HOST

API = "1.41"
HOST = "127.0.0.1"
LOG_MB = 20
PIDS = 256
HELPER_MEMORY = "64m"
CPU_PERIOD_US = 100_000
ASK_LIMIT_S = 30.0


class Wanted(Struct, frozen=True):
    """One container, exactly."""

    name: str
    image: str
    command: Sequence[str]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    ip: str
    aliases: Sequence[str]
    inside: int
    published: int
    data: str = ""
    """A folder of this machine that is bound at `data_inside`; empty: none."""
    data_inside: str = ""
    memory_mb: float = 0.0
    cpus: float = 0.0
    confined: bool = True
    """No capabilities, a root that can't be written, this user: for what we know not to need more."""
    rights: Sequence[str] = ()
    """Capabilities that it has all the same, as root, until it gives them up by itself."""
    hosts: Mapping[str, str] = {}
    """Name → address, for this container alone."""


def ask_image(image: str, argv: Sequence[str]) -> str:
    """What a program in this image says, or why it can't be started. Raises Refused when the engine is silent."""
    now = datetime.now(UTC)
    expires = (now + timedelta(seconds=ASK_LIMIT_S)).isoformat(timespec="seconds")
    run = f"{now:%Y%m%dT%H%M%SZ}-question-{secrets.token_hex(2)}"  # named and labelled so that sweep knows it
    labels = {LABEL: run, "stormdrill.expires": expires}
    with _engine_answers(f"target docker: {image} can't be asked", Refused), closing(_client()) as client:
        asked = client.containers.create(
            image, list(argv), name=f"stormdrill-{run}", labels=labels, network_disabled=True
        )
        try:
            asked.start()
            asked.wait(timeout=ASK_LIMIT_S)
            said = asked.logs()
        except docker.errors.APIError as error:
            return f"{error.explanation or error}"
        finally:
            asked.remove(force=True, v=True)
    return bytes(said).decode("utf-8", "replace")


def build_image(context: Path, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Raises Refused with the end of what the build said."""
    given, marked = dict(arguments), dict(labels)
    try:
        with _engine_answers(f"target docker: the image {tag} can't be built", Refused):
            DockerImage(
                path=context, tag=tag, clean_up=False, buildargs=given, labels=marked, rm=True, forcerm=True
            ).build()
    except docker.errors.BuildError as error:
        lines = [str(line.get("stream") or line.get("error") or "").strip() for line in error.build_log]
        told = "\n  ".join([line for line in lines if line][-6:])
        raise Refused(f"target docker: the image {tag} can't be built: {error.msg}\n  {told}") from error


def make_network(name: str, subnets: Sequence[str], labels: Mapping[str, str], *, way_out: bool) -> str:
    """A bridge of the run's own on the first of these subnets that is free; returns which. Raises SystemNotReady."""
    why: StormdrillError = SystemNotReady(f"the network {name} could not be made: no subnet is left")
    options = {
        "com.docker.network.bridge.host_binding_ipv4": HOST,
        "com.docker.network.bridge.enable_ip_masquerade": "true" if way_out else "false",
    }
    for subnet in subnets[:8]:
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
        wanted = {"driver": "bridge", "labels": dict(labels), "ipam": ipam, "options": options}
        try:
            with _engine_answers(f"the network {name} could not be made"):
                network = Network(docker_network_kw=wanted)
                network.name = name
                network.create()
        except SystemNotReady as error:
            why = error
            if "overlap" not in str(error).lower():
                break
            continue
        return subnet
    raise why


def taken_subnets() -> list[str]:
    """Of the engine's networks and this machine's routes."""
    with _engine_answers("the engine's networks could not be read"), closing(_client()) as client:
        listed = client.api.networks()
    found = [pool["Subnet"] for item in listed for pool in (item["IPAM"]["Config"] or []) if "Subnet" in pool]
    return [item for item in found if ":" not in item] + _routes()


def start_container(network: str, wanted: Wanted) -> str:
    """Created and started; returns its id. Raises SystemNotReady with the engine's own words."""
    with _engine_answers(f"{wanted.name} could not be started"):
        made = _container(network, wanted)
        made.start()
    return str(made.get_container_id())


def start_helper(name: str, image: str, shares: str, labels: Mapping[str, str]) -> str:
    """A container in the network namespace of another, which may change its packet rules. Raises SystemNotReady."""
    with _engine_answers(f"{name} could not be started"):
        helper = DockerContainer(image, name=name).with_kwargs(
            network_mode=f"container:{shares}",
            labels=dict(labels),
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN", "NET_RAW"],
            security_opt=["no-new-privileges"],
            pids_limit=16,
            mem_limit=HELPER_MEMORY,
            memswap_limit=HELPER_MEMORY,
            init=True,
            restart_policy={"Name": "no"},
        )
        helper.image = image
        helper._command = ["sleep", "infinity"]
        helper.start()
    return str(helper.get_container_id())


def _container(network: str, wanted: Wanted) -> DockerContainer:
    made = DockerContainer(wanted.image, env=dict(wanted.env), name=wanted.name)
    made.image = wanted.image  # as it is: a prefix for hub images is not for an id
    if wanted.command:
        made._command = list(wanted.command)
    if wanted.data:
        made.with_volume_mapping(wanted.data, wanted.data_inside, "rw")
    made.ports = {f"{wanted.inside}/tcp": (HOST, wanted.published)}  # type: ignore[dict-item]  # the SDK takes pairs
    endpoint = EndpointConfig(API, aliases=list(wanted.aliases), ipv4_address=wanted.ip)
    options: dict[str, object] = {
        "network": network,
        "networking_config": {network: endpoint},
        "labels": dict(wanted.labels),
        "hostname": wanted.aliases[0],
        "dns_opt": ["ndots:0"],
        "restart_policy": {"Name": "no"},
        "security_opt": ["no-new-privileges"],
        "pids_limit": PIDS,
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": f"{LOG_MB}m"}),
    }
    if wanted.memory_mb:
        size = f"{round(wanted.memory_mb * 1024)}k"
        options |= {"mem_limit": size, "memswap_limit": size}
    if wanted.cpus:
        options |= {"cpu_period": CPU_PERIOD_US, "cpu_quota": round(wanted.cpus * CPU_PERIOD_US)}
    if wanted.confined:
        made.tmpfs = {"/tmp": "size=16m,mode=1777"}  # noqa: S108  (the container's own)
        options |= {
            "cap_drop": ["ALL"],
            "cap_add": list(wanted.rights),
            "read_only": True,
            "user": "0:0" if wanted.rights else f"{os.getuid()}:{os.getgid()}",
        }
    if wanted.hosts:
        options["extra_hosts"] = dict(wanted.hosts)
    made._kwargs = options
    return made


_SILENCE = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
)
"""The last of them while an answer is read in pieces."""


@contextmanager
def _engine_answers(failed: str, problem: type[StormdrillError] = SystemNotReady) -> Iterator[None]:
    """What it refuses is told in its own words; that it went away in the middle is told too."""
    try:
        yield
    except docker.errors.APIError as error:
        raise problem(f"{failed}: {error.explanation or error}") from error
    except docker.errors.BuildError:
        raise
    except _SILENCE as error:
        raise problem(f"{failed}: the engine at {address()} gave no answer ({error})") from error


_making = threading.Lock()


def _client() -> docker.DockerClient:
    with _making:
        return docker.from_env(timeout=60)


def _routes() -> list[str]:
    """Subnets that this machine has a route to, other than the default."""
    found = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, _, _, _, _, _, mask = line.split()[:8]
        size = int(mask, 16).bit_count()
        if size:
            found.append(f"{'.'.join(str(byte) for byte in bytes.fromhex(destination)[::-1])}/{size}")
    return found
