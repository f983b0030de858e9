"""Whatever a person does to a good file: it is refused with its place, or it means what it says."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from stormdrill.errors import Refused
from stormdrill.faults.region_loss import Parameters
from stormdrill.spec.load import Loaded, read_experiment

REPOSITORY = Path(__file__).parents[1] / "unit" / "spec" / "repository"
FILES = {
    "experiment": "experiments/region-loss.yaml",
    "system": "experiments/systems/platform.yaml",
    "profile": "loadgen/peak.yaml",
    "policy": "policy.yaml",
}
FAULTS: dict[str, type[Struct]] = {"region-loss": Parameters}
KINDS = st.sampled_from(sorted(FILES))
MARKS = list("{}[]:,#$|>%@'\"-?!~é")
WORDS = ["${x}", "$$", "&a ", "*a", "<<: ", "on", "no", "null", "1e9", "0x1"]
BREAKS = ["\t", "\n", "\r", "\0", "\x85", "\u2028", "\ufeff", "  ", "---\n", "...\n", "- ", "? ", "!t "]
PIECES = st.one_of(st.sampled_from([*MARKS, *WORDS, *BREAKS]), st.text(max_size=3))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just("$region")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
Path_ = tuple[str | int, ...]


class Bench:
    """A repository of its own in which one file at a time is replaced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts = {kind: (REPOSITORY / name).read_text() for kind, name in FILES.items()}
        for folder in ("experiments/systems", "loadgen", "runbooks"):
            (root / folder).mkdir(parents=True)
        for name in ("loadgen/platform_user.py", "runbooks/region-loss.md"):
            (root / name).write_text((REPOSITORY / name).read_text())
        for kind in FILES:
            self.write(kind, self.texts[kind])
        self.good = meaning(self.read())

    def write(self, kind: str, text: str) -> None:
        (self.root / FILES[kind]).write_bytes(text.encode("utf-8", errors="surrogatepass"))

    def read(self) -> Loaded:
        return read_experiment(self.root / FILES["experiment"], faults=FAULTS, roots=(self.root,))

    def with_text(self, kind: str, text: str) -> Loaded | Refused:
        """What is made of the repository with one file replaced. Any other exception is the test's failure."""
        self.write(kind, text)
        try:
            return self.read()
        except Refused as refusal:
            refused = refusal
        finally:
            self.write(kind, self.texts[kind])
        assert refused.problems
        assert all(problem.what and problem.line >= 0 for problem in refused.problems)
        return refused

    def data(self, kind: str) -> Any:
        return yaml.safe_load(self.texts[kind])


def meaning(loaded: Loaded) -> Loaded:
    return replace(loaded, sources={}, runbook=None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("mutated"))


def laws(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def paths(value: Any, here: Path_ = ()) -> Iterator[Path_]:
    yield here
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield from paths(item, (*here, key))


def at(value: Any, path: Path_) -> Any:
    for step in path:
        value = value[step]
    return value


def tables(value: Any) -> list[Path_]:
    return [path for path in paths(value) if isinstance(at(value, path), dict)]


@laws(150)
@given(kind=KINDS, seed=st.integers(0, 2**32), pieces=st.lists(PIECES, min_size=1, max_size=3))
def test_inserted_characters_are_refused_or_read_and_never_crash(
    bench: Bench, kind: str, seed: int, pieces: list[str]
) -> None:
    text, chance = bench.texts[kind], random.Random(seed)
    for piece in pieces:
        position = chance.randrange(len(text) + 1)
        text = text[:position] + piece + text[position + chance.choice((0, 0, len(piece), 5)) :]
    bench.with_text(kind, text)


@laws(80)
@given(kind=KINDS, seed=st.integers(0, 2**32))
def test_lines_deleted_doubled_or_moved_are_refused_or_read_and_never_crash(bench: Bench, kind: str, seed: int) -> None:
    lines, chance = bench.texts[kind].splitlines(keepends=True), random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        change = chance.choice(("delete", "double", "swap", "indent"))
        if change == "delete" and len(lines) > 1:
            del lines[one]
        elif change == "double":
            lines.insert(other, lines[one])
        elif change == "swap":
            lines[one], lines[other] = lines[other], lines[one]
        else:
            lines[one] = " " * chance.randint(1, 3) + lines[one]
        lines = lines or ["\n"]
    bench.with_text(kind, "".join(lines))


@laws(120)
@given(kind=KINDS, data=st.data(), key=st.from_regex(r"[a-z_]{1,12}", fullmatch=True), value=VALUES)
def test_a_key_that_nobody_knows_is_never_accepted(
    bench: Bench, kind: str, data: st.DataObject, key: str, value: Any
) -> None:
    """Where names are free (services, labels, environment, parameters) a new key says something: not there."""
    tree = bench.data(kind)
    free = {"parameters", "labels", "env", "services", "dependencies", "metrics", "alerts", "capacity", "streams"}
    where = data.draw(st.sampled_from([path for path in tables(tree) if not path or path[-1] not in free]))
    table = at(tree, where)
    known = _known_keys(kind)
    if key in table or key in known:
        return
    table[key] = value
    assert isinstance(bench.with_text(kind, _json(tree)), Refused)


@laws(120)
@given(kind=KINDS, data=st.data(), value=VALUES)
def test_a_value_of_any_other_type_is_refused_or_means_what_it_says(
    bench: Bench, kind: str, data: st.DataObject, value: Any
) -> None:
    tree = bench.data(kind)
    path = data.draw(st.sampled_from([path for path in paths(tree) if path]))
    before = at(tree, path)
    at(tree, path[:-1])[path[-1]] = value
    read = bench.with_text(kind, _json(tree))
    if isinstance(read, Loaded) and kind != "policy" and meaning(read) == bench.good:
        assert _same(before, value) or _not_in_use(kind, path), (path, before, value)


@laws(100)
@given(kind=KINDS, data=st.data())
def test_what_is_left_out_is_refused_or_changes_the_meaning_or_was_the_default(
    bench: Bench, kind: str, data: st.DataObject
) -> None:
    tree = bench.data(kind)
    path = data.draw(st.sampled_from([path for path in paths(tree) if path]))
    gone = copy.deepcopy(at(tree, path))
    del at(tree, path[:-1])[path[-1]]
    read = bench.with_text(kind, _json(tree))
    if isinstance(read, Loaded) and meaning(read) == bench.good:
        assert gone in DEFAULTS or _not_in_use(kind, path), (path, gone)


DEFAULTS = ("poisson", "process", ["process"], 20, [], "50%", "10m", "500/s", "256MB", "100MB", "freeze", "none")


@laws(60)
@given(kind=KINDS, seed=st.integers(0, 2**32))
def test_comments_blank_lines_and_the_order_of_keys_change_nothing(bench: Bench, kind: str, seed: int) -> None:
    chance = random.Random(seed)
    lines = []
    for line in bench.texts[kind].splitlines():
        lines += [""] * chance.randint(0, 1) + [" " * chance.randint(0, 9) + "# on: no"] * chance.randint(0, 1) + [line]
    read = bench.with_text(kind, "\n".join(lines) + "\n")
    assert isinstance(read, Loaded), read
    assert meaning(read) == bench.good
    if kind in ("experiment", "policy"):
        shuffled = list(bench.data(kind).items())
        chance.shuffle(shuffled)
        read = bench.with_text(kind, _json(dict(shuffled)))
        assert isinstance(read, Loaded), read
        assert meaning(read) == bench.good


@laws(150)
@given(raw=st.binary(max_size=400))
def test_any_bytes_at_all_are_refused(bench: Bench, raw: bytes) -> None:
    path = bench.root / "experiments" / "any.yaml"
    path.write_bytes(raw)
    with pytest.raises(Refused):
        read_experiment(path, faults=FAULTS, roots=(bench.root,))


def _json(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=False)


def _same(before: Any, after: Any) -> bool:
    """Different spellings of one value: tier 1 and tier "1"."""
    return str(before) == str(after) or (isinstance(before, float | int) and before == after)


def _not_in_use(kind: str, path: Path_) -> bool:
    """What is checked but doesn't show in this meaning: the other form of the file, choices, prose about parameters."""
    if kind == "experiment":
        return path[0] == "fast"
    return "choices" in path or (kind == "system" and path[0] == "parameters" and path[-1] == "description")


@cache
def _known_keys(kind: str) -> frozenset[str]:
    """Every key that some table of this kind of file knows: drawn by chance, it may be right where it stands."""
    from stormdrill.spec.schema import schema

    made = schema(kind, FAULTS) if kind == "experiment" else schema(kind)
    names: set[str] = {"start", "for"}
    for definition in (made, *made["$defs"].values()):
        names |= set(definition.get("properties", {}))
    return frozenset(names)
