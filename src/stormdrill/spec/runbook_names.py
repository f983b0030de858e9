"""Template variables that will not be there when a step's turn comes, found before anything runs. Needs Jinja2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stormdrill.model.runbook import Parameter, Step
from stormdrill.spec.runbook_body import Content, templates_of
from stormdrill.spec.runbook_flow import Trouble, nearest
from stormdrill.spec.runbook_template import UnrenderableError, names_in


def name_troubles(
    parameters: Iterable[Parameter],
    steps: tuple[Step, ...],
    contents: Mapping[str, Content],
    undos: Mapping[str, Content],
    known: Mapping[str, set[str]],
) -> list[Trouble]:
    """`known`: step id → what was captured on every way to it."""
    names = [parameter.name for parameter in parameters]
    everywhere = {capture.name for content in contents.values() for capture in content.captures}
    found: list[Trouble] = []
    for step in steps:
        content = contents[step.id]
        before = known[step.id] | {capture.name for capture in content.captures if capture.source is not None}
        after = before | {capture.name for capture in content.captures}
        late = {text for seen in content.verifies for text in (seen.condition.value, *_strings(seen.source))}
        for text, line in templates_of(content):
            found += _troubles(step.id, text, line, names, after if text in late else before, everywhere)
        if step.undo in undos:
            for text, line in templates_of(undos[step.undo]):
                found += _undo_troubles(step, text, line, names, before, everywhere)
    return list(dict.fromkeys(found))


def _strings(source: object) -> tuple[str, ...]:
    found = [getattr(source, name, "") for name in ("url", "body")]
    return (*found, *getattr(source, "argv", ()))


def _troubles(
    where: str, text: str, line: int, names: list[str], captured: set[str], everywhere: set[str]
) -> list[Trouble]:
    try:
        variables, wanted = names_in(text)
    except UnrenderableError as error:
        return [Trouble(where, line, str(error), error.fix, "{{")]
    found = [
        Trouble(where, line, f"no parameter {name!r}", nearest(name, (*names, "captured")), _token(text, name))
        for name in sorted(variables - set(names) - {"captured"})
    ]
    for name in sorted(wanted - captured):
        if name in everywhere:
            what = f"captured.{name} is not there on every way to this step"
            fix = "capture it in a step that always comes before"
        else:
            what = f"nothing captures {name!r}"
            fix = f"add capture: {name} = GET address .path to an earlier step, or to the action before its own undo"
        found.append(Trouble(where, line, what, fix, _token(text, name)))
    if "captured" in variables and not wanted:
        found.append(Trouble(where, line, "captured is no value by itself", "write captured.name", "captured"))
    return found


def _undo_troubles(
    step: Step, text: str, line: int, names: list[str], captured: set[str], everywhere: set[str]
) -> list[Trouble]:
    """Placed in the undo block, where the name stands."""
    found = _troubles(step.undo, text, line, names, captured, everywhere)
    return [
        trouble._replace(
            what=trouble.what.replace("on every way to this step", f"before the action {step.id} runs"),
            fix=f"write capture: name = GET address .path in {step.id}: an undo is rendered before the harm"
            if "captur" in trouble.what
            else trouble.fix,
        )
        for trouble in found
    ]


def _token(text: str, name: str) -> str:
    return name if name in text else "{{"
