"""Templates in a runbook's steps: expressions only, each rendered alone and put back where it cannot change the shape.

A step's shape (its verb, its arguments, the keys of its body) is read before anything is rendered, so a value can
never add a line, an argument, a path segment or a key. Jinja2 is imported when a template is checked or rendered.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

LONGEST_VALUE = 4_096
"""Characters that one rendered expression may have."""
LONGEST_FIELD = 16_384
"""Characters that one rendered URL, body or argument may have."""

Value = str | int | float | bool | None
Context = Mapping[str, object]

_SPAN = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_STATEMENT = re.compile(r"\{%|\{#")
_HOLE = "\ue000{}\ue001"
_HOLES = re.compile("\ue000(\\d+)\ue001")
_KEPT_FILTERS = (
    "abs",
    "default",
    "d",
    "first",
    "float",
    "int",
    "last",
    "length",
    "lower",
    "round",
    "string",
    "trim",
    "upper",
)
_KEPT_TESTS = ("defined", "undefined", "none", "number", "string", "eq", "ne", "lt", "le", "gt", "ge", "in")


class UnrenderableError(ValueError):
    """A template that cannot be read, or a value that may not stand where it was asked for."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix


class Piece(NamedTuple):
    """Literal text, or the inside of one `{{ … }}`."""

    text: str
    expression: bool


def pieces(template: str) -> list[Piece]:
    """Raises UnrenderableError for statements, comments and braces that don't close."""
    if _STATEMENT.search(template):
        raise UnrenderableError(
            "a step's shape may not depend on a value", "no {% … %} and no {# … #} here, only {{ … }}"
        )
    found: list[Piece] = []
    end = 0
    for match in _SPAN.finditer(template):
        if match.start() > end:
            found.append(Piece(template[end : match.start()], False))
        found.append(Piece(match[1].strip(), True))
        end = match.end()
    if end < len(template):
        found.append(Piece(template[end:], False))
    if any("{{" in piece.text for piece in found):
        raise UnrenderableError("a {{ is never closed", "close it with }} on the same line")
    return found


@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import SandboxedEnvironment

    class Sandbox(SandboxedEnvironment):
        """Looks values up and compares them; calls nothing and grows nothing."""

        intercepted_binops = frozenset(["*", "**", "%"])

        def call_binop(self, context: object, operator: str, left: object, right: object) -> object:
            if operator == "**" or not all(isinstance(side, int | float) for side in (left, right)):
                raise SecurityError(f"{operator!r} works on numbers only, and ** not at all")
            return super().call_binop(context, operator, left, right)  # type: ignore[arg-type]

        def is_safe_callable(self, obj: object) -> bool:
            return False

        def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
            return False

    environment = Sandbox(undefined=StrictUndefined, autoescape=False)
    environment.globals.clear()
    environment.filters = {name: _bounded(environment.filters[name]) for name in _KEPT_FILTERS}
    environment.tests = {name: environment.tests[name] for name in _KEPT_TESTS}
    return environment


def _bounded(function: Callable[..., object]) -> Callable[..., object]:
    from jinja2.exceptions import SecurityError

    def bounded(*args: object, **kwargs: object) -> object:
        result = function(*args, **kwargs)
        if isinstance(result, str) and len(result) > LONGEST_VALUE:
            raise SecurityError(f"a value of more than {LONGEST_VALUE} characters")
        return result

    for mark in ("jinja_pass_arg",):
        if hasattr(function, mark):
            setattr(bounded, mark, getattr(function, mark))
    return bounded


def value_of(expression: str, context: Context) -> Value:
    """The typed value of what stands between `{{` and `}}`. Raises UnrenderableError."""
    from jinja2 import TemplateError

    try:
        compiled = _environment().compile_expression(expression, undefined_to_none=False)
        result = compiled(**context)
        if isinstance(result, str):
            result = str(result)
        elif not isinstance(result, bool | int | float | None):
            raise UnrenderableError(f"{{{{ {expression} }}}} is {_kind(result)}, not one plain value")
    except TemplateError as error:
        raise UnrenderableError(f"{{{{ {expression} }}}}: {error}") from error
    except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, UnrenderableError):
            raise
        raise UnrenderableError(f"{{{{ {expression} }}}}: {error}") from error
    if isinstance(result, float) and not math.isfinite(result):
        raise UnrenderableError(f"{{{{ {expression} }}}} is not a finite number")
    if isinstance(result, str) and len(result) > LONGEST_VALUE:
        raise UnrenderableError(f"{{{{ {expression} }}}} has more than {LONGEST_VALUE} characters")
    return result


def _kind(value: object) -> str:
    from jinja2 import Undefined

    if isinstance(value, Undefined):
        try:
            str(value)
        except Exception as error:  # StrictUndefined says which name is missing by raising
            return f"undefined ({error})"
    return f"a {type(value).__name__}"


def as_text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def render_text(template: str, context: Context) -> str:
    """For arguments and for prose. Control characters in values are refused."""
    parts = []
    for piece in pieces(template):
        text = as_text(value_of(piece.text, context)) if piece.expression else piece.text
        if piece.expression and any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise UnrenderableError(f"{{{{ {piece.text} }}}} holds a control character")
        parts.append(text)
    return _limited("".join(parts))


def render_url(template: str, context: Context) -> str:
    """Values are percent-encoded, but for one at the very start, which must be the base of an http(s) URL."""
    parts = []
    for index, piece in enumerate(pieces(template)):
        if not piece.expression:
            parts.append(piece.text)
        elif index == 0:
            parts.append(_base(piece.text, as_text(value_of(piece.text, context))))
        else:
            text = as_text(value_of(piece.text, context))
            if text in {"", ".", ".."}:
                raise UnrenderableError(f"{{{{ {piece.text} }}}} is {text!r}, which would change the address")
            parts.append(quote(text, safe=""))
    url = _limited("".join(parts))
    check_url(url)
    return url


def _base(expression: str, text: str) -> str:
    check_url(text)
    split = urlsplit(text)
    if split.query or split.fragment:
        raise UnrenderableError(f"{{{{ {expression} }}}} is {text!r}; write http://host:port, without ? and #")
    return text.rstrip("/")


def check_url(url: str) -> None:
    """Raises UnrenderableError unless `url` is a plain http(s) address without a password in it."""
    if any(not 32 < ord(char) < 127 for char in url):
        raise UnrenderableError(f"the address {url!r} holds a blank or a character that must be percent-encoded")
    try:
        split = urlsplit(url)
        host, _ = split.hostname, split.port
    except ValueError as error:
        raise UnrenderableError(f"the address {url!r}: {error}") from error
    if split.scheme not in {"http", "https"} or not host:
        raise UnrenderableError(f"{url!r} is not an address; write http://host:port/path")
    if split.username is not None or split.password is not None:
        raise UnrenderableError("the address holds a user name or a password; secrets don't belong in a runbook")


def body_shape(template: str) -> tuple[object, list[str]]:
    """A JSON body with holes where expressions stand, and the expressions. Raises UnrenderableError."""
    expressions: list[str] = []
    text, inside = [], False
    for piece in pieces(template):
        if piece.expression:
            hole = _HOLE.format(len(expressions))
            text.append(hole if inside else f'"{hole}"')
            expressions.append(piece.text)
        else:
            if "\ue000" in piece.text or "\ue001" in piece.text:
                raise UnrenderableError("the body holds a private-use character")
            inside = _inside_string(piece.text, inside)
            text.append(piece.text)
    try:
        return json.loads("".join(text)), expressions
    except ValueError as error:
        shown = str(error).replace("\ue000", "").replace("\ue001", "")
        raise UnrenderableError(f"the body is not JSON ({shown})", 'write for example {"level": 3}') from error


def _inside_string(text: str, inside: bool) -> bool:
    escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif inside and char == "\\":
            escaped = True
        elif char == '"':
            inside = not inside
    return inside


def render_body(template: str, context: Context) -> str:
    """The JSON body with typed values in its holes; keys are never rendered. Empty stays empty."""
    if not template:
        return ""
    shape, expressions = body_shape(template)
    values = [value_of(expression, context) for expression in expressions]
    return _limited(json.dumps(_filled(shape, values), ensure_ascii=False))


def _filled(shape: object, values: Sequence[Value]) -> object:
    if isinstance(shape, dict):
        if any(_HOLES.search(key) for key in shape):
            raise UnrenderableError("a body's keys may not be rendered")
        return {key: _filled(item, values) for key, item in shape.items()}
    if isinstance(shape, list):
        return [_filled(item, values) for item in shape]
    if isinstance(shape, str):
        alone = _HOLES.fullmatch(shape)
        if alone:
            return values[int(alone[1])]
        return _HOLES.sub(lambda match: as_text(values[int(match[1])]), shape)
    return shape


def _limited(text: str) -> str:
    if len(text) > LONGEST_FIELD:
        raise UnrenderableError(f"more than {LONGEST_FIELD} characters after rendering")
    return text


def names_in(template: str) -> tuple[set[str], set[str]]:
    """Undeclared variables, and the names read from `captured`. Raises UnrenderableError where it cannot be read."""
    from jinja2 import TemplateError, meta, nodes

    variables: set[str] = set()
    captured: set[str] = set()
    for piece in pieces(template):
        if not piece.expression:
            continue
        if not piece.text:
            raise UnrenderableError("{{ }} is empty")
        try:
            tree = _environment().parse("{{ " + piece.text + " }}")
            _environment().compile_expression(piece.text)
        except (TemplateError, RecursionError) as error:
            fix = f"filters here: {', '.join(_KEPT_FILTERS)}" if "filter" in str(error) else "write {{ name }}"
            raise UnrenderableError(f"{{{{ {piece.text} }}}}: {str(error).rstrip('.')}", fix) from error
        variables |= meta.find_undeclared_variables(tree)
        if tree.find(nodes.Call) is not None:
            raise UnrenderableError(f"{{{{ {piece.text} }}}} calls something", "templates here only look values up")
        for attribute in tree.find_all((nodes.Getattr, nodes.Getitem)):
            captured |= _captured(attribute, piece.text)
    return variables, captured


def _captured(node: object, text: str) -> set[str]:
    from jinja2 import nodes

    assert isinstance(node, nodes.Getattr | nodes.Getitem)
    fix = "only captured has parts, as in captured.level_before"
    if not isinstance(node.node, nodes.Name) or node.node.name != "captured":
        raise UnrenderableError(f"{{{{ {text} }}}} looks into a value", fix)
    if isinstance(node, nodes.Getattr):
        return {node.attr}
    if isinstance(node.arg, nodes.Const):
        return {str(node.arg.value)}
    raise UnrenderableError(f"{{{{ {text} }}}} doesn't name what is captured", fix)
