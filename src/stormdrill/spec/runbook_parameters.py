"""From an alert's labels, the system and `--set` to a runbook's parameters, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stormdrill.errors import Problem, Refused
from stormdrill.model.runbook import Parameter, Runbook
from stormdrill.spec.runbook_flow import nearest
from stormdrill.spec.runbook_front import wrong_with
from stormdrill.spec.runbook_template import UnrenderableError, Value, check_url


def resolve(
    runbook: Runbook,
    given: Mapping[str, str],
    *,
    alert_labels: Mapping[str, str] | None = None,
    system: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Every parameter's value. What is given by hand wins over the alert, that over the default.

    Raises Refused with every problem.
    """
    labels, values = alert_labels or {}, system or {}
    names = [parameter.name for parameter in runbook.parameters]
    problems = [
        Problem("", 0, 0, f"runbook {runbook.name} has no parameter {name!r}", nearest(name, names))
        for name in given
        if name not in names
    ]
    found: dict[str, str] = {}
    for parameter in runbook.parameters:
        value = _value(parameter, given, labels, values)
        if value is None:
            source = f" (from {parameter.source})" if parameter.source else ""
            what = f"runbook {runbook.name}: parameter {parameter.name} has no value{source}"
            problems.append(Problem("", 0, 0, what, f"give it with --set {parameter.name}=…"))
            continue
        wrong = [*wrong_with(parameter, value), *_wrong_address(parameter, value)]
        problems += [Problem("", 0, 0, f"runbook {runbook.name}: parameter {parameter.name}: {why}") for why in wrong]
        found[parameter.name] = value
    if problems:
        raise Refused(problems)
    return found


def _value(
    parameter: Parameter, given: Mapping[str, str], labels: Mapping[str, str], system: Mapping[str, str]
) -> str | None:
    if parameter.name in given:
        return given[parameter.name]
    source, _, key = parameter.source.rpartition(".")
    found = labels.get(key) if source == "alert.labels" else system.get(key) if source == "system" else None
    return parameter.default if found is None else found


def _wrong_address(parameter: Parameter, value: str) -> list[str]:
    if not parameter.source.startswith("system.") or "://" not in value:
        return []
    try:
        check_url(value)
    except UnrenderableError as error:
        return [str(error)]
    return []


def typed(parameters: Sequence[Parameter], values: Mapping[str, str]) -> dict[str, Value]:
    """The values as templates see them: integers and numbers are numbers."""
    kinds = {parameter.name: parameter.type for parameter in parameters}
    found: dict[str, Value] = {}
    for name, value in values.items():
        kind = kinds.get(name, "text")
        found[name] = int(value) if kind == "integer" else float(value) if kind == "number" else value
    return found
