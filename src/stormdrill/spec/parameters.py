"""Parameters of experiments and systems: declared with a default that gives the type, set on the command line, filled
in wherever `$name` stands. `$$` is a dollar sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from stormdrill.errors import Problem
from stormdrill.model.experiment import Scalar as Value
from stormdrill.model.system import Secret
from stormdrill.spec.kinds import IDENTIFIER, ParameterFile, SecretFile
from stormdrill.spec.scalars import instead, nearest, short
from stormdrill.spec.walk import Walker, fields_of, scalar_value
from stormdrill.spec.yaml import Document, Listing, Node, Place, Scalar, Table

Plain = Value | tuple[Value, ...]
Filled = Plain | Secret
FROM = "write env: VARIABLE or file: PATH, from where it is read when a run starts"
_REFERENCE = re.compile(r"\$(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<dollar>\$)|(?P<brace>\{)|)")


class Parameter(Struct, frozen=True):
    name: str
    default: Filled
    choices: tuple[Value, ...] = ()
    place: Place = Place(1, 1)

    @property
    def type(self) -> str:
        value = self.default
        if isinstance(value, Secret):
            return "a secret"
        if isinstance(value, tuple):
            return "a list"
        if isinstance(value, bool):
            return "true or false"
        if isinstance(value, int):
            return "a whole number"
        return "a number" if isinstance(value, float) else "text"


def declared(document: Document) -> dict[str, Parameter]:
    """The parameters that a file declares; problems go to the document."""
    table = document.node("parameters")
    if not isinstance(table, Table):
        return {}  # the walk over the file's model says what is wrong with it
    found: dict[str, Parameter] = {}
    for name, (key, node) in table.entries.items():
        if name == "port":
            document.problem(key, "port is the name that every instance's own port has", "choose another name")
        elif re.fullmatch(IDENTIFIER, name):
            before = len(document.problems)
            parameter = _parameter(document, name, key.place, node)
            if len(document.problems) == before and not node.broken:
                found[name] = parameter
    return found


def _parameter(document: Document, name: str, place: Place, node: Node) -> Parameter:
    if isinstance(node, Listing):
        return Parameter(name, _items(document, node), (), place)
    if isinstance(node, Scalar):
        return Parameter(name, None if node.broken else scalar_value(document, node), (), place)
    if isinstance(node, Table) and "secret" in node.entries:
        return Parameter(name, _secret(document, name, node), (), place)
    Walker(document).table(node, ParameterFile, f"the parameter {name}")
    assert isinstance(node, Table)
    default, choices = node.get("default"), node.get("choices")
    value = scalar_value(document, default) if isinstance(default, Scalar) else None
    allowed = _items(document, choices) if isinstance(choices, Listing) else ()
    if allowed and not node.broken and isinstance(default, Scalar) and not default.broken and value not in allowed:
        document.problem(default, f"the default {_shown(value)} is not one of the choices", _choose(value, allowed))
    return Parameter(name, value, allowed, place)


def _secret(document: Document, name: str, node: Table) -> Secret:
    """What is wrong is said without the value that somebody may have written."""
    literal = frozenset({"default", "choices"}) & node.entries.keys()
    for key in sorted(literal):
        at = node.entries[key][0]
        document.problem(at, f"{key} of the secret {name}: its value would stand in this file", FROM)
    before = len(document.problems)
    file = Walker(document).table(node, SecretFile, f"the secret {name}", ignore=literal)
    if literal or len(document.problems) > before or node.broken:
        return Secret(name, "")
    if not file.secret:
        document.problem(node.entries["secret"][0], f"secret: false in the parameter {name}", "remove it")
    elif file.env and file.file:
        document.problem(node, f"the secret {name} has two sources", "keep env or file")
    elif not file.env and not file.file:
        document.problem(node, f"the secret {name} has no source", FROM)
    return Secret(name, f"env:{file.env}" if file.env else f"file:{file.file}")


def secrets_of(values: Mapping[str, Filled]) -> tuple[Secret, ...]:
    return tuple(value for value in values.values() if isinstance(value, Secret))


def written(values: Mapping[str, Filled]) -> dict[str, Plain]:
    """As they may stand in a record: a secret is its placeholder."""
    return {name: value.placeholder if isinstance(value, Secret) else value for name, value in values.items()}


def _items(document: Document, node: Listing) -> tuple[Value, ...]:
    items = []
    for item in node.items:
        if isinstance(item, Scalar):
            items.append(None if item.broken else scalar_value(document, item))
        elif not item.broken:
            document.problem(item, "a list or table in a parameter", "write single values")
    return tuple(items)


def _shown(value: Filled) -> str:
    if isinstance(value, Secret):
        return value.placeholder
    if isinstance(value, tuple):
        return ",".join(_shown(item) for item in value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choose(value: Filled, choices: tuple[Value, ...]) -> str:
    return instead(_shown(value), [_shown(choice) for choice in choices])


def settle(
    parameters: Mapping[str, Parameter], settings: Mapping[str, str], problems: list[Problem]
) -> dict[str, Filled]:
    """Each parameter's value: what `--set` says, else its default. What doesn't fit is added to `problems`."""
    values: dict[str, Filled] = {}
    for name, parameter in parameters.items():
        values[name] = parameter.default
        if name in settings:
            secret = isinstance(parameter.default, Secret)
            try:
                values[name] = _source(name, settings[name]) if secret else _set(parameter, settings[name])
            except ValueError as error:
                said = "…" if secret else short(settings[name])
                problems.append(Problem(f"--set {name}={said}", 0, 0, *error.args))
    return values


def unknown_settings(known: Mapping[str, object], settings: Mapping[str, str], where: str) -> list[Problem]:
    """A problem for each setting that no file declares."""
    return [
        Problem(
            f"--set {name}={short(settings[name])}",
            0,
            0,
            f"no parameter {short(name)} in {where}",
            instead(name, known, "parameters"),
        )
        for name in settings
        if name not in known
    ]


def _source(name: str, text: str) -> Secret:
    fix = f"write --set {name}=env:VARIABLE or --set {name}=file:PATH"
    kind, _, rest = text.partition(":")
    if not (kind == "env" and re.fullmatch(IDENTIFIER, rest)) and not (kind == "file" and rest and rest.isprintable()):
        raise ValueError(f"{name} is a secret: its value would stand in the shell's history and in the record", fix)
    return Secret(name, text)


def _set(parameter: Parameter, text: str) -> Filled:
    if not text.isprintable():
        raise ValueError("a control character", "remove it")
    value = _typed(parameter, text)
    if parameter.choices and value not in parameter.choices:
        raise ValueError(
            f"{short(text)} is not one of the choices of {parameter.name}", _choose(text, parameter.choices)
        )
    return value


def _typed(parameter: Parameter, text: str) -> Filled:
    default = parameter.default
    if isinstance(default, tuple):
        items = tuple(item.strip() for item in text.split(","))
        if not all(items):
            raise ValueError(f"{parameter.name} is a list", f"write --set {parameter.name}=one,two")
        return items
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"{parameter.name} is true or false", f"write --set {parameter.name}=true")
        return text == "true"
    if isinstance(default, int | float):
        whole = isinstance(default, int)
        if not re.fullmatch(r"-?\d{1,15}" if whole else r"-?\d{1,15}(\.\d{1,15})?", text):
            meant = "a whole number" if whole else "a number"
            raise ValueError(f"{parameter.name} is {meant}", f"write --set {parameter.name}={default}")
        return int(text) if whole else float(text)
    if not text.strip():
        raise ValueError(f"{parameter.name} is empty", f"write --set {parameter.name}={default or 'VALUE'}")
    return None if default is None and text == "null" else text


def unfilled(root: Table, model: type[Struct]) -> frozenset[str]:
    """The keys below which no parameter is filled in: the declarations, and what nobody will read."""
    return frozenset({"parameters", *(root.entries.keys() - {info.encode_name for info in fields_of(model)})})


class Filler:
    """Fills `$name` in a copy of a tree; the names in `kept` stay for someone else to fill in."""

    def __init__(
        self,
        document: Document,
        values: Mapping[str, Filled],
        kept: frozenset[str] = frozenset(),
        lenient: bool = False,
    ) -> None:
        self.document = document
        self.values = values
        self.kept = kept
        table = document.node("parameters")
        self.refused = table.entries.keys() - values.keys() if isinstance(table, Table) else frozenset()
        """Declared, but not well: what is wrong was said there."""
        self.lenient = lenient or document.broken("parameters")
        """Says nothing of unknown names, because why they are unknown was said already."""
        self._in_env = False
        self._service: Node | None = None
        self._holders: list[Node] = []

    def service(self, node: Node) -> Node:
        """A copy of one service with every parameter filled in: its env is the only place that may hold a secret."""
        self._service = node
        return self.tree(node)

    def hold(self, node: Node) -> None:
        """What stands in `node` may be a secret."""
        self._holders.append(node)

    def tree(self, node: Node, skip: frozenset[str] = frozenset()) -> Node:
        """A copy with every parameter filled in, but not below the keys in `skip`."""
        if isinstance(node, Scalar):
            return self.scalar(node) if "$" in node.text and not node.broken else node
        if isinstance(node, Listing):
            listing = Listing(node.place)
            listing.items = [self.tree(item) for item in node.items]
            listing.broken = node.broken
            return listing
        assert isinstance(node, Table)
        table = Table(node.place)
        table.broken = node.broken
        for key, (at, value) in node.entries.items():
            if "$" in key:
                self.document.problem(at, f"a parameter in the key {short(key)}", "only values may hold parameters")
            holds = (key == "env" and node is self._service) or any(value is holder for holder in self._holders)
            self._in_env, before = self._in_env or holds, self._in_env
            table.entries[key] = (at, value if key in skip else self.tree(value))
            self._in_env = before
        return table

    def scalar(self, node: Scalar) -> Node:
        whole = _REFERENCE.fullmatch(node.text)
        if whole and whole["name"] and whole["name"] not in self.kept:
            return self.whole(node, whole["name"])
        pieces: list[str] = []
        shifts: list[tuple[int, int]] = []
        length = copied = 0
        for match in _REFERENCE.finditer(node.text):
            text = self.piece(node, match)
            if text is None:
                return _broken(node)
            before = node.text[copied : match.start()] + text
            pieces.append(before)
            length += len(before)
            copied = match.end()
            shifts += [(length - len(text), match.start()), (length, copied)]
        filled = Scalar(node.place, "".join(pieces) + node.text[copied:], plain=False, single=node.single)
        filled.lead = node.lead
        filled.shifts = tuple(shifts)
        return filled

    def whole(self, node: Scalar, name: str) -> Node:
        value = self.known(node, name, 0)
        if node.broken:
            return _broken(node)
        if isinstance(value, tuple):
            listing = Listing(node.place)
            listing.items = [_scalar(node.place, item) for item in value]
            return listing
        return _scalar(node.place, value)

    def piece(self, node: Scalar, match: re.Match[str]) -> str | None:
        if match["dollar"]:
            if any(node.text.startswith(name, match.end()) for name in self.kept):
                self.document.problem(
                    node, f"{match.group()} before {' or '.join(sorted(self.kept))}", "write it without"
                )
                return None
            return "$"
        if not match["name"]:
            what = (
                "${…} is not how parameters are written" if match["brace"] else "a dollar sign that names no parameter"
            )
            self.document.problem(node.at(match.start()), what, "write $name, or $$ for a dollar sign")
            node.broken = True
            return None
        if match["name"] in self.kept:
            return match.group()
        value = self.known(node, match["name"], match.start())
        if isinstance(value, tuple):
            self.document.problem(
                node.at(match.start()), f"${match['name']} is a list", "it stands where a list is meant"
            )
            node.broken = True
        return None if node.broken else _shown(value)

    def known(self, node: Scalar, name: str, offset: int) -> Plain:
        value = self.values.get(name)
        if isinstance(value, Secret):
            return self.secret(node, value, offset)
        if name in self.values:
            return value
        if self.lenient or name in self.refused:
            node.broken = True
            return None
        near = nearest(name, self.values)
        fix = f"write ${near}" if near else f"declare {name} under parameters, or write $$ for a dollar sign"
        if isinstance(self.values.get(f"{name}s"), tuple):
            fix = f"add each: {name}s beside it"
        self.document.problem(node.at(offset), f"unknown parameter ${name}", fix)
        node.broken = True
        return None

    def secret(self, node: Scalar, secret: Secret, offset: int) -> str | None:
        """Only an environment may hold one: an argument is shown by ps, anything else is written down."""
        if self._in_env:
            return secret.placeholder
        fix = f"give it to a service: env: {{TOKEN: ${secret.name}}}"
        self.document.problem(node.at(offset), f"the secret ${secret.name} outside of a service's env", fix)
        node.broken = True
        return None


def _scalar(place: Place, value: Value) -> Scalar:
    if isinstance(value, str):
        return Scalar(place, value, plain=False, single=False)
    return Scalar(place, _shown(value), plain=True, single=False)


def _broken(node: Scalar) -> Scalar:
    broken = Scalar(node.place, "", plain=False, single=False)
    broken.broken = True
    return broken
