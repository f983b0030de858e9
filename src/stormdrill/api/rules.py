"""What a drill on a cluster takes, as manifests to print: the account with the least rights, and a scheduled run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from stormdrill.api.copies import TEMPLATES, files_of, templates_in
from stormdrill.api.manifests import stream
from stormdrill.api.sending import harmed
from stormdrill.errors import Refused

if TYPE_CHECKING:
    from stormdrill.model.permission import Need
    from stormdrill.model.plan import Injection, Plan
    from stormdrill.model.system import KubernetesSpec
    from stormdrill.spec.load import Loaded

POLICY = "policy.yaml"


@runtime_checkable
class Needing(Protocol):
    """Capability: a target where rights are given one by one."""

    def needs(self, planned: Sequence[Injection], *, outside: bool | None = None) -> Sequence[Need]:
        """All that it took to plan, and that the injections, their reverts, the watchdog and the load will take.
        `outside`: the run isn't in the cluster; None: as this process."""
        ...


def account(made: Plan, here: object, *, outside: bool | None = None, cluster: str = "") -> str:
    """The ServiceAccount with exactly what this plan takes, in each cluster or the one named. `here`: the target that
    it was planned with. Raises Refused."""
    from stormdrill.targets.kubernetes.rbac import manifests

    spec = _spec(made)
    if cluster and cluster not in spec.contexts:
        known = ", ".join(name for name in spec.contexts if name) or "one cluster, without a name"
        raise Refused(f"--cluster {cluster}: the system is on {known}")
    assert isinstance(here, Needing)
    by_cluster: dict[str, list[Need]] = {}
    for need in here.needs(made.injections, outside=outside):
        by_cluster.setdefault(need.cluster, []).append(need)
    parts = []
    for name, needs in sorted(by_cluster.items()):
        if cluster not in ("", name):
            continue
        made_here = manifests(needs, name=f"stormdrill-{made.experiment.name}", suite=spec.suite, account=spec.account)
        context = spec.contexts.get(name, "")
        said = f"# cluster {name}{f', context {context}' if context else ''}\n" if name else ""
        parts.append(said + stream(made_here))
    return "---\n".join(parts)


def scheduled(
    made: Plan,
    loaded: Loaded,
    roots: Sequence[Path],
    when: str,
    claim: str,
    settings: Mapping[str, str],
    unfit: Sequence[str] = (),
) -> str:
    """A CronJob that runs this experiment in the cluster. `unfit`: nodes on which nothing of ours would run. Raises
    Refused."""
    from stormdrill.targets.kubernetes.scheduled import Scheduled, manifests

    spec = _spec(made)
    if len(spec.contexts) > 1:
        raise Refused("a scheduled run is in one cluster, and this system is on several; run it from outside of them")
    if not spec.image.name:
        raise Refused("a scheduled run needs an image; write image: {name: …} in the kubernetes section of the system")
    read = [secret.name for secret in made.system.secrets if not secret.source.startswith("env:")]
    if read:
        raise Refused(f"{', '.join(read)}: a secret of a scheduled run comes from a variable; --set {read[0]}=env:NAME")
    sources = [secret.source.removeprefix("env:") for secret in made.system.secrets]
    wanted = Scheduled(
        experiment=made.experiment.name,
        path=_place(loaded.sources["experiment.yaml"].path, roots),
        schedule=when,
        files=_files(made, loaded, roots),
        image=spec.image.name,
        pull=spec.image.pull,
        pull_secret=spec.image.pull_secret,
        nodes=spec.image.nodes,
        avoid=tuple(sorted({*harmed(made, ""), *unfit})),
        suite=spec.suite,
        account=spec.account,
        lasts_s=made.longest_s + made.system.ready_timeout_s,
        settings=settings,
        claim=claim,
        secrets=sources,
        fast=made.experiment.fast,
    )
    return stream(manifests(wanted))


def _spec(made: Plan) -> KubernetesSpec:
    if made.target != "kubernetes" or made.system.kubernetes is None:
        raise Refused("rights are given and runs are scheduled on a cluster only; write --target kubernetes")
    return made.system.kubernetes


def _files(made: Plan, loaded: Loaded, roots: Sequence[Path]) -> dict[str, str]:
    """Everything that the run reads, by its path in a repository."""
    files = {_place(source.path, roots): source.text for name, source in loaded.sources.items() if name != POLICY}
    files[POLICY] = loaded.sources[POLICY].text  # wherever $STORMDRILL_POLICY has it
    locustfile = loaded.locustfile if made.experiment.load is not None else None
    if locustfile is not None:
        files[_place(locustfile, roots)] = locustfile.read_text(encoding="utf-8")
    templates = files_of(templates_in(roots))
    return files | {f"{TEMPLATES}/{path.name}": path.read_text(encoding="utf-8") for path in templates}


def _place(path: Path, roots: Sequence[Path]) -> str:
    """Where a file is in its repository."""
    absolute = path.absolute()
    for root in roots:
        if absolute.is_relative_to(root.absolute()):
            return absolute.relative_to(root.absolute()).as_posix()
    return path.name
