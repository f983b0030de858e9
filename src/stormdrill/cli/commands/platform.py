"""`stormdrill platform …`: the reference platform for where a run doesn't start it itself."""

from __future__ import annotations

from pathlib import Path

import click

from stormdrill.cli import options

IMAGE = "stormdrill-platform:latest"
REGION = "topology.kubernetes.io/region"


@click.group("platform")
def platform() -> None:
    """The reference platform on a cluster: print what `kubectl apply` takes."""


@platform.command("manifests")
@click.option("--image", default=IMAGE, show_default=True, help="As the nodes know it; `make image` builds it.")
@click.option("--pull", type=click.Choice(["IfNotPresent", "Always", "Never"]), default="IfNotPresent")
@click.option("--namespace", default="platform", show_default=True)
@click.option("--regions", default="eu,us", show_default=True, help="Values of the nodes' region label, by commas.")
@click.option("--region-label", default=REGION, show_default=True, help="The nodes' label that says their region.")
@click.option(
    "--nodes",
    type=options.Setting(),
    multiple=True,
    callback=options.as_settings,
    help="A label of the nodes that it may run on; can be repeated.",
)
@click.option("--storage", type=click.Choice(["node", "claim", "none"]), default="node", show_default=True)
@click.option(
    "--queue-node",
    "queue_nodes",
    type=options.Setting(),
    multiple=True,
    callback=options.as_settings,
    help="REGION=NODE: where that region's gateway runs, so that it finds its queue again; can be repeated.",
)
@click.option("--gpu-resource", default="", help="What GPU workers ask for: nvidia.com/gpu. By default nothing.")
@click.option("--segmented", is_flag=True, help="With a NetworkPolicy: edges can't reach the feed.")
@click.option("--kustomize", type=click.Path(file_okay=False, path_type=Path), help="Write a kustomize tree there.")
def manifests(  # noqa: PLR0913  (one for each option)
    image: str,
    pull: str,
    namespace: str,
    regions: str,
    region_label: str,
    nodes: dict[str, str],
    storage: str,
    queue_nodes: dict[str, str],
    gpu_resource: str,
    segmented: bool,
    kustomize: Path | None,
) -> None:
    """Print namespace, Services, Deployments, budgets: stormdrill platform manifests | kubectl apply -f -"""
    from stormdrill.api import manifests as made
    from stormdrill.targets.kubernetes.manifests import Layout

    layout = Layout(
        image=image,
        namespace=namespace,
        regions=tuple(name.strip() for name in regions.split(",") if name.strip()),
        region_label=region_label,
        pull=pull,
        nodes=nodes,
        storage=storage,
        queue_nodes=queue_nodes,
        gpu_resource=gpu_resource,
        segmented=segmented,
    )
    if kustomize is None:
        click.echo(made.manifests(layout), nl=False)
        return
    for path in made.write_kustomize(layout, kustomize):
        click.echo(f"wrote    {path}")
