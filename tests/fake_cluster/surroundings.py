"""What a container finds when it starts: its environment, its files, its command with everything expanded.

A process has no file system of its own: where a volume is mounted, the path in command, arguments and environment is
replaced by the directory that stands for it. A program that knows the path by itself does not see the volume. Nor
has it a network of its own: a variable that says 0.0.0.0 says the address of its Pod instead."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fake_cluster.ground import Ground
from fake_cluster.matching import Obj
from fake_cluster.processes import MARK, base_environment

EVERYWHERE = "0.0.0.0"  # noqa: S104 - replaced, never listened on
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


def expanded(text: str, known: dict[str, str]) -> str:
    """$(NAME) where it is known, $$ is a dollar."""

    def put(found: re.Match[str]) -> str:
        if found.group(0) == "$$":
            return "$"
        return known.get(found.group(1), found.group(0))

    return _REFERENCE.sub(put, text)


def field_of(pod: Obj, path: str, ip: str) -> str:
    """The downward API."""
    meta, spec = pod["metadata"], pod["spec"]
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((meta.get(found.group(1)) or {}).get(found.group(2), ""))
    known = {
        "metadata.name": meta["name"], "metadata.namespace": meta["namespace"], "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""), "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": ip, "status.podIPs": ip, "status.hostIP": "127.0.0.1",
    }  # fmt: skip
    return str(known.get(path, ""))


def data_of(thing: Obj | None) -> dict[str, bytes]:
    """Of a ConfigMap or a Secret."""
    if thing is None:
        return {}
    if thing.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in (thing.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (thing.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (thing.get("binaryData") or {}).items()}


class Surroundings:
    def __init__(
        self, ground: Ground, home: Path, server: str, token_for: Callable[[str, str], str], ca: bytes = b""
    ) -> None:
        """`ca`: the certificate that signed the server's, in PEM; empty for a server without TLS."""
        self.ground = ground
        self.home = home
        self.server = server
        self.token_for = token_for
        self.ca = ca

    def directory(self, pod: Obj) -> Path:
        made = self.home / str(pod["metadata"]["uid"])
        made.mkdir(parents=True, exist_ok=True)
        return made

    def prepare(self, pod: Obj, container: Obj, ip: str) -> tuple[list[str], dict[str, str]]:
        """Command and environment."""
        environment = self.environment(pod, container, ip)
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        return self._placed(pod, container, [expanded(word, environment) for word in words], environment)

    def beside(self, pod: Obj, container: Obj, words: Sequence[str], ip: str) -> tuple[list[str], dict[str, str]]:
        """The same for a command that is executed in a running container: nothing in it is expanded."""
        return self._placed(pod, container, words, self.environment(pod, container, ip))

    def _placed(
        self, pod: Obj, container: Obj, words: Sequence[str], environment: dict[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        places = {path: str(place) for path, place in self._mounts(pod, container).items()}
        own = {one["name"] for one in container.get("env") or []}
        # in one go: the directories lie below paths that may be mounted over themselves (/tmp)
        listed = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        mounted = re.compile(rf"(?<![\w./-])(?:{listed})(?![\w.-])") if places else None

        def here(text: str) -> str:
            return mounted.sub(lambda found: places[found.group(0)], text) if mounted else text

        return [here(word) for word in words], {
            name: here(value) if name in own else value for name, value in environment.items()
        }

    def environment(self, pod: Obj, container: Obj, ip: str) -> dict[str, str]:
        meta = pod["metadata"]
        host, _, port = self.server.partition("://")[2].partition(":")
        known = base_environment() | {
            MARK: meta["uid"], "HOSTNAME": meta["name"], "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
        }  # fmt: skip
        if self.server.startswith("http://"):
            known["STORMDRILL_API_PLAIN"] = "1"
        if pod["spec"].get("automountServiceAccountToken") is not False:
            known["STORMDRILL_SERVICEACCOUNT"] = str(self._account(pod))
        if pod["spec"].get("enableServiceLinks") is not False:
            known |= self._service_links(meta["namespace"])
        for source in container.get("envFrom") or []:
            kind = "configmaps" if "configMapRef" in source else "secrets"
            name = (source.get("configMapRef") or source.get("secretRef"))["name"]
            found = data_of(self.ground.get(kind, meta["namespace"], name))
            known |= {source.get("prefix", "") + key: value.decode() for key, value in found.items()}
        for one in container.get("env") or []:
            value = self._value(pod, one["valueFrom"], ip) if "valueFrom" in one else one.get("value", "")
            value = expanded(str(value), known) if "valueFrom" not in one else value
            known[one["name"]] = ip if value == EVERYWHERE else value
        return known

    def _value(self, pod: Obj, source: Obj, ip: str) -> str:
        namespace = pod["metadata"]["namespace"]
        if "fieldRef" in source:
            return field_of(pod, source["fieldRef"]["fieldPath"], ip)
        for word, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if word in source:
                found = data_of(self.ground.get(resource, namespace, source[word]["name"]))
                return found.get(source[word]["key"], b"").decode()
        return ""

    def _service_links(self, namespace: str) -> dict[str, str]:
        known = {}
        for service in self.ground.all("services", namespace):
            address, ports = service["spec"].get("clusterIP"), service["spec"].get("ports") or []
            if not address or address == "None" or not ports:
                continue
            word = service["metadata"]["name"].upper().replace("-", "_")
            known[f"{word}_SERVICE_HOST"] = address
            known[f"{word}_SERVICE_PORT"] = str(ports[0]["port"])
            for port in ports:
                if port.get("name"):
                    known[f"{word}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
        return known

    def _account(self, pod: Obj) -> Path:
        place = self.directory(pod) / "serviceaccount"
        if not place.exists():
            namespace = pod["metadata"]["namespace"]
            token = self.token_for(namespace, pod["spec"].get("serviceAccountName") or "default")
            _write(place, {"token": token.encode(), "namespace": namespace.encode(), "ca.crt": self.ca})
        return place

    def _mounts(self, pod: Obj, container: Obj) -> dict[str, Path]:
        volumes = {one["name"]: one for one in pod["spec"].get("volumes") or []}
        found = {}
        for mount in container.get("volumeMounts") or []:
            place = self.directory(pod) / "volumes" / mount["name"]
            volume = volumes.get(mount["name"])
            if volume is None:
                continue
            if "hostPath" in volume:  # outlives the Pod, on its node
                place = self.home / "nodes" / str(pod["spec"]["nodeName"]) / volume["hostPath"]["path"].lstrip("/")
            if not place.exists():
                _write(place, dict(self._files(pod, volume)))
            found[mount["mountPath"].rstrip("/")] = place / mount["subPath"] if mount.get("subPath") else place
        for inner, place in found.items():
            outer = next((one for one in found if inner.startswith(f"{one}/")), None)
            if outer is not None:
                link = found[outer] / inner[len(outer) + 1 :]
                link.unlink(missing_ok=True)
                link.symlink_to(place)
        return found

    def mounts_of(self, pod: Obj, resource: str, name: str) -> list[Obj]:
        """The volumes that show a ConfigMap or a Secret as files."""
        word, key = ("configMap", "name") if resource == "configmaps" else ("secret", "secretName")
        volumes = pod["spec"].get("volumes") or []
        return [one for one in volumes if word in one and one[word].get(key) == name]

    def refresh(self, pod: Obj, volumes: list[Obj]) -> None:
        """What a kubelet does within a minute after such an object changed: here at once."""
        for volume in volumes:
            place = self.directory(pod) / "volumes" / volume["name"]
            if not place.exists():
                continue
            wanted = dict(self._files(pod, volume))
            for path in place.iterdir():
                if path.is_file() and path.name not in wanted:
                    path.unlink()
            _write(place, wanted)

    def _files(self, pod: Obj, volume: Obj) -> Iterable[tuple[str, bytes]]:
        namespace = pod["metadata"]["namespace"]
        for source in (volume.get("projected") or {}).get("sources") or []:
            yield from self._files(pod, source)
        for word, resource, key in (("configMap", "configmaps", "name"), ("secret", "secrets", "secretName")):
            if word not in volume:
                continue
            source = volume[word]
            data = data_of(self.ground.get(resource, namespace, source.get(key) or source.get("name")))
            items = source.get("items")
            yield from data.items() if items is None else [(one["path"], data.get(one["key"], b"")) for one in items]
        for one in (volume.get("downwardAPI") or {}).get("items") or []:
            yield one["path"], field_of(pod, (one.get("fieldRef") or {}).get("fieldPath", ""), "").encode()
        if "serviceAccountToken" in volume:
            token = self.token_for(namespace, pod["spec"].get("serviceAccountName") or "default")
            yield volume["serviceAccountToken"].get("path", "token"), token.encode()


def _write(place: Path, files: dict[str, bytes]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            new = path.with_name(f".{path.name}.new")
            new.write_bytes(content)
            new.replace(path)
