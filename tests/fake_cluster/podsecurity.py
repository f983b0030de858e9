"""Admission by a namespace's own label: no Pod that may do more than the level `restricted` allows. The other levels,
and what only warns, are not looked at."""

from __future__ import annotations

from collections.abc import Iterator

from fake_cluster.matching import Obj, labels_of
from fake_cluster.problems import forbidden
from fake_cluster.registry import Admitted, Registry

ENFORCE = "pod-security.kubernetes.io/enforce"
LEVEL = "restricted"
VOLUMES = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
PROFILES = ("RuntimeDefault", "Localhost")
SYSCTLS = ("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_syncookies")
"""Some of those that are safe."""


def install(registry: Registry) -> None:
    registry.admission(lambda admitted: _admit(registry, admitted))


def _admit(registry: Registry, admitted: Admitted) -> None:
    if admitted.kind.resource != "pods" or admitted.operation != "CREATE" or admitted.obj is None:
        return
    namespace = registry.read("namespaces", "", admitted.namespace) or {"metadata": {}}
    if labels_of(namespace).get(ENFORCE) != LEVEL:
        return
    if wrong := list(violations(admitted.obj["spec"])):
        kind, why = admitted.kind, f'violates PodSecurity "{LEVEL}:latest": {", ".join(wrong)}'
        raise forbidden(kind.resource, kind.group, kind.plural, admitted.name, why)


def violations(spec: Obj) -> Iterator[str]:
    """In the words of the admission."""
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    if shared := [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]:
        yield f"host namespaces ({', '.join(f'{name}=true' for name in shared)})"
    for one in containers:
        yield from _of_container(one, spec.get("securityContext") or {})
    for volume in spec.get("volumes") or []:
        if other := [kind for kind in volume if kind not in ("name", *VOLUMES)]:
            yield f'restricted volume types (volume "{volume["name"]}" uses restricted volume type "{other[0]}")'
    for sysctl in (spec.get("securityContext") or {}).get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"forbidden sysctls ({sysctl['name']})"


def _of_container(one: Obj, pod: Obj) -> Iterator[str]:
    own, name = one.get("securityContext") or {}, f'container "{one["name"]}"'
    capabilities = own.get("capabilities") or {}
    if own.get("privileged"):
        yield f"privileged ({name} must not set securityContext.privileged=true)"
    if any(port.get("hostPort") for port in one.get("ports") or []):
        yield f"hostPort ({name} uses a hostPort)"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"allowPrivilegeEscalation != false ({name} must set securityContext.allowPrivilegeEscalation=false)"
    if "ALL" not in (capabilities.get("drop") or []) or set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield f'unrestricted capabilities ({name} must set securityContext.capabilities.drop=["ALL"])'
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield f"runAsNonRoot != true (pod or {name} must set securityContext.runAsNonRoot=true)"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield f"runAsUser=0 (pod or {name} must not set runAsUser=0)"
    if (own.get("seccompProfile", pod.get("seccompProfile")) or {}).get("type") not in PROFILES:
        told = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"seccompProfile (pod or {name} {told})"
