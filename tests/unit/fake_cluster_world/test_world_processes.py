"""Pods of named images run as processes: started, watched, restarted, ended, and none is ever left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_cluster import FakeCluster
from fake_cluster.processes import marked
from stormdrill.cluster.api import Api
from waiting import eventually

Obj = dict[str, Any]
IMAGE = "stormdrill:test"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(run_images={IMAGE}) as made:
        made.nodes(1)
        yield made


def pod(name: str, program: str, *, policy: str = "Never", container: Obj | None = None, **spec: object) -> Obj:
    one = {"name": "c", "image": IMAGE, "command": ["python", "-c", program], **(container or {})}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"restartPolicy": policy, "containers": [one], **spec},
    }  # fmt: skip


def get(cluster: FakeCluster, name: str) -> Obj:
    return cluster.read(f"/api/v1/namespaces/default/pods/{name}") or {"status": {}, "metadata": {}}


def phase(cluster: FakeCluster, name: str) -> str:
    return str(get(cluster, name)["status"].get("phase", "gone"))


def log(cluster: FakeCluster, name: str) -> str:
    assert cluster.behaviour is not None
    return cluster.behaviour.kubelet.log_of(get(cluster, name), "c", 0).read_text()


def hasty(cluster: FakeCluster) -> None:
    """Jobs don't wait as real ones do."""
    assert cluster.behaviour is not None
    cluster.behaviour.jobs.first_backoff_s = 0.1


@pytest.mark.parametrize(("code", "ended"), [(0, "Succeeded"), (3, "Failed")])
def test_the_exit_code_is_told(cluster: FakeCluster, code: int, ended: str) -> None:
    cluster.apply(pod("p", f"raise SystemExit({code})"))
    eventually(lambda: phase(cluster, "p") == ended)
    assert get(cluster, "p")["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code


def test_the_environment_is_expanded_and_volumes_are_directories(cluster: FakeCluster) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf", "namespace": "default"},
                   "data": {"a.txt": "from the map"}})  # fmt: skip
    spec = {"clusterIP": "127.2.9.9", "selector": {"app": "db"}, "ports": [{"port": 5432}]}
    meta = {"name": "my-db", "namespace": "default"}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    env = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "AT", "value": "$(WHO)@$(POD_IP) $(UNKNOWN) $$(WHO)"},
    ]
    program = ("import os,sys;e=os.environ;print(e['AT']);print(open(sys.argv[1]).read());"
               "print(e['MY_DB_SERVICE_HOST'],e['MY_DB_SERVICE_PORT']);print(sys.argv[2])")  # fmt: skip
    cluster.apply(pod("p", program, container={
        "env": env, "args": ["/etc/conf/a.txt", "$(WHO)"],
        "volumeMounts": [{"name": "v", "mountPath": "/etc/conf"}],
    }, volumes=[{"name": "v", "configMap": {"name": "conf"}}]))  # fmt: skip
    eventually(lambda: phase(cluster, "p") == "Succeeded")
    ip = get(cluster, "p")["status"]["podIP"]
    assert ip.startswith("127.1.")
    assert log(cluster, "p").splitlines() == [
        f"p@{ip} $(UNKNOWN) $(WHO)", "from the map", "127.2.9.9 5432", "p",
    ]  # fmt: skip


def test_a_changed_config_map_changes_the_files(cluster: FakeCluster) -> None:
    meta = {"name": "conf", "namespace": "default"}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "1", "b": "1"}})
    changed = "os.listdir(sys.argv[1]) == ['a'] and open(sys.argv[1]+'/a').read() == '2'"
    program = f"import os,sys,time\nwhile not ({changed}):\n    time.sleep(0.01)"
    cluster.apply(pod("p", program, container={
        "args": ["/etc/conf"], "volumeMounts": [{"name": "v", "mountPath": "/etc/conf"}],
    }, volumes=[{"name": "v", "configMap": {"name": "conf"}}]))  # fmt: skip
    eventually(lambda: phase(cluster, "p") == "Running")
    cluster.registry.change("configmaps", "default", "conf", lambda one: one.update(data={"a": "2"}))
    eventually(lambda: phase(cluster, "p") == "Succeeded")


def test_its_account_token_is_the_accounts(cluster: FakeCluster) -> None:
    cluster.account("default", "worker")
    program = (
        "import os,urllib.request as u;p=os.environ['STORMDRILL_SERVICEACCOUNT'];"
        "a='http://%s:%s' % (os.environ['KUBERNETES_SERVICE_HOST'],os.environ['KUBERNETES_SERVICE_PORT']);"
        "r=u.Request(a+'/apis',headers={'Authorization':'Bearer '+open(p+'/token').read()});"
        "print(u.urlopen(r).status, open(p+'/namespace').read(), os.environ['STORMDRILL_API_PLAIN'])"
    )
    cluster.apply(pod("p", program, serviceAccountName="worker"))
    eventually(lambda: phase(cluster, "p") in ("Succeeded", "Failed"))
    assert log(cluster, "p") == "200 default 1\n"
    assert cluster.requests[-1].user == "system:serviceaccount:default:worker"


def test_it_is_ready_when_its_probe_is_answered(cluster: FakeCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    program = (
        "import http.server,os,sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response(200 if os.path.exists({str(gate)!r}) else 503); self.end_headers()\n"
        "http.server.HTTPServer((os.environ['IP'], 8081), H).serve_forever()\n"
    )
    cluster.apply(pod("p", program, container={
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "http", "containerPort": 8081}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
    }))  # fmt: skip

    def ready() -> bool:
        return any(
            one["type"] == "Ready" and one["status"] == "True" for one in get(cluster, "p")["status"]["conditions"]
        )

    eventually(lambda: phase(cluster, "p") == "Running")
    assert not ready()
    gate.touch()
    eventually(ready)


def test_a_container_that_fails_is_started_again(cluster: FakeCluster, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"import os,sys;p={str(mark)!r};n=os.path.exists(p);open(p,'w');sys.exit(0 if n else 1)"
    cluster.apply(pod("p", program, policy="OnFailure"))
    eventually(lambda: phase(cluster, "p") == "Succeeded")
    assert get(cluster, "p")["status"]["containerStatuses"][0]["restartCount"] == 1


def test_a_job_tries_again_until_it_has_failed_too_often(cluster: FakeCluster) -> None:
    hasty(cluster)
    template = {"spec": pod("x", "raise SystemExit(1)")["spec"]}
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "default"},
                   "spec": {"backoffLimit": 1, "template": template}})  # fmt: skip

    def job() -> Obj:
        return dict((cluster.read("/apis/batch/v1/namespaces/default/jobs/j") or {})["status"])

    eventually(lambda: any(one["type"] == "Failed" for one in job().get("conditions", [])))
    assert job()["failed"] == 2
    assert job()["conditions"][-1]["reason"] == "BackoffLimitExceeded"


TRAPS = "import signal,time,sys;signal.signal(15,lambda *_: {});open({!r},'w').close();time.sleep(600)"


def test_a_deletion_is_sigterm_and_its_exit_is_waited_for(cluster: FakeCluster, tmp_path: Path) -> None:
    begun, told = tmp_path / "begun", tmp_path / "told"
    trap = TRAPS.format(f"(open({str(told)!r},'w').close(), sys.exit(0))", str(begun))
    cluster.apply(pod("p", trap))
    eventually(begun.exists)
    cluster.registry.end("pods", "default", "p")
    eventually(lambda: phase(cluster, "p") == "gone")
    assert told.exists()


def test_what_comes_before_a_stop_ends_before_sigterm(cluster: FakeCluster, tmp_path: Path) -> None:
    begun, order = tmp_path / "begun", tmp_path / "order"
    trap = TRAPS.format(f"(open({str(order)!r},'a').write('stopped'), sys.exit(0))", str(begun))
    hook = {"preStop": {"exec": {"command": ["sh", "-c", f"sleep 0.2; printf 'before ' >> {order}"]}}}
    cluster.apply(pod("p", trap, container={"lifecycle": hook}))
    eventually(begun.exists)
    cluster.registry.end("pods", "default", "p")
    eventually(lambda: phase(cluster, "p") == "gone")
    assert order.read_text() == "before stopped"


def test_a_process_that_does_not_heed_sigterm_is_killed_after_the_grace(cluster: FakeCluster, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    cluster.apply(pod("p", TRAPS.format("None", str(begun)), terminationGracePeriodSeconds=1))
    eventually(begun.exists)
    uid = get(cluster, "p")["metadata"]["uid"]
    cluster.registry.end("pods", "default", "p")
    cluster.settle()
    assert phase(cluster, "p") == "Running"
    eventually(lambda: phase(cluster, "p") == "gone")
    assert not marked([uid])


@pytest.mark.parametrize(("shared", "heeded"), [(False, False), (True, True)])
def test_the_first_process_of_a_namespace_does_not_hear_what_it_does_not_catch(
    cluster: FakeCluster, tmp_path: Path, shared: bool, heeded: bool
) -> None:
    """Unless its Pod's containers share one, where another process is the first."""
    begun = tmp_path / "begun"
    assert cluster.behaviour is not None
    cluster.behaviour.kubelet.first_ones = True
    program = f"import time;open({str(begun)!r},'w').close();time.sleep(600)"
    grace_s = 600 if heeded else 1
    cluster.apply(pod("p", program, terminationGracePeriodSeconds=grace_s, shareProcessNamespace=shared))
    eventually(begun.exists)
    uid = get(cluster, "p")["metadata"]["uid"]
    cluster.registry.end("pods", "default", "p")
    cluster.settle()
    assert heeded or marked([uid])
    eventually(lambda: phase(cluster, "p") == "gone")
    assert not marked([uid])


def test_nothing_is_left_of_a_pod_that_hides_children_in_sessions_of_their_own(tmp_path: Path) -> None:
    with FakeCluster(run_images={IMAGE}) as cluster:
        cluster.nodes(1)
        begun = tmp_path / "begun"
        child = f"import os,time;os.setsid();open({str(begun)!r},'w').close();time.sleep(600)"
        program = f"import subprocess,sys,time;subprocess.Popen([sys.executable,'-c',{child!r}]);time.sleep(600)"
        cluster.apply([pod("p", program), pod("q", "import time;time.sleep(600)")])
        eventually(begun.exists)
        uids = [get(cluster, name)["metadata"]["uid"] for name in ("p", "q")]
        eventually(lambda: len(marked(uids)) == 3)  # each pod begins by itself: q may come after p's child
        cluster.registry.end("pods", "default", "p", grace=0)
        eventually(lambda: not marked(uids[:1]))
    assert not marked(uids)


def test_a_no_execute_taint_ends_real_processes_and_a_job_begins_anew_elsewhere(cluster: FakeCluster) -> None:
    hasty(cluster)
    template = {"spec": pod("x", "import time;time.sleep(600)", terminationGracePeriodSeconds=2)["spec"]}
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "default"},
                   "spec": {"template": template}})  # fmt: skip
    eventually(lambda: any(one["status"]["phase"] == "Running" for one in cluster.objects("pods")))
    first = cluster.objects("pods")[0]
    cluster.nodes(1, "us")
    out = [{"key": "out", "effect": "NoExecute"}]
    cluster.registry.change("nodes", "", first["spec"]["nodeName"], lambda one: one["spec"].update(taints=out))
    eventually(lambda: [one["spec"].get("nodeName") for one in cluster.objects("pods")] == ["us-cpu-1"])
    assert not marked([first["metadata"]["uid"]])


def test_the_server_is_reached_by_the_house_s_own_transport(cluster: FakeCluster) -> None:
    cluster.apply(pod("p", "import time;time.sleep(600)"))
    eventually(lambda: phase(cluster, "p") == "Running")
    answer = Api(cluster.admin).call("DELETE", "/api/v1/namespaces/default/pods/p", query={"gracePeriodSeconds": "0"})
    assert answer.status == 200
    eventually(lambda: not marked([answer.read()["metadata"]["uid"]]))  # type: ignore[index]


def test_recreate_waits_for_an_old_pod_that_takes_its_time_and_for_nothing_else(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    may_end = tmp_path / "may-end"
    program = (
        "import os,signal,sys,time\nsignal.signal(signal.SIGTERM, lambda *_: None)\nprint('ready', flush=True)\n"
        f"while not os.path.exists({str(may_end)!r}): time.sleep(0.01)"
    )
    template = pod("web", program, policy="Always", terminationGracePeriodSeconds=60)
    cluster.apply({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": template["spec"]},
        },
    })  # fmt: skip
    eventually(lambda: [phase(cluster, one["metadata"]["name"]) for one in cluster.objects("pods")] == ["Running"])
    (old,) = (one["metadata"]["name"] for one in cluster.objects("pods"))
    eventually(lambda: log(cluster, old) == "ready\n")

    def put(thing: Obj) -> None:
        thing["spec"]["template"]["metadata"]["annotations"] = {"x": "1"}
        thing["spec"]["template"]["spec"]["containers"][0]["command"] = ["sleep", "600"]

    cluster.registry.change("deployments", "default", "web", put)
    eventually(lambda: "deletionTimestamp" in get(cluster, old)["metadata"])
    cluster.settle()
    assert [one["metadata"]["name"] for one in cluster.objects("pods")] == [old]
    may_end.touch()
    eventually(lambda: [one["metadata"].get("annotations") for one in cluster.objects("pods")] == [{"x": "1"}])
