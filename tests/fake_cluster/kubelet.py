"""The kubelets of all nodes. Pods of images that were named run as local processes; all others are only said to run."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fake_cluster.ground import Ground, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, deleted_at, ended
from fake_cluster.podstatus import REAL, SIMULATED, Container, pod_status, terminated
from fake_cluster.probing import Probe
from fake_cluster.processes import LocalProcess, kill_marked
from fake_cluster.surroundings import Surroundings

FIRST_BACKOFF_S = 0.5
"""A real kubelet waits 10 s before the second restart; its message here says so too."""
_addresses = itertools.count(os.getpid() * 97)


def loopback(second: int) -> str:
    """The next address 127.<second>.x.y, apart from those of other processes where possible."""
    number = next(_addresses) % (254 * 254)
    return f"127.{second}.{number // 254 + 1}.{number % 254 + 1}"


@dataclass(slots=True)
class Run:
    """A Pod that runs as local processes."""

    pod: Obj
    ip: str
    containers: dict[str, Container] = field(default_factory=dict)
    processes: dict[str, LocalProcess] = field(default_factory=dict)
    probes: dict[str, Probe] = field(default_factory=dict)
    again_at: dict[str, float] = field(default_factory=dict)
    """When a container that ended is started again."""
    hooks: dict[str, LocalProcess] = field(default_factory=dict)
    """preStop."""
    ephemeral: list[str] = field(default_factory=list)
    """Containers that came later: they are started once, and nothing waits for them."""
    ends_at: float | None = None
    """Deadline of its grace; the first one holds, as with the kubelet that was recorded."""

    @property
    def alive(self) -> bool:
        return any(one.exit_code is None for one in self.processes.values())


class Kubelet:
    def __init__(self, ground: Ground, surroundings: Surroundings, images: Mapping[str, list[str]]) -> None:
        self.ground = ground
        self.surroundings = surroundings
        self.images = images
        """Image → its entrypoint, for containers without a command."""
        self.runs: dict[str, Run] = {}
        """By uid of the Pod."""
        self.poke: Callable[[Key], None] = lambda key: None
        """Have the Pod looked at again (the loop's)."""
        self.execs: set[str] = set()
        """Pods in which a command was executed: it ends with them."""
        self.first_ones = False
        """Whether a container's process is the first one of its namespace, as on real nodes unless the Pod shares one:
        then a SIGTERM that it doesn't catch is dropped. Off by default: every `sleep` would take its whole grace."""
        self.starts_s = 0.0
        """How long a Pod takes until it runs, as where there is an image to pull and a sandbox to make."""
        self._begun_s: dict[str, float] = {}
        """uid → when a Pod was seen first."""
        self._stale: dict[str, list[Obj]] = {}
        """uid → volumes whose ConfigMap or Secret changed."""
        self._gone: list[str] = []
        self._lock = threading.Lock()
        self._simulated = itertools.count(1)
        self.ended = False

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "nodes" and change.before is None:
            return [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in self.ground.on_node(change.name)]
        if change.resource in ("configmaps", "secrets") and change.before is not None and change.after is not None:
            return self._who_mounts(change)
        if change.resource != "pods" or not change.now["spec"].get("nodeName"):
            return ()
        if change.after is None:
            with self._lock:
                self._gone.append(change.now["metadata"]["uid"])
        return [(change.namespace, change.name)]

    def _who_mounts(self, change: Change) -> list[Key]:
        keys = []
        for run in list(self.runs.values()):
            meta = run.pod["metadata"]
            volumes = self.surroundings.mounts_of(run.pod, change.resource, change.name)
            if meta["namespace"] == change.namespace and volumes:
                with self._lock:
                    self._stale.setdefault(meta["uid"], []).extend(volumes)
                keys.append((meta["namespace"], meta["name"]))
        return keys

    def act(self, namespace: str, name: str) -> float | None:
        self._bury()
        pod = self.ground.get("pods", namespace, name)
        if pod is None or self.ground.get("nodes", "", pod["spec"].get("nodeName", "")) is None:
            return None
        run = self.runs.get(pod["metadata"]["uid"])
        if deleted_at(pod):
            return self._end(pod, run)
        if run is None and (ended(pod) or self.ended):
            return None
        if run is None and (left_s := self._starting_s(pod)) > 0:
            return left_s
        if run is None and not self._is_local(pod):
            self._simulate(pod)
            self._simulate_beside(pod)
            return None
        if run is None:
            run = self.runs[pod["metadata"]["uid"]] = self._begin(pod)
            self._tell(run, ip="")
        run.pod = pod
        with self._lock:
            stale = self._stale.pop(pod["metadata"]["uid"], [])
        self.surroundings.refresh(pod, stale)
        again_s = self._run(run)
        self._tell(run)
        return again_s

    def _starting_s(self, pod: Obj) -> float:
        """How long it is still on its way; one that runs by now is not."""
        if not self.starts_s or pod["status"].get("phase") != "Pending":
            return 0.0
        now_s = time.monotonic()
        return self._begun_s.setdefault(pod["metadata"]["uid"], now_s) + self.starts_s - now_s

    def _is_local(self, pod: Obj) -> bool:
        return any(one.get("image") in self.images for one in pod["spec"]["containers"])

    def _simulate(self, pod: Obj) -> None:
        """Pending becomes Running, or waits for an image that there is not: of the host *.invalid."""
        if pod["status"].get("phase") != "Pending":
            return
        uid, began, states = pod["metadata"]["uid"], now(), []
        for spec in pod["spec"]["containers"]:
            waiting = _not_pulled(spec)
            state = {"waiting": waiting} if waiting else {"running": {"startedAt": began}}
            made = Container(spec["name"], spec["image"], state, ready=not waiting)
            made.id = "" if waiting else f"fake://{uid}/{spec['name']}"
            states.append(made)
        number = next(self._simulated)
        ip = pod["status"].get("podIP") or f"10.244.{number // 250 % 250}.{number % 250 + 1}"
        order = REAL if any(one.state.get("waiting") for one in states) else SIMULATED
        self.ground.set_status("pods", pod, pod_status(pod, states, ip, self._host(pod), order=order))

    def _simulate_beside(self, pod: Obj) -> None:
        """Ephemeral containers are said to run."""
        told = [one["name"] for one in pod["status"].get("ephemeralContainerStatuses") or []]
        new = [one for one in pod["spec"].get("ephemeralContainers") or [] if one["name"] not in told]
        made = [Container(one["name"], one["image"], {"running": {"startedAt": now()}}) for one in new]

        def put(thing: Obj) -> bool:
            statuses = thing["status"].setdefault("ephemeralContainerStatuses", [])
            statuses += [one.told_briefly() for one in made]
            return True

        if made:
            self.ground.change("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], put)

    def _host(self, pod: Obj) -> str:
        node = self.ground.get("nodes", "", pod["spec"]["nodeName"]) or {}
        addresses = (node.get("status") or {}).get("addresses") or []
        return next((one["address"] for one in addresses if one["type"] == "InternalIP"), "192.0.2.1")

    def _begin(self, pod: Obj) -> Run:
        run = Run(pod, loopback(1))
        for spec in pod["spec"]["containers"]:
            run.containers[spec["name"]] = Container(spec["name"], spec["image"])
        return run

    def _run(self, run: Run) -> float | None:
        """Start what is to run and does not; the seconds until the next restart."""
        policy, waits = run.pod["spec"].get("restartPolicy", "Always"), []
        for spec in run.pod["spec"].get("ephemeralContainers") or []:
            self._run_beside(run, spec)
        for spec in run.pod["spec"]["containers"]:
            container, process = run.containers[spec["name"]], run.processes.get(spec["name"])
            if process is None and "waiting" in container.state and spec["name"] not in run.again_at:
                self._start(run, spec)
                continue
            if process is not None and process.exit_code is not None:
                self._note_end(run, spec["name"], process.exit_code)
            if "running" in container.state:
                probe = run.probes.get(spec["name"])
                container.ready = probe.good if probe else True
                continue
            code = container.exit_code if "terminated" in container.state else container.last["terminated"]["exitCode"]
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                continue
            left_s = self._back_off(run, container)
            if left_s <= 0:
                container.restarts += 1
                self._start(run, spec)
            else:
                waits.append(left_s)
        return min(waits) if waits else None

    def _run_beside(self, run: Run, spec: Obj) -> None:
        name = spec["name"]
        if name not in run.containers:
            run.ephemeral.append(name)
            run.containers[name] = Container(name, spec["image"])
            self._start(run, spec)
            run.containers[name].ready = False
        elif (process := run.processes.get(name)) is not None and process.exit_code is not None:
            self._note_end(run, name, process.exit_code)

    def _start(self, run: Run, spec: Obj) -> None:
        name, container = spec["name"], run.containers[spec["name"]]
        run.again_at.pop(name, None)
        if spec.get("image") not in self.images:
            waiting = _not_pulled(spec)
            container.state = {"waiting": waiting} if waiting else {"running": {"startedAt": now()}}
            container.ready, container.id = not waiting, "" if waiting else f"fake://{name}"
            return
        whole = spec if spec.get("command") else {**spec, "command": self.images[spec["image"]]}
        argv, environment = self.surroundings.prepare(run.pod, whole, run.ip)
        key = run.pod["metadata"]["namespace"], run.pod["metadata"]["name"]
        log = self.log_of(run.pod, name, container.restarts)
        container.id = f"containerd://{_sha256(run.pod['metadata']['uid'], name, container.restarts)}"
        container.image_id = f"sha256:{_sha256(spec['image'])}"
        container.image = spec["image"] if "/" in spec["image"] else f"docker.io/library/{spec['image']}"
        try:
            process = LocalProcess(argv, environment, log, lambda: self.poke(key), self.surroundings.directory(run.pod))
        except OSError as error:
            log.write_text(f"{error}\n")
            container.state = terminated(128, now(), container.id)
            container.last, container.ready = container.state, False
            return
        run.processes[name] = process
        container.state = {"running": {"startedAt": now()}}
        container.ready = not spec.get("readinessProbe")
        if spec.get("readinessProbe"):
            run.probes[name] = Probe(spec, run.ip, lambda: self.poke(key))

    def _note_end(self, run: Run, name: str, code: int) -> None:
        container = run.containers[name]
        if not container.running:
            return
        container.state = terminated(code, container.state["running"]["startedAt"], container.id)
        container.ready = False
        if probe := run.probes.pop(name, None):
            probe.stop()

    def _back_off(self, run: Run, container: Container) -> float:
        """The first restart comes at once, the next after a pause that doubles."""
        if "terminated" in container.state:
            container.last = container.state
            if container.restarts == 0:
                return 0.0
            told_s = min(10 * 2 ** (container.restarts - 1), 300)
            pause_s = min(FIRST_BACKOFF_S * 2 ** (container.restarts - 1), 5.0)
            meta = run.pod["metadata"]
            pod = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
            told = f"back-off {told_s}s restarting failed container={container.name} pod={pod}"
            container.state = {"waiting": {"reason": "CrashLoopBackOff", "message": told}}
            run.again_at[container.name] = time.monotonic() + pause_s
        return run.again_at.get(container.name, 0.0) - time.monotonic()

    def _tell(self, run: Run, *, ending: bool = False, ip: str | None = None) -> None:
        states = [one for name, one in run.containers.items() if name not in run.ephemeral]
        pod = self.ground.get("pods", run.pod["metadata"]["namespace"], run.pod["metadata"]["name"])
        if pod is None or pod["metadata"]["uid"] != run.pod["metadata"]["uid"]:
            return
        status = pod_status(pod, states, run.ip if ip is None else ip, self._host(pod), ending=ending)
        if run.ephemeral:
            status["ephemeralContainerStatuses"] = [run.containers[name].told_briefly() for name in run.ephemeral]
        self.ground.set_status("pods", pod, status)

    def _end(self, pod: Obj, run: Run | None) -> float | None:
        """SIGTERM, the grace, SIGKILL; then its end is told, and it is taken away."""
        if run is not None:
            if run.ends_at is None:
                run.ends_at = time.monotonic() + pod["metadata"].get("deletionGracePeriodSeconds", 0)
                for probe in run.probes.values():
                    probe.stop()
                self._before_stop(run)
                self._tell(run, ending=True)
            first = self.first_ones and not pod["spec"].get("shareProcessNamespace")
            for name, process in run.processes.items():
                hook = run.hooks.get(name)
                if hook is None or hook.exit_code is not None:
                    process.terminate(first=first)
            left_s = run.ends_at - time.monotonic()
            if run.alive and left_s > 0:
                return left_s
            self._kill(run)
            if run.alive:
                return 0.05
            for name, process in run.processes.items():
                self._note_end(run, name, process.exit_code or 0)
            if not ended(pod):
                self._tell(run, ending=True)
        self.ground.delete("pods", pod, grace=0)
        return None

    def _before_stop(self, run: Run) -> None:
        """preStop: only when it has ended comes the SIGTERM, within the same grace."""
        key = run.pod["metadata"]["namespace"], run.pod["metadata"]["name"]
        for spec in run.pod["spec"]["containers"]:
            hook = (spec.get("lifecycle") or {}).get("preStop") or {}
            words = (hook.get("exec") or {}).get("command") or []
            if "sleep" in hook:
                words = ["sleep", str(hook["sleep"]["seconds"])]
            process = run.processes.get(spec["name"])
            if not words or process is None or process.exit_code is not None:
                continue
            argv, environment, where = self.inside(run.pod, spec, words)
            with contextlib.suppress(OSError):
                log = self.log_of(run.pod, f"{spec['name']}.stop", 0)
                run.hooks[spec["name"]] = LocalProcess(argv, environment, log, lambda: self.poke(key), where)

    def _kill(self, run: Run) -> None:
        for probe in run.probes.values():
            probe.stop()
        for process in run.processes.values():
            process.kill()
        kill_marked([run.pod["metadata"]["uid"]])
        for process in run.processes.values():
            process.join(5)

    def _bury(self) -> None:
        """What is gone from the API goes here too, whatever its grace was."""
        with self._lock:
            gone, self._gone = self._gone, []
        for uid in gone:
            if (run := self.runs.pop(uid, None)) is not None:
                self._kill(run)
            elif uid in self.execs:
                kill_marked([uid])
            self.execs.discard(uid)

    def inside(self, pod: Obj, container: Obj, command: Sequence[str]) -> tuple[list[str], dict[str, str], Path]:
        """Command, environment and directory of what is executed in a container."""
        run = self.runs.get(pod["metadata"]["uid"])
        ip = run.ip if run else str(pod["status"].get("podIP", ""))
        argv, environment = self.surroundings.beside(pod, container, command, ip)
        if argv == ["hostname"]:
            argv = ["printf", "%s\n", str(pod["metadata"]["name"])]
        return argv, environment, self.surroundings.directory(pod)

    def log_of(self, pod: Obj, container: str, restarts: int) -> Path:
        return self.surroundings.directory(pod) / f"{container}.{restarts}.log"

    def stop(self) -> None:
        """Nothing of any Pod is left. The loop has ended before."""
        self.ended = True
        runs, self.runs = list(self.runs.values()), {}
        for run in runs:
            for probe in run.probes.values():
                probe.stop()
            for process in run.processes.values():
                process.kill()
        if runs or self.execs:
            kill_marked([*(run.pod["metadata"]["uid"] for run in runs), *self.execs])
        for run in runs:
            for process in run.processes.values():
                process.join(5)


def _sha256(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _not_pulled(spec: Obj) -> Obj | None:
    """Why the image is not there; None when it is."""
    image = str(spec.get("image", ""))
    if not image.partition("/")[0].partition(":")[0].endswith(".invalid"):
        return None
    if spec.get("imagePullPolicy") == "Never":
        told = f'Container image "{image}" is not present with pull policy of Never'
        return {"reason": "ErrImageNeverPull", "message": told}
    return {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
