"""Credentials come from the kubeconfig as people have it; what is wrong with it is said, and never with a secret."""

import base64
import datetime
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from stormdrill.cluster.inside import InCluster
from stormdrill.errors import Refused
from stormdrill.targets.kubernetes import kubeconfig
from stormdrill.targets.kubernetes.kubeconfig import Configured, access_for, contexts
from waiting import eventually

TOKEN = "token-that-nobody-may-read"  # noqa: S105
OTHER = "another-token-of-the-plugin"


def config(user=None, cluster=None, *, server="http://127.0.0.1:9", current="here", context=None):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": TOKEN} if user is None else user}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop", **(context or {})}},
            {"name": "there", "context": {"cluster": "nowhere", "user": "u"}},
        ],
    }


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def write(value, name="config"):
        place = tmp_path / name
        place.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
        monkeypatch.setenv("KUBECONFIG", str(place))
        return place

    return write


def plugin(folder: Path, body: str, name="plugin") -> str:
    place = folder / name
    place.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
    place.chmod(0o755)
    return str(place)


def credential(**status: str) -> str:
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return f"print({json.dumps(answer)!r})"


def exec_user(command: str, **more: object) -> dict:
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": command, **more}}


def refusal(context="") -> str:
    with pytest.raises(Refused) as refused:
        access_for(context)
    text = str(refused.value)
    assert TOKEN not in text
    assert OTHER not in text
    return text


# --- what is found ---------------------------------------------------------------------------------------------


def test_the_current_context_says_where_and_who(written):
    written(config())
    access = access_for()
    assert access.server == "http://127.0.0.1:9"
    assert access.context() is None
    assert access.headers() == {"Authorization": f"Bearer {TOKEN}"}
    assert access.namespace == "shop"
    assert not access.refresh()


def test_several_files_are_one_and_the_first_one_wins(written, tmp_path, monkeypatch):
    first = written({**config(), "contexts": [], "users": []}, "first")
    second = written(config(server="http://127.0.0.1:10"), "second")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(first), str(second), str(tmp_path / "absent")]))
    access = access_for("here")
    assert access.server == "http://127.0.0.1:9"
    assert access.headers() == {"Authorization": f"Bearer {TOKEN}"}
    assert contexts() == ("here", "there")


def test_a_name_and_a_password_are_sent_as_basic(written):
    written(config({"username": "me", "password": TOKEN}))
    told = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    access = access_for()
    assert access.headers() == {"Authorization": f"Basic {told}"}
    assert {TOKEN, told} <= set(access.secrets().values())


def test_acting_as_somebody_else_is_asked_for_and_not_forgotten(written):
    written(config({"token": TOKEN, "as": "drill"}))
    assert access_for().headers()["Impersonate-User"] == "drill"
    written(config({"token": TOKEN, "as": "drill", "as-groups": ["x"]}))
    assert "as-groups is not supported" in refusal()


def test_a_token_in_a_file_is_read_anew_after_a_401(written, tmp_path):
    place = tmp_path / "token"
    place.write_text(TOKEN)
    written(config({"tokenFile": str(place)}))
    access = access_for()
    place.write_text(OTHER)
    assert access.refresh()
    assert access.headers() == {"Authorization": f"Bearer {OTHER}"}
    assert not access.refresh()


def test_a_plugin_is_asked_once_and_again_when_its_token_is_refused_or_expires(written, tmp_path, monkeypatch):
    count = tmp_path / "count"
    body = f"n = os.path.getsize({str(count)!r})\n"
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    count.write_text("")
    body += f"open({str(count)!r}, 'a').write('x')\n"
    body += "status = {'token': f'{os.environ[\"PREFIX\"]}-{n}', 'expirationTimestamp': '" + soon + "'}\n"
    body += "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'x', 'status': status}))"
    command = plugin(tmp_path, body)
    env = {"PREFIX": "prefix-of-tokens", "CLIENT_SECRET": "the-secret-of-it"}
    written(config(exec_user(command, env=[{"name": name, "value": value} for name, value in env.items()])))
    access = access_for()
    for _ in range(3):
        assert access.headers() == {"Authorization": "Bearer prefix-of-tokens-0"}
    assert access.refresh()
    assert access.headers() == {"Authorization": "Bearer prefix-of-tokens-1"}
    monkeypatch.setattr(kubeconfig, "LEAST_BETWEEN_S", 0.0)  # it expires within EARLY_S
    eventually(lambda: access.headers() == {"Authorization": "Bearer prefix-of-tokens-2"})
    monkeypatch.setattr(kubeconfig, "LEAST_BETWEEN_S", 60.0)
    assert "prefix-of-tokens-2" in access.secrets().values()
    assert set(access.secrets().values()) == {"prefix-of-tokens-2", "the-secret-of-it"}


def test_a_plugin_that_fails_later_leaves_what_there_was(written, tmp_path):
    command = plugin(tmp_path, credential(token=OTHER))
    written(config(exec_user(command)))
    access = access_for()
    plugin(tmp_path, "sys.exit(7)")
    assert not access.refresh()
    assert access.headers() == {"Authorization": f"Bearer {OTHER}"}


def test_who_asks_waits_for_no_plugin_while_the_token_is_good_and_for_it_when_it_is_not(written, tmp_path, monkeypatch):
    gate, count = tmp_path / "gate", tmp_path / "count"
    gate.write_text("")
    body = f"""
n = os.path.getsize({str(count)!r}) if os.path.exists({str(count)!r}) else 0
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
open({str(count)!r}, 'a').write('x')
ends = time.time() + float(open({str(tmp_path / "for")!r}).read())
told = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(ends))
status = {{'token': f'token-number-{{n}}', 'expirationTimestamp': told}}
print(json.dumps({{'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'x', 'status': status}}))
"""
    (tmp_path / "for").write_text("30")
    written(config(exec_user(plugin(tmp_path, body))))
    access = access_for()
    monkeypatch.setattr(kubeconfig, "LEAST_BETWEEN_S", 0.0)
    gate.unlink()
    assert access.headers() == {"Authorization": "Bearer token-number-0"}
    (tmp_path / "for").write_text("-5")
    gate.write_text("")
    eventually(lambda: access.headers() != {"Authorization": "Bearer token-number-0"})
    (tmp_path / "for").write_text("3600")
    eventually(lambda: access.headers() and access._loader.expiry.timestamp() > time.time())


# --- what is refused -------------------------------------------------------------------------------------------


def test_no_kubeconfig_is_told_with_where_it_was_looked_for(written, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    text = refusal()
    assert str(tmp_path / "absent") in text
    assert "name one in $KUBECONFIG" in text


def test_an_unknown_context_is_told_with_those_that_there_are(written):
    place = written(config())
    assert refusal("elsewhere") == f"kubeconfig {place} has no context 'elsewhere'; it has here, there"
    written(config(current="gone"))
    assert "names the current-context 'gone', which it doesn't have; it has here, there" in refusal()
    written(config(current=""))
    assert "has no current-context; name one of its contexts: here, there" in refusal()


def test_a_context_of_a_cluster_that_is_not_there_is_told(written):
    written(config())
    assert "has no entry 'nowhere' among its clusters; it has c" in refusal("there")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("- a\n- b\n", "is no kubeconfig"),
        ("a: [", "is no kubeconfig"),
        ("users: 7\n", "is no kube"),
    ],
)
def test_what_is_no_kubeconfig_is_told(written, text, why):
    written(text)
    assert why in refusal()


def test_a_user_entry_that_is_broken_is_told_without_what_is_in_it(written):
    written(config({"auth-provider": {"name": "oidc", "config": {"refresh-token": TOKEN}}}))
    assert "its credentials can't be read (ConfigException); look at its user entry" in refusal()


def test_a_plugin_that_is_not_installed_is_told_with_its_own_hint(written):
    written(config(exec_user("no-such-plugin", installHint="get it\nfrom your platform team")))
    assert "the credential plugin 'no-such-plugin' is not installed; get it from your platform team" in refusal()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (f"print({TOKEN!r}); sys.stderr.write({TOKEN!r}); sys.exit(3)", "ended with exit code 3"),
        (f"print({TOKEN!r})", "did not answer as a credential plugin does"),
        (credential(nothing=TOKEN), "gave neither a token nor a certificate with its key"),
    ],
)
def test_a_plugin_that_goes_wrong_is_told_without_what_it_said(written, tmp_path, body, why):
    written(config(exec_user(plugin(tmp_path, body))))
    assert why in refusal()


def test_a_plugin_that_never_answers_is_given_up(written, tmp_path, monkeypatch):
    monkeypatch.setattr(kubeconfig, "PLUGIN_LIMIT_S", 0.2)
    held = tmp_path / "held"
    os.mkfifo(held)
    written(config(exec_user(plugin(tmp_path, f"open({str(held)!r}).read()"))))
    assert "did not answer within 0.2 s" in refusal()
    threading.Thread(target=held.write_text, args=("",), daemon=True).start()  # let it end


def test_a_proxy_is_refused_or_told_of(written, monkeypatch):
    written(config(cluster={"proxy-url": "http://127.0.0.1:3128"}))
    assert "proxy-url is not supported; lead a port to the API server instead" in refusal()
    written(config(server="http://192.0.2.1:9"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    assert access_for().told == ("context here: $HTTP_PROXY is not used, 192.0.2.1 is asked directly",)


def test_a_server_that_is_no_address_is_refused(written):
    written(config(server="127.0.0.1:6443"))
    assert "write server: https://HOST:PORT" in refusal()


# --- TLS -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for the name `api.test`, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=api.test"
    names = ["-addext", "subjectAltName=DNS:api.test", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    return cert, key


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_a_server_is_verified_by_its_authority_and_the_name_that_is_told(written, certificate):
    cert, key = certificate
    written(
        config(
            {"client-certificate-data": data(cert), "client-key-data": data(key)},
            {"certificate-authority-data": data(cert), "tls-server-name": "api.test"},
            server="https://127.0.0.1:9",
        )
    )
    access = access_for()
    context = access.context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert shaken(context, cert, key) == "api.test"
    assert access.headers() == {}
    assert data(key) in access.secrets().values()


def test_no_key_is_left_in_a_file(written, certificate, tmp_path, monkeypatch):
    cert, key = certificate
    monkeypatch.setattr(kubeconfig.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    user = {"client-certificate-data": data(cert), "client-key-data": data(key)}
    written(config(user, {"certificate-authority": str(cert)}, server="https://127.0.0.1:9"))
    access_for().refresh()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_unverified_server_is_honoured_and_told(written, certificate):
    written(config(cluster={"insecure-skip-tls-verify": True}, server="https://127.0.0.1:9"))
    access = access_for()
    assert access.context().verify_mode == ssl.CERT_NONE
    assert access.told == ("context here: the server's certificate is not verified (insecure-skip-tls-verify)",)


def test_certificates_that_cannot_be_used_are_told(written, tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    written(config(cluster={"certificate-authority": str(bad)}, server="https://127.0.0.1:9"))
    assert "its certificates can't be used" in refusal()
    written(config(cluster={"certificate-authority": "absent.pem"}, server="https://127.0.0.1:9"))
    assert "its credentials can't be read" in refusal()


def shaken(context: ssl.SSLContext, cert: Path, key: Path) -> str:
    """The name that a client of this context asks for, of a server that has this certificate."""
    asked = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    server.sni_callback = lambda _sock, name, _context: asked.append(name)
    here, there = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(there, server_side=True) as sock:
            sock.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with context.wrap_socket(here, server_hostname="127.0.0.1") as sock:
        sock.send(b"x")
    thread.join(5)
    return asked[0]


# --- what is kept quiet, and where -----------------------------------------------------------------------------


def test_nothing_that_is_shown_holds_a_secret(written):
    written(config())
    access = access_for()
    assert TOKEN not in repr(access)
    assert access.secrets() == {"kubeconfig:here": TOKEN, "kubeconfig:here:token": TOKEN}


def test_in_a_pod_without_a_kubeconfig_it_is_the_service_account(written, tmp_path, monkeypatch):
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(OTHER)
    monkeypatch.setenv("STORMDRILL_SERVICEACCOUNT", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert isinstance(access_for(), InCluster)
    written(config())
    assert isinstance(access_for(), Configured)


def test_the_client_is_imported_only_when_a_kubeconfig_is_read():
    code = "import sys, stormdrill.targets.kubernetes.kubeconfig; print('kubernetes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
