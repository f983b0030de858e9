"""The docker section of a system file: where its containers come from, and what doesn't go together."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from stormdrill.model.system import DockerSpec, ServiceInstance
from stormdrill.spec.files_system import DockerFile, SystemFile
from stormdrill.spec.scalars import megabytes
from stormdrill.spec.services import check_memory, told
from stormdrill.spec.yaml import Document, Table

NOT_OURS = {
    "attach": ("image", "command", "env", "devices", "memory", "cpus"),
    "compose": ("image", "command", "each"),
}
"""What a service can't say where its containers are somebody else's."""


def docker_spec(file: SystemFile) -> DockerSpec | None:
    docker = file.docker
    if docker is None:
        return None
    attach = {key: str(value) for key, value in (docker.attach or {}).items()}
    return DockerSpec(docker.build or "", docker.image or "", docker.compose or "", attach)


def with_limits(docker: DockerFile, instances: Iterable[ServiceInstance]) -> tuple[ServiceInstance, ...]:
    """With the section's limits, where a service sets none of its own."""
    limits = docker.limits
    memory_mb = megabytes(limits.memory) if limits and limits.memory else 0.0
    cpus = limits.cpus if limits and limits.cpus else 0.0
    return tuple(_limited(one, one.memory_mb or memory_mb, one.cpus or cpus) for one in instances)


def _limited(one: ServiceInstance, memory_mb: float, cpus: float) -> ServiceInstance:
    return replace(one, memory_mb=memory_mb, cpus=cpus, env=told(memory_mb, one.env))


def check_docker(document: Document, file: SystemFile) -> None:
    """What is wrong with the section as a whole; its services are looked at one by one elsewhere."""
    docker = file.docker
    section = document.node("docker")
    if docker is None or not isinstance(section, Table) or section.broken:
        return
    check_memory(document, docker.limits.memory if docker.limits else None, "docker", "limits", "memory")
    ways = [word for word in ("build", "compose", "attach") if word in section.entries]
    for word in ways[1:]:
        what = f"{ways[0]} and {word}: the containers come from one place"
        document.problem(document.key("docker", word), what, f"keep one of {', '.join(ways)}")
    way = ways[0] if ways else ""
    if way in NOT_OURS and "image" in section.entries:
        what = f"{way} and image: these containers have their images already"
        document.problem(document.key("docker", "image"), what, "remove one")
    if way == "build" and "image" not in section.entries:
        name = file.name or "my-system"
        document.problem(document.key("docker", "build"), "what is built has no name", f"add image: {name}")
    if way == "attach" and "limits" in section.entries:
        what = "limits of containers that run already"
        document.problem(document.key("docker", "limits"), what, "remove it: with attach nothing is started or changed")
    if len(ways) > 1 or any(at.broken for at, _ in section.entries.values()):
        return  # the rest depends on what is meant there
    if not docker.services:
        _check_shared(document, file, section, way)
    else:
        _check_services(document, docker, section, way)


def _check_shared(document: Document, file: SystemFile, section: Table, way: str) -> None:
    """Without services of its own the section runs those of `process`, in one image."""
    if "services" in section.entries and document.node("docker", "services", "") is None:
        written = document.node("docker", "services")
        if not isinstance(written, Table) or written.entries:
            return  # what is wrong with them was said
    if way in NOT_OURS:
        fix = "add services: {web: {ready: GET /healthz, port: 8080}}"
        if way == "attach":
            fix = "add services: {web: {select: {app: web}, ready: GET /healthz, port: 8080}}"
        document.problem(
            document.key("docker", way), f"{way} without services: nothing says which containers are meant", fix
        )
    elif file.process is None:
        document.problem(document.key("docker"), "docker has no services", "add services: {web: {image: my-web}}")
    elif "image" not in section.entries and way != "build":
        what = "no image to run the processes' services in"
        document.problem(document.key("docker"), what, f"add image: {file.name or 'my-system'}")


def _check_services(document: Document, docker: DockerFile, section: Table, way: str) -> None:
    for name, service in docker.services.items():
        written = document.node("docker", "services", name)
        if not isinstance(written, Table) or written.broken:
            continue
        for word in NOT_OURS.get(way, ()):
            if word in written.entries:
                why = "they run already" if way == "attach" else "the compose file says it"
                document.problem(
                    document.key("docker", "services", name, word), f"{word} with {way}: {why}", "remove it"
                )
        selects = "select" in written.entries
        if way == "attach" and not selects:
            fix = f"add select: {{app: {name}}} with labels that they carry"
            document.problem(written.place, f"nothing says which containers are {name}", fix)
        elif way != "attach" and selects:
            place = document.key("docker", "services", name, "select")
            document.problem(place, "select without attach", "add attach: {LABEL: VALUE} to docker, or remove it")
        elif way not in NOT_OURS and not service.image and not docker.image and "image" not in written.entries:
            fix = f"add image: my-{name}, or one image for all to docker"
            document.problem(written.place, f"{name} has no image", fix)
