"""Clients that are not ours get along with the fake cluster: the official one, and kubectl where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fake_cluster import FakeCluster
from fake_cluster.scenes import namespace, node


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl: kubectl sends no token without TLS")
def test_kubectl_gets_applies_annotates_and_cordons(tmp_path: Path) -> None:
    def kubectl(*words: str, stdin: str = "") -> str:
        argv = ["kubectl", "--kubeconfig", str(tmp_path / "config"), "--cache-dir", str(tmp_path / "cache"), *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: run, namespace: suite}\ndata: {a: b}\n"
    with FakeCluster(world=False, tls=True) as cluster:
        cluster.apply([namespace("suite", drill=False), node("n1", "eu")])
        cluster.kubeconfig(tmp_path / "config")
        assert "n1" in kubectl("get", "nodes")
        assert "created" in kubectl("apply", "-f", "-", stdin=manifest)
        assert "configured" in kubectl("apply", "-f", "-", stdin=manifest.replace("b}", "c}"))
        kubectl("annotate", "configmap", "run", "-n", "suite", "stormdrill.dev/stop=now")
        kubectl("cordon", "n1")
        held = cluster.read("/api/v1/namespaces/suite/configmaps/run")
        assert held is not None
        assert held["data"] == {"a": "c"}
        assert held["metadata"]["annotations"]["stormdrill.dev/stop"] == "now"
        cordoned = cluster.read("/api/v1/nodes/n1")
        assert cordoned is not None
        assert cordoned["spec"] == {"unschedulable": True}


def test_the_official_client_reads_patches_and_is_refused(tmp_path: Path) -> None:
    client = pytest.importorskip("kubernetes.client")
    config = pytest.importorskip("kubernetes.config")
    with FakeCluster(world=False) as cluster:
        cluster.apply([node("n1", "eu"), node("n2", "us")])
        config.load_kube_config(str(cluster.kubeconfig(tmp_path / "config")))
        core = client.CoreV1Api()
        assert [one.metadata.name for one in core.list_node(label_selector="pool=cpu").items] == ["n1", "n2"]
        patched = core.patch_node("n1", {"spec": {"unschedulable": True}})
        assert patched.spec.unschedulable is True
        with pytest.raises(client.ApiException) as refused:
            core.read_namespaced_config_map("absent", "default")
        assert refused.value.status == 404
        client.ApiClient().close()
