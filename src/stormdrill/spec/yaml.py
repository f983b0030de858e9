"""YAML as a tree with places, and nothing of YAML that surprises: no anchors, tags, merge keys, tabs or 1.1 booleans.

The tree is built from the parser's events, not by its constructor: every scalar stays the text that was written until
a reader says what it is meant to be.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import yaml as pyyaml

from stormdrill.errors import Problem, Refused
from stormdrill.spec.syntax import explain

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_NODES = 5_000
MAX_PROBLEMS = 100

Loader: type[pyyaml.CSafeLoader] | type[pyyaml.SafeLoader] = getattr(pyyaml, "CSafeLoader", pyyaml.SafeLoader)

# Patterns are compiled when they are first needed: most values begin with a letter and need none of them.
_INT = r"[-+]?(0|[1-9][0-9]*)"
_FLOAT = r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]+|(?<=[0-9])\.|(?<=[0-9])(?=[eE]))([eE][-+]?[0-9]+)?"
_ODD_NUMBER = (
    r"[-+]?(0[0-7_]+|0o[0-7]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"
    r"|\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN"
)
_ODD_BOOLEANS = frozenset(("y", "Y", "n", "N")) | {
    form for word in ("yes", "no", "on", "off", "true", "false") for form in (word, word.title(), word.upper())
}
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_FORBIDDEN = "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"

Sense = Literal["text", "int", "float", "bool", "null", "odd boolean", "odd number"]


class Place(NamedTuple):
    line: int
    column: int


class Node:
    """A value in a file. `broken`: a problem was already recorded for it, so that no second one is."""

    __slots__ = ("broken", "column", "line")

    def __init__(self, place: Place) -> None:
        self.line, self.column = place
        self.broken = False

    @property
    def place(self) -> Place:
        return Place(self.line, self.column)


class Scalar(Node):
    __slots__ = ("lead", "plain", "shifts", "single", "text")

    def __init__(self, place: Place, text: str, plain: bool, single: bool) -> None:
        super().__init__(place)
        self.text = text
        self.plain = plain
        """Written without quotes: only then can it be anything but text."""
        self.single = single
        """Stands on one line, character by character: offsets into the text are columns."""
        self.lead = 0 if plain else 1
        """Characters before the text: a quote."""
        self.shifts: tuple[tuple[int, int], ...] = ()
        """Where parameters were filled in: from this offset on, the source's offset is that."""

    def at(self, offset: int) -> Place:
        """The place of a character of `text` in the file."""
        if not self.single:
            return self.place
        for begin, source in reversed(self.shifts):
            if offset >= begin:
                offset += source - begin
                break
        return Place(self.line, self.column + self.lead + offset)

    @property
    def sense(self) -> Sense:
        """What this library takes the scalar for; `odd` ones mean different things to different YAML readers."""
        if not self.plain:
            return "text"
        text = self.text
        if text in ("true", "false"):
            return "bool"
        if text in _NULL:
            return "null"
        if text in _ODD_BOOLEANS:
            return "odd boolean"
        if text[0] not in "+-.0123456789":
            return "text"
        if re.fullmatch(_INT, text):
            return "int"
        if re.fullmatch(_FLOAT, text):
            return "float"
        return "odd number" if re.fullmatch(_ODD_NUMBER, text) else "text"


class Listing(Node):
    __slots__ = ("items",)

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.items: list[Node] = []


class Table(Node):
    __slots__ = ("entries",)

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.entries: dict[str, tuple[Scalar, Node]] = {}

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return entry[1] if entry else None


class Document:
    """One file as read: its name for messages, its text, its tree (None when nothing could be made of it)."""

    __slots__ = ("name", "problems", "root", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.root: Table | None = None
        self.problems: list[Problem] = []

    def node(self, *path: str | int) -> Node | None:
        """The value at `path`, or None when there is none."""
        node: Node | None = self.root
        for step in path:
            if isinstance(node, Table) and isinstance(step, str):
                node = node.get(step)
            elif isinstance(node, Listing) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            else:
                return None
        return node

    def place(self, *path: str | int) -> Place:
        """Where the value at `path` stands, or the nearest thing around it."""
        for length in range(len(path), -1, -1):
            node = self.node(*path[:length])
            if node is not None:
                return node.place
        return Place(1, 1)

    def key(self, *path: str | int) -> Place:
        """Where the key of the value at `path` stands."""
        table, last = self.node(*path[:-1]), path[-1]
        if isinstance(table, Table) and isinstance(last, str) and last in table.entries:
            return table.entries[last][0].place
        return self.place(*path)

    def broken(self, *path: str | int) -> bool:
        """Whether a problem was recorded for the value at `path` or for one around it."""
        return any(node is not None and node.broken for node in (self.node(*path[:n]) for n in range(1, len(path) + 1)))

    def problem(self, at: Node | Place, what: str, fix: str = "") -> None:
        line, column = at.place if isinstance(at, Node) else at
        found = Problem(self.name, line, column, what, fix)
        if found not in self.problems and len(self.problems) < MAX_PROBLEMS:
            self.problems.append(found)
        if isinstance(at, Node):
            at.broken = True


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """In the order of their places in the file."""
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


class _StopReadingError(Exception):
    """Nothing sensible can be read after this."""


def read_text(path: Path) -> str:
    """The text of a file of at most `MAX_BYTES`, UTF-8. Raises Refused with the place of what is wrong."""
    name = str(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a directory" if path.is_dir() else "not an ordinary file"
            raise Refused([Problem(name, 0, 0, kind, "name a file")])
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except ValueError:
        raise Refused([Problem(repr(name), 0, 0, "no such file", "check the path")]) from None
    except OSError as error:
        raise Refused([Problem(name, 0, 0, *_reason(error))]) from None
    if len(raw) > MAX_BYTES:
        what = f"more than {MAX_BYTES // 1024} KB"
        raise Refused([Problem(name, 0, 0, what, "this is not a file that a person wrote: split it")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", errors="replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise Refused([Problem(name, line, column, "this is not UTF-8", "save the file as UTF-8")]) from None


def _reason(error: OSError) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such file", "check the path"
    if isinstance(error, PermissionError):
        return "may not be read by this user", "change its permissions"
    return f"cannot be read: {error.strerror or error}", "check the path"


def parse(name: str, text: str) -> Document:
    """The tree of `text`. Problems are collected in the document; `root` is None when there is no table to read."""
    document = Document(name, text)
    if _forbidden_characters(document):
        return document
    builder = _Builder(document)
    try:
        builder.run()
    except _StopReadingError:
        return document
    except pyyaml.MarkedYAMLError as error:
        line, column, what, fix = explain(text, error)
        document.problem(Place(line, column), what, fix)
        return document
    except pyyaml.YAMLError as error:
        document.problem(Place(1, 1), f"cannot be read as YAML: {error}")
        return document
    root = builder.root
    if root is None or (isinstance(root, Scalar) and root.sense == "null"):
        document.problem(Place(1, 1), "the file is empty", "write key: value lines")
    elif not isinstance(root, Table):
        kind = "a list" if isinstance(root, Listing) else "text"
        document.problem(root, f"the file holds {kind}, not keys and values", "write key: value lines")
    else:
        document.root = root
    return document


def _forbidden_characters(document: Document) -> bool:
    """Tabs and control characters, found before YAML sees them: its own message would not name them."""
    found = 0
    for number, line in enumerate(document.text.split("\n"), 1):
        line = line.removesuffix("\r")
        match = None if line.isprintable() else re.search(_FORBIDDEN, line)
        if match is None:
            continue
        place = Place(number, match.start() + 1)
        if match.group() == "\t":
            document.problem(place, "a tab", "write spaces")
        else:
            document.problem(place, f"a control character, U+{ord(match.group()):04X}", "remove it")
        found += 1
        if found == 10:
            break
    return bool(found)


class _Builder:
    """From events to the tree, iteratively, with bounds on depth and size."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.root: Node | None = None
        self.stack: list[tuple[Node, Scalar | None]] = []
        self.nodes = 0
        self.documents = 0
        self.anchors: set[str] = set()

    def run(self) -> None:
        for event in pyyaml.parse(self.document.text, Loader=Loader):
            self.event(event)

    def event(self, event: pyyaml.Event) -> None:
        place = Place(event.start_mark.line + 1, event.start_mark.column + 1) if event.start_mark else Place(1, 1)
        if isinstance(event, pyyaml.ScalarEvent):
            plain = bool(event.implicit[0])
            scalar = Scalar(place, event.value, plain, _on_one_line(event, len(event.value) + (0 if plain else 2)))
            self.add(self.checked(scalar, event, place))
        elif isinstance(event, pyyaml.MappingStartEvent):
            self.open(self.checked(Table(place), event, place))
        elif isinstance(event, pyyaml.SequenceStartEvent):
            self.open(self.checked(Listing(place), event, place))
        elif isinstance(event, pyyaml.CollectionEndEvent):
            self.stack.pop()
        elif isinstance(event, pyyaml.AliasEvent):
            alias = Scalar(place, "", plain=False, single=False)
            alias.broken = True
            if event.anchor not in self.anchors:  # of the others, the anchor's problem says enough
                self.document.problem(place, f"an alias, *{event.anchor}", "write the value out: no aliases here")
            self.add(alias)
        elif isinstance(event, pyyaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.document.problem(place, "a second document in one file", "write one file each")
                raise _StopReadingError

    def checked(self, node: Node, event: pyyaml.NodeEvent, place: Place) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.document.problem(place, f"more than {MAX_NODES} values in one file", "split it")
            raise _StopReadingError
        if event.anchor:
            self.anchors.add(event.anchor)
            self.document.problem(place, f"an anchor, &{event.anchor}", "remove it: aliases are not read here")
        tag = getattr(event, "tag", None)
        if tag:
            self.document.problem(node, f"a tag, {tag}", "remove it: tags are not read here")
        return node

    def open(self, node: Node) -> None:
        self.add(node)
        if len(self.stack) == MAX_DEPTH:
            self.document.problem(node.place, f"nested deeper than {MAX_DEPTH} levels", "write it flatter")
            raise _StopReadingError
        self.stack.append((node, None))

    def add(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        parent, key = self.stack[-1]
        if isinstance(parent, Listing):
            parent.items.append(node)
        elif key is None:
            self.stack[-1] = (parent, self.key(node))
        else:
            self.stack[-1] = (parent, None)
            assert isinstance(parent, Table)
            self.entry(parent, key, node)

    def key(self, node: Node) -> Scalar:
        if not isinstance(node, Scalar):
            self.document.problem(node.place, "a key that is a table or a list", "write a word as the key")
            broken = Scalar(node.place, "", plain=False, single=False)
            broken.broken = True
            return broken
        if node.broken:
            return node
        if node.plain and node.text == "<<":
            self.document.problem(node, "a merge key, <<", "write the keys out: merging is not read here")
        elif node.sense == "odd boolean":
            self.document.problem(
                node, f"YAML 1.1 reads the key {node.text} as a boolean", f'write "{node.text}" in quotes'
            )
        elif node.sense == "null":
            self.document.problem(node, "a key is missing before the colon", "write key: value")
        return node

    def entry(self, table: Table, key: Scalar, value: Node) -> None:
        if key.broken:
            table.broken = True
            return
        first = table.entries.get(key.text)
        if first is not None:
            line = first[0].line
            self.document.problem(
                key.place, f"the key {key.text} stands here twice, first on line {line}", "remove one"
            )
            return
        table.entries[key.text] = (key, value)


def _on_one_line(event: pyyaml.ScalarEvent, width: int) -> bool:
    begin, end = event.start_mark, event.end_mark
    return begin is not None and end is not None and begin.line == end.line and end.column - begin.column == width
