"""Streams of a profile that stand for each value of a list: so many copies, which share their share.

The list is a parameter of the profile, so that it can be read by itself. Where the experiment or its system has a
parameter of that name, that one counts: what must stay in a region stays in one that there is, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Mapping

from stormdrill.spec.parameters import Filled, Filler, declared
from stormdrill.spec.services import each_of
from stormdrill.spec.yaml import Document, Table


def expanded(document: Document, given: Mapping[str, Filled]) -> dict[str, int]:
    """Fills the parameters in, with a copy of each stream with `each` for every item. The name of such a copy → how
    many share its share. `given`: the parameters of whoever asks for the profile."""
    root = document.root
    written = root.get("streams") if root is not None else None
    if root is None or not isinstance(written, Table):
        return {}
    values = _values(document, given)
    copies = Table(written.place)
    copies.broken = written.broken
    counts: dict[str, int] = {}
    for name, (key, node) in written.entries.items():
        each = each_of(document, values, node)
        if each is None:
            lenient = isinstance(node, Table) and node.get("each") is not None  # which was said
            copies.entries[name] = (key, Filler(document, values, lenient=lenient).tree(node))
            continue
        for item in each[1]:
            copy = f"{name}-{item}"
            if copy in written.entries:
                document.problem(key.place, f"{name} makes a stream {copy}, and there is one", "rename one of them")
                copies.broken = True  # what the shares add up to says nothing then
            copies.entries[copy] = (key, Filler(document, {**values, each[0]: item}).tree(node))
            counts[copy] = len(each[1])
    filled = Table(root.place)
    filled.broken = root.broken
    filled.entries = {**root.entries, "streams": (root.entries["streams"][0], copies)}
    document.root = filled
    return counts


def _values(document: Document, given: Mapping[str, Filled]) -> dict[str, Filled]:
    own = {name: one.default for name, one in declared(document).items() if isinstance(one.default, tuple)}
    for name in own:
        theirs = given.get(name, own[name])
        if isinstance(theirs, tuple):
            own[name] = theirs
        else:
            what = f"{name} is a list here, and the parameter of that name in the experiment or its system is none"
            document.problem(document.key("parameters", name), what, "name one of the two otherwise")
    return dict(own)
