"""`stormdrill schema`: what editors check and complete by."""

from __future__ import annotations

import json

import click

KINDS = ("experiment", "system", "policy", "profile")


@click.command("schema")
@click.argument("kind", type=click.Choice(KINDS))
def schema(kind: str) -> None:
    """Print the JSON Schema of a kind of file, made from the same models that read it."""
    from stormdrill import api
    from stormdrill.spec.schema import schema as schema_of

    click.echo(json.dumps(schema_of(kind, api.fault_parameters()), indent=2))
