"""Who asks, and where: credentials of a kubeconfig by the official client's loader, or a pod's own ServiceAccount.

The one module that imports the client, inside functions, and of it `kubernetes.config` alone. What that says about a
kubeconfig in its errors may hold a token, so that nothing of it is repeated: every message here is of our own making.
"""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from stormdrill.cluster.api import Access
from stormdrill.errors import Refused
from stormdrill.targets.kubernetes import secretive

if TYPE_CHECKING:
    from kubernetes.config.kube_config import KubeConfigLoader

VARIABLE = "KUBECONFIG"
USUAL = "~/.kube/config"
PLUGIN_LIMIT_S = 60.0
"""For a credential plugin: a person may have to log in."""
EARLY_S = 60.0
"""Before a token expires it is renewed."""
LEAST_BETWEEN_S = 10.0
"""Between two renewals that nobody asked for: a plugin may hand out what expires at once."""
REREAD_S = 60.0
"""A token that stands in a file is read anew so often."""
_UNKNOWN_IDENTITIES = ("as-uid", "as-groups", "as-user-extra")


def access_for(context: str = "", kubeconfig: str = "") -> Access:
    """For a context of the kubeconfig (the current one when empty); in a pod without any, its ServiceAccount's.

    `kubeconfig`: a list of files as in $KUBECONFIG, which it replaces. Raises Refused, with where and what to do.
    """
    named = kubeconfig or os.environ.get(VARIABLE, "")
    if not context and not kubeconfig and in_a_pod():
        from stormdrill.cluster.inside import InCluster

        return InCluster()
    return Configured(named or USUAL, context)


def in_a_pod() -> bool:
    """Whether this process is in the cluster that it asks: it has a ServiceAccount of its own, and no kubeconfig."""
    from stormdrill.cluster.inside import there

    return not os.environ.get(VARIABLE) and not Path(USUAL).expanduser().exists() and there()


def contexts(kubeconfig: str = "") -> tuple[str, ...]:
    """Of the kubeconfig, for messages. Raises Refused."""
    return _names(_read(kubeconfig or os.environ.get(VARIABLE, "") or USUAL), "contexts")


class Configured:
    """One context of a kubeconfig (`cluster.api.Access`). Its repr and its messages name the context, and no secret."""

    def __init__(self, paths: str, context: str = "") -> None:
        merged = _read(paths)
        self.files = merged.files
        self.name = context or _text(merged.value.get("current-context"))
        _check_context(merged, self.name, asked=bool(context))
        entry = _entry(merged, "contexts", self.name).get("context") or {}
        cluster = _entry(merged, "clusters", _text(entry.get("cluster")))
        user = _entry(merged, "users", _text(entry.get("user")), needed=bool(entry.get("user")))
        self._cluster: dict[str, Any] = cluster.get("cluster") or {}
        self._user: dict[str, Any] = user.get("user") or {}
        self.namespace = _text(entry.get("namespace"))
        self._check()
        self._folder = Path(tempfile.gettempdir()) / f"stormdrill-kube-{os.getpid()}-{id(self):x}"
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        """One at a time runs a plugin and writes keys for the TLS library."""
        self._loader = _loader(merged, self.name, self._folder, self._where)
        self._into = _Into()
        self._context: ssl.SSLContext | None = None
        self._read_at_s = 0.0
        self._tell: Callable[[str, str], None] | None = None
        self._told: set[str] = set()
        self._load()

    def __repr__(self) -> str:
        return f"<context {self.name} at {self.server}>"

    # --- Access ------------------------------------------------------------------------------------------------

    @property
    def server(self) -> str:
        return _text(self._cluster.get("server")).rstrip("/")

    def context(self) -> ssl.SSLContext | None:
        return self._context

    def headers(self) -> Mapping[str, str]:
        with self._lock:
            if due := self._due():
                self._read_at_s = time.monotonic()
        if due and self._expired():
            self._renew()
        elif due and not self._loading.locked():
            # who renews a Lease can't wait for a plugin while its token is still good
            threading.Thread(target=self._renew, name="credentials", daemon=True).start()
        token = self._into.api_key.get("BearerToken", "")
        found = {"Authorization": token} if token else {}
        if acts_as := _text(self._user.get("as")):
            found["Impersonate-User"] = acts_as
        return found

    def refresh(self) -> bool:
        """After a 401. False when the same credentials came again."""
        before = (dict(self._into.api_key), self._into.cert_file)
        self._renew(forget=True)
        return (dict(self._into.api_key), self._into.cert_file) != before

    # --- for people --------------------------------------------------------------------------------------------

    def secrets(self) -> Mapping[str, str]:
        """What must be removed by value from all that is written, by a name that says where it comes from."""
        return self._secrets(self._into)

    def hide(self, tell: Callable[[str, str], None]) -> None:
        """`tell` is told each of the secrets with its name, and each later one before it is used."""
        with self._loading:
            self._tell = tell
            self._hide(self._into)

    def _secrets(self, into: _Into) -> Mapping[str, str]:
        token = into.api_key.get("BearerToken", "")
        found = {f"kubeconfig:{self.name}": token.partition(" ")[2] or token} if token else {}
        for key in ("token", "password", "client-key-data"):
            if value := _text(self._user.get(key)):
                found[f"kubeconfig:{self.name}:{key}"] = value
        provider = (self._user.get("auth-provider") or {}).get("config") or {}
        for key in ("id-token", "access-token", "refresh-token", "client-secret"):
            if value := _text(provider.get(key)):
                found[f"kubeconfig:{self.name}:{key}"] = value
        for variable in (self._user.get("exec") or {}).get("env") or ():
            # a profile or a region would be blanked out wherever it stands
            if (value := _text(variable.get("value"))) and secretive.named(_text(variable.get("name"))):
                found[f"kubeconfig:{self.name}:{variable.get('name')}"] = value
        return {name: value for name, value in found.items() if len(value) >= 8}

    @property
    def told(self) -> tuple[str, ...]:
        """What a person has to know before anything is asked of this server."""
        lines = []
        if self._cluster.get("insecure-skip-tls-verify"):
            lines.append(f"context {self.name}: the server's certificate is not verified (insecure-skip-tls-verify)")
        parts = urlsplit(self.server)
        proxy = getproxies().get(parts.scheme)
        if proxy and not proxy_bypass(parts.hostname or ""):
            lines.append(
                f"context {self.name}: ${parts.scheme.upper()}_PROXY is not used, {parts.hostname} is asked directly"
            )
        return tuple(lines)

    # --- inside ------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"kubeconfig {', '.join(self.files)}, context {self.name}"

    def _check(self) -> None:
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"{self._where}: its cluster has no server address; write server: https://HOST:PORT")
        if self._cluster.get("proxy-url"):
            raise Refused(
                f"{self._where}: proxy-url is not supported; lead a port to the API server instead "
                "(ssh -L 6443:SERVER:6443) and write that as its server, with tls-server-name"
            )
        for key in _UNKNOWN_IDENTITIES:
            if self._user.get(key):
                raise Refused(f"{self._where}: {key} is not supported, only as; use a context of its own")
        plugin = self._user.get("exec")
        if plugin and not self._user.get("token") and not self._user.get("tokenFile"):
            _check_plugin(plugin, self._where)

    def _renew(self, *, forget: bool = False) -> None:
        with self._loading:
            if forget:
                self._forget()
            self._load(keep=True)

    def _expired(self) -> bool:
        expiry: datetime | None = getattr(self._loader, "expiry", None)
        return expiry is None or expiry <= datetime.now(UTC)

    def _due(self) -> bool:
        expiry: datetime | None = getattr(self._loader, "expiry", None)
        since_s = time.monotonic() - self._read_at_s
        if expiry is not None:
            left_s = (expiry - datetime.now(UTC)).total_seconds()
            return left_s < EARLY_S and since_s >= LEAST_BETWEEN_S
        return bool(self._user.get("tokenFile")) and since_s >= REREAD_S

    def _forget(self) -> None:
        for name in ("token", "cert_file", "key_file", "expiry"):
            self._loader.__dict__.pop(name, None)

    def _load(self, *, keep: bool = False) -> None:
        """`keep`: credentials that can't be renewed stay what they are; the server then says what it thinks of them."""
        self._read_at_s = time.monotonic()
        into, problem = _Into(), ""
        try:
            self._loader.load_and_set(into)
            context = self._tls(into)
        except Refused:
            if not keep:
                raise
            return
        except Exception as error:  # whatever the loader trips over; its text may hold what must not be told
            problem = f"{self._where}: its credentials can't be read ({type(error).__name__}); look at its user entry"
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)  # keys that were written for the TLS library to read
        if problem:
            if not keep:
                raise Refused(problem)
            return
        self._hide(into)
        self._into, self._context = into, context

    def _hide(self, into: _Into) -> None:
        for name, value in self._secrets(into).items():
            if self._tell is not None and value not in self._told:
                self._tell(name, value)
                self._told.add(value)

    def _tls(self, into: _Into) -> ssl.SSLContext | None:
        if not self.server.startswith("https"):
            return None
        try:
            context = _Named(_text(self._cluster.get("tls-server-name")))
            if into.verify_ssl:
                context.load_default_certs() if not into.ssl_ca_cert else context.load_verify_locations(
                    into.ssl_ca_cert
                )
            else:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if into.cert_file:
                context.load_cert_chain(into.cert_file, into.key_file)
        except (OSError, ssl.SSLError) as error:
            raise Refused(
                f"{self._where}: its certificates can't be used ({error.strerror or type(error).__name__}); look at "
                "certificate-authority, client-certificate and client-key"
            ) from None
        return context


class _Into:
    """What the loader writes into: as much as it needs of the client's Configuration, which reads the environment."""

    def __init__(self) -> None:
        self.api_key: dict[str, str] = {}
        self.host = ""
        self.ssl_ca_cert: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.verify_ssl = True
        self.tls_server_name: str | None = None
        self.proxy: str | None = None
        self.refresh_api_key_hook: object = None


class _Named(ssl.SSLContext):
    """A client's context that may look for another name in the server's certificate than the one it was reached by."""

    stands_for: str = ""

    def __new__(cls, stands_for: str) -> _Named:
        made: _Named = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made.stands_for = stands_for
        return made

    def wrap_socket(self, sock: Any, *args: Any, **options: Any) -> ssl.SSLSocket:
        if self.stands_for:
            options["server_hostname"] = self.stands_for
        return super().wrap_socket(sock, *args, **options)


class _Merged:
    """The files of a kubeconfig as one."""

    def __init__(self, node: Any, files: tuple[str, ...]) -> None:
        self.node = node
        self.value: dict[str, Any] = node.value
        self.files = files


def _read(paths: str) -> _Merged:
    files = tuple(str(Path(path).expanduser()) for path in paths.split(os.pathsep) if path)
    there = tuple(path for path in files if Path(path).exists())
    if not there:
        raise Refused(
            f"no kubeconfig: {', '.join(files)} {'is' if len(files) == 1 else 'are'} not there; name one in "
            f"${VARIABLE}, or run in a pod with a ServiceAccount"
        )
    try:
        from kubernetes.config.kube_config import KubeConfigMerger
    except ImportError:
        raise Refused("target kubernetes needs the client: pip install 'stormdrill[kubernetes]'") from None
    merged: Any = None
    why = "is no kubeconfig"
    try:
        merged = KubeConfigMerger(os.pathsep.join(there)).config
    except OSError as error:
        why = f"can't be read: {error.strerror}"
    except Exception:
        why = "is no kubeconfig: it is empty, isn't YAML, or a list in it isn't one"
    if merged is None or not isinstance(merged.value, dict):
        raise Refused(f"{', '.join(there)} {why}; name another in ${VARIABLE}")
    return _Merged(merged, there)


def _loader(merged: _Merged, context: str, folder: Path, where: str) -> KubeConfigLoader:
    from kubernetes.config.exec_provider import ExecProvider
    from kubernetes.config.kube_config import FileOrData, KubeConfigLoader, parse_rfc3339

    class Loader(KubeConfigLoader):  # type: ignore[misc]  # untyped library
        """The official one logs a plugin's failure with its output, goes on as nobody, and waits for ever."""

        def _load_from_exec_plugin(self) -> bool | None:
            if "exec" not in self._user:
                return None
            base = self._get_base_path(self._cluster.path)
            status = _run_plugin(ExecProvider(self._user["exec"], base, self._cluster), where)
            if token := status.get("token"):
                self.token = f"Bearer {token}"
            elif "clientCertificateData" in status and "clientKeyData" in status:
                for name, key in (("cert_file", "clientCertificateData"), ("key_file", "clientKeyData")):
                    held = FileOrData(
                        status, None, data_key_name=key, base64_file_content=False, temp_file_path=self._temp_file_path
                    )
                    setattr(self, name, held.as_file())
            else:
                raise Refused(f"{where}: its credential plugin gave neither a token nor a certificate with its key")
            if expires := status.get("expirationTimestamp"):
                self.expiry = parse_rfc3339(expires)
            return True

    return Loader(merged.node, active_context=context, config_base_path=None, temp_file_path=str(folder))


def _run_plugin(provider: Any, where: str) -> dict[str, Any]:
    """Its status, within the limit. What it printed may be a secret, and isn't repeated."""
    provider.env.setdefault("NO_COLOR", "1")
    made: list[dict[str, Any]] = []
    problems: list[str] = []

    def run() -> None:
        try:
            made.append(provider.run())
        except OSError as error:
            problems.append(f"could not be started ({error.strerror})")
        except Exception as error:
            told = str(error)
            code = told.partition("process returned ")[2].partition(".")[0] if "process returned" in told else ""
            problems.append(f"ended with exit code {code}" if code else "did not answer as a credential plugin does")

    thread = threading.Thread(target=run, name="credential-plugin", daemon=True)
    thread.start()
    thread.join(PLUGIN_LIMIT_S)
    name = provider.args[0]
    if thread.is_alive():
        problems.append(f"did not answer within {PLUGIN_LIMIT_S:g} s")
    if problems:
        raise Refused(f"{where}: the credential plugin {name} {problems[0]}; run it by hand to see why, or log in anew")
    return made[0]


def _check_plugin(plugin: Mapping[str, Any], where: str) -> None:
    command = _text(plugin.get("command"))
    if os.sep in command or (command and shutil.which(command)):
        return
    hint = " ".join(_text(plugin.get("installHint")).split())
    what = f"the credential plugin {command!r} is not installed" if command else "its exec entry names no command"
    raise Refused(f"{where}: {what}; {hint or 'install it, or use another context'}")


def _check_context(merged: _Merged, name: str, *, asked: bool) -> None:
    there = ", ".join(_names(merged, "contexts")) or "none"
    where = f"kubeconfig {', '.join(merged.files)}"
    if not name:
        raise Refused(f"{where} has no current-context; name one of its contexts: {there}")
    if name not in _names(merged, "contexts"):
        what = f"has no context {name!r}" if asked else f"names the current-context {name!r}, which it doesn't have"
        raise Refused(f"{where} {what}; it has {there}")


def _entry(merged: _Merged, kind: str, name: str, *, needed: bool = True) -> dict[str, Any]:
    for item in merged.value.get(kind) or ():
        value = getattr(item, "value", item)
        if isinstance(value, dict) and value.get("name") == name:
            return value
    if not needed:
        return {}
    there = ", ".join(_names(merged, kind)) or "none"
    raise Refused(f"kubeconfig {', '.join(merged.files)} has no entry {name!r} among its {kind}; it has {there}")


def _names(merged: _Merged, kind: str) -> tuple[str, ...]:
    items: Sequence[Any] = merged.value.get(kind) or ()
    values = [getattr(item, "value", item) for item in items]
    return tuple(_text(value.get("name")) for value in values if isinstance(value, dict))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
