"""A walk over a file's tree along its declared model, which collects every problem instead of stopping at the first.

What is wrong is recorded at its place and stands as a placeholder (empty text, nan, an empty list, None) in the
result, so that everything else can still be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from msgspec import Meta, Struct
from msgspec.structs import FieldInfo
from msgspec.structs import fields as struct_fields

from stormdrill.model.experiment import Scalar as Value
from stormdrill.spec.kinds import Word
from stormdrill.spec.scalars import QUANTITIES, instead, nearest, plain_text, quantity, short, word_of
from stormdrill.spec.yaml import Document, Listing, Node, Scalar, Table

S = TypeVar("S", bound=Struct)
BIGGEST = 2**53


@cache
def fields_of(model: type[Struct]) -> tuple[FieldInfo, ...]:
    return struct_fields(model)


class Declared(NamedTuple):
    """A declared type, taken apart."""

    bare: Any
    kind: str
    pattern: str
    least: float | None
    most: float | None
    min_length: int
    examples: tuple[Any, ...]
    optional: bool
    bounds: tuple[str, str] = ("", "")
    """Of a quantity, as authored: the least and the most; empty where there is none."""


_UNWRAPPED: dict[int, tuple[Any, Declared]] = {}
"""By the identity of the declared type, which is kept so that nothing else takes it: annotations can't be hashed."""


def unwrap(declared: Any) -> Declared:
    """The bare type of a declared one, what its annotations ask for, and whether it may be left out."""
    known = _UNWRAPPED.get(id(declared))
    if known is None:
        known = _UNWRAPPED[id(declared)] = (declared, _unwrapped(declared))
    return known[1]


def _unwrapped(declared: Any) -> Declared:
    optional = False
    if get_origin(declared) in (Union, UnionType):
        rest = tuple(arg for arg in get_args(declared) if arg is not NoneType)
        optional = len(rest) < len(get_args(declared))
        if len(rest) == 1:
            declared = rest[0]
    if get_origin(declared) is not Annotated:
        return Declared(declared, "", "", None, None, 0, (), optional)
    bare, *notes = get_args(declared)
    kind, pattern, least, most, min_length, examples = "", "", None, None, 0, ()
    lower, upper = "", ""
    for note in notes:
        if isinstance(note, Meta):
            extra = note.extra or {}
            kind = str(extra.get("kind", kind))
            lower, upper = str(extra.get("least", lower)), str(extra.get("most", upper))
            pattern = note.pattern or pattern
            least = least if note.ge is None else note.ge
            most = most if note.le is None else note.le
            min_length = note.min_length or min_length
            examples = tuple(note.examples or examples)
    return Declared(bare, kind, pattern, least, most, min_length, examples, optional, (lower, upper))


def placeholder(declared: Any) -> Any:
    """What stands for a value that was refused."""
    meant = unwrap(declared)
    bare, optional = meant.bare, meant.optional
    origin = get_origin(bare)
    if optional:
        return None
    if origin in (Union, UnionType) and not meant.kind:
        return placeholder(get_args(bare)[0])
    if origin is list:
        return []
    if origin is dict:
        return {}
    if isinstance(bare, type) and issubclass(bare, Struct):
        return bare(**{f.name: placeholder(f.type) for f in fields_of(bare)})
    if bare is int or bare is float:
        return float("nan")
    return ""


def _shaped(node: Node, members: tuple[Any, ...]) -> Any:
    """Of several declared types the one that is written like this; the first when none is."""
    tables = (dict, Struct)
    for member in members:
        bare = unwrap(member).bare
        made = get_origin(bare) or bare
        table = isinstance(made, type) and issubclass(made, tables)
        if (isinstance(node, Table) and table) or (isinstance(node, Listing) and made is list):
            return member
        if isinstance(node, Scalar) and not table and made is not list:
            return member
    return members[0]


def _example(info: FieldInfo) -> str:
    meant = unwrap(info.type)
    if meant.examples and not (meant.kind == "word" and meant.examples == unwrap(Word).examples):
        return f"{info.encode_name}: {meant.examples[0]}"
    if get_origin(meant.bare) is Literal:
        return f"{info.encode_name}: {' or '.join(str(arg) for arg in get_args(meant.bare))}"
    return f"{info.encode_name}: …"


class Walker:
    """Reads one document along models."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def table(self, node: Node, model: type[S], what: str, ignore: frozenset[str] = frozenset()) -> S:
        """An instance of `model` from a table; `what` names it in messages. Keys in `ignore` are someone else's."""
        if not isinstance(node, Table):
            self.wrong_shape(node, what, "a table", "write key: value lines")
            return self.broken(model)
        known = {info.encode_name: info for info in fields_of(model)}
        meant = self.unknown_keys(node, {*known, *ignore}, what)
        values: dict[str, Any] = {}
        missing = []
        for key, info in known.items():
            entry = node.get(key) or meant.get(key)
            if entry is not None:
                values[info.name] = self.value(entry, info.type, key)
            elif info.required:
                missing.append(info)
                values[info.name] = placeholder(info.type)
        if missing and not node.broken:
            names = ", ".join(info.encode_name for info in missing)
            self.document.problem(node.place, f"{what} lacks {names}", f"add {'; '.join(map(_example, missing))}")
        return model(**values)

    def unknown_keys(self, node: Table, known: set[str], what: str) -> dict[str, Node]:
        """Records a problem for each; what stands under a misspelt one is returned under the key that was meant."""
        meant = {}
        for key, (at, entry) in node.entries.items():
            if key in known:
                continue
            if not at.broken:
                self.document.problem(at, f"unknown key {short(key)} in {what}", instead(key, known, "keys"))
            near = nearest(key, known - node.entries.keys())
            if near:
                meant[near] = entry
        return meant

    def broken(self, model: type[S]) -> S:
        return model(**{info.name: placeholder(info.type) for info in fields_of(model)})

    def wrong_shape(self, node: Node, what: str, meant: str, fix: str) -> None:
        if node.broken:
            return
        if isinstance(node, Scalar) and node.sense == "null":
            self.document.problem(node, f"a value is missing: {what} is {meant}", f"{fix}, or remove the key")
            return
        got = short(node.text) if isinstance(node, Scalar) else "a list" if isinstance(node, Listing) else "a table"
        self.document.problem(node, f"{got} where {meant} is meant for {what}", fix)

    def value(self, node: Node, declared: Any, what: str) -> Any:
        """The value of a declared type, or its placeholder after a problem was recorded."""
        if node.broken and not isinstance(node, Table):
            return placeholder(declared)
        meant = unwrap(declared)
        bare, kind = meant.bare, meant.kind
        if kind in ("fault", "check", "parameter"):
            return None if kind == "parameter" else {}  # their own readers look at the tree
        origin = get_origin(bare)
        if origin in (Union, UnionType) and not kind:
            return self.value(node, _shaped(node, get_args(bare)), what)
        if origin is list:
            return self.listing(node, get_args(bare)[0], meant, what)
        if origin is dict:
            key, item = get_args(bare)
            return self.mapping(node, key, item, meant, what)
        if isinstance(bare, type) and issubclass(bare, Struct):
            return self.table(node, bare, what)
        if not isinstance(node, Scalar):
            self.wrong_shape(node, what, "one value", "write one value")
            return placeholder(declared)
        read = self.scalar(node, meant, what)
        return placeholder(declared) if read is None and kind != "scalar" else read

    def listing(self, node: Node, item: Any, meant: Declared, what: str) -> list[Any]:
        if not isinstance(node, Listing):
            words = ", ".join(node.text.split()) if isinstance(node, Scalar) else ""
            fix = f"write [{short(words)}]" if words else "write a dash before each"
            self.wrong_shape(node, what, "a list", fix)
            return []
        if len(node.items) < meant.min_length:
            self.document.problem(node, f"{what} is empty", "write at least one")
        return [self.value(entry, item, f"{what}[{index}]") for index, entry in enumerate(node.items)]

    def mapping(self, node: Node, key_type: Any, item: Any, meant: Declared, what: str) -> dict[str, Any]:
        if not isinstance(node, Table):
            self.wrong_shape(node, what, "a table", "write key: value lines")
            return {}
        if len(node.entries) < meant.min_length:
            self.document.problem(node, f"{what} is empty", "write at least one")
        named = unwrap(key_type)
        values = {}
        for key, (at, entry) in node.entries.items():
            if named.kind == "windows":  # their own reader looks at them
                values[key] = self.value(entry, item, key)
            elif self.scalar(at, named, what) is not None:
                values[key] = self.value(entry, item, f"{what}.{key}")
        return values

    def scalar(self, node: Scalar, meant: Declared, what: str) -> Any:
        if meant.kind == "scalar":
            return scalar_value(self.document, node)
        if meant.kind in ("label", "argument"):
            return self.loose(node, meant.kind)
        if meant.bare in _READERS:
            return _READERS[meant.bare](self.document, node, meant)
        if get_origin(meant.bare) is Literal:
            return self.choice(node, [str(arg) for arg in get_args(meant.bare)], what)
        if meant.pattern:
            bounded = bool(meant.bounds[1])
            text = word_of(self.document, node, meant.kind or "text", meant.pattern, bounded=bounded)
            return self.within(node, meant, text)
        return plain_text(self.document, node, "an expression" if meant.kind == "expression" else "text")

    def within(self, node: Scalar, meant: Declared, text: str | None) -> str | None:
        """The quantity, when it keeps to the bounds that its model sets (`extra={"least": "1s", "most": "10m"}`)."""
        if text is None or meant.kind not in QUANTITIES:
            return text
        value, (lower, upper) = quantity(meant.kind, text), meant.bounds
        if lower and value < quantity(meant.kind, lower):
            self.document.problem(node, f"{text} is too small", f"write at least {lower}")
        elif upper and value > quantity(meant.kind, upper):
            self.document.problem(node, f"{text} is too large", f"write at most {upper}")
        else:
            return text
        return None

    def choice(self, node: Scalar, known: list[str], what: str) -> str | None:
        text = plain_text(self.document, node, " or ".join(known))
        if text is None or text in known:
            return text
        self.document.problem(node, f"unknown value {short(text)} for {what}", instead(text, known))
        return None

    def loose(self, node: Scalar, kind: str) -> str | None:
        """Text for which a number may stand, as written: labels such as tier 1, arguments such as 8080."""
        if node.sense == "int" or (kind == "argument" and node.sense == "float"):
            return node.text
        if kind == "argument" and node.sense == "text":
            return node.text
        return plain_text(self.document, node, "a label's value" if kind == "label" else "an argument")


def scalar_value(document: Document, node: Scalar) -> Value:
    """A parameter's value with the type that it was written in."""
    sense, text = node.sense, node.text
    if sense == "text":
        return text
    if sense == "int":
        return whole_number(document, node, None)
    if sense == "float":
        return number(document, node, None)
    if sense == "bool":
        return text == "true"
    if sense != "null":
        plain_text(document, node, "text, a number, true or false")
    return None


def whole_number(document: Document, node: Scalar, meant: Declared | None) -> int | None:
    if node.sense != "int":
        document.problem(node, f"{short(node.text) or 'nothing'} where a whole number is meant", "write for instance 2")
        return None
    if len(node.text) > 17 or abs(int(node.text)) > BIGGEST:
        document.problem(node, f"{short(node.text)} is too large", "write a smaller number")
        return None
    return None if outside(document, node, int(node.text), meant) else int(node.text)


def number(document: Document, node: Scalar, meant: Declared | None) -> float | None:
    if node.sense not in ("int", "float"):
        document.problem(node, f"{short(node.text) or 'nothing'} where a number is meant", "write for instance 1.5")
        return None
    value = float(node.text)
    if abs(value) > BIGGEST:
        document.problem(node, f"{short(node.text)} is too large", "write a smaller number")
        return None
    return None if outside(document, node, value, meant) else value


def boolean(document: Document, node: Scalar, meant: Declared | None) -> bool | None:
    if node.sense == "bool":
        return node.text == "true"
    truth = "true" if node.text.lower() in ("y", "yes", "true", "on", "1") else "false"
    document.problem(node, f"{short(node.text) or 'nothing'} where true or false is meant", f"write {truth}")
    return None


def outside(document: Document, node: Scalar, value: float, meant: Declared | None) -> bool:
    if meant and meant.least is not None and value < meant.least:
        document.problem(node, f"{node.text} is too small", f"write at least {meant.least}")
        return True
    if meant and meant.most is not None and value > meant.most:
        document.problem(node, f"{node.text} is too large", f"write at most {meant.most}")
        return True
    return False


_READERS: Mapping[Any, Callable[[Document, Scalar, Declared | None], Any]] = {
    int: whole_number,
    float: number,
    bool: boolean,
}
