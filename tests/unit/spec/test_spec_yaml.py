"""What the YAML reader lets through, and what it stops before anybody looks at meaning."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml as pyyaml

from stormdrill.errors import Refused
from stormdrill.spec import yaml
from stormdrill.spec.yaml import MAX_BYTES, Listing, Place, Scalar, Table, parse, read_text


def said(text: str) -> list[str]:
    return [str(problem) for problem in parse("f.yaml", text).problems]


def test_a_file_of_ten_megabytes_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = tmp_path / "big.yaml"
    big.write_bytes(b"title: x\n" * (10 * 1024 * 1024 // 9))
    monkeypatch.setattr(pyyaml, "parse", None)
    with pytest.raises(Refused, match="more than 256 KB"):
        read_text(big)


def test_the_largest_file_that_is_read_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text("#" * MAX_BYTES)
    assert len(read_text(file)) == MAX_BYTES


@pytest.mark.parametrize("name", ["missing.yaml", "missing/deeper.yaml", "nul\0byte.yaml", "x" * 300 + ".yaml"])
def test_a_file_that_is_not_there_is_a_problem_not_a_traceback(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        read_text(tmp_path / name)


def test_only_ordinary_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refused, match="not an ordinary file"):
        read_text(tmp_path / "pipe")
    with pytest.raises(Refused, match="a directory"):
        read_text(tmp_path)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text("a: 1")
    file.chmod(0)
    if os.access(file, os.R_OK):
        return  # a user who may read everything
    with pytest.raises(Refused, match="may not be read"):
        read_text(file)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    file = tmp_path / "windows.yaml"
    file.write_bytes("\ufefftitle: x\r\nowner: y\r\n".encode())
    document = parse("f.yaml", read_text(file))
    assert document.problems == []
    assert document.place("title") == Place(1, 8)
    assert document.place("owner") == Place(2, 8)


@pytest.mark.parametrize("loader", [pyyaml.SafeLoader, getattr(pyyaml, "CSafeLoader", pyyaml.SafeLoader)])
def test_both_parsers_give_the_same_tree_and_places(monkeypatch: pytest.MonkeyPatch, loader: type) -> None:
    monkeypatch.setattr(yaml, "Loader", loader)
    document = parse("f.yaml", "a: 1\nb:\n  - x\n  - 'y z'\nc: {d: \"e\", f: [g]}\n")
    assert document.problems == []
    assert document.place("b", 1) == Place(4, 5)
    assert document.place("c", "f", 0) == Place(5, 17)
    quoted = document.node("b", 1)
    assert isinstance(quoted, Scalar)
    assert not quoted.plain
    assert isinstance(document.node("c"), Table)
    assert isinstance(document.node("b"), Listing)


@pytest.mark.parametrize("loader", [pyyaml.SafeLoader, getattr(pyyaml, "CSafeLoader", pyyaml.SafeLoader)])
def test_both_parsers_refuse_what_is_not_read_here(monkeypatch: pytest.MonkeyPatch, loader: type) -> None:
    monkeypatch.setattr(yaml, "Loader", loader)
    for text in (
        "a: &x 1\nb: *x",
        "a: !!str 1",
        "<<: {a: 1}",
        "a: 1\na: 2",
        "a: 1\n---\nb: 2",
        "{a: ${b}}",
        "a: [" * 30,
    ):
        assert said(text), text


def test_an_anchor_bomb_costs_nothing() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 60))
    problems = said("l0: &l0 x\n" + levels)
    assert problems[0] == "f.yaml:1:5: an anchor, &l0; remove it: aliases are not read here"
    assert len(problems) <= yaml.MAX_PROBLEMS


def test_a_file_of_very_many_values_is_refused() -> None:
    assert "more than 5000 values" in said("a: [" + "1," * 6000 + "]")[0]


@pytest.mark.parametrize(
    ("text", "sense"),
    [
        ("x", "text"),
        ("10s", "text"),
        ("2026-12-20", "text"),
        ("7", "int"),
        ("-7", "int"),
        ("1.5", "float"),
        ("1e3", "float"),
        (".5", "float"),
        ("true", "bool"),
        ("~", "null"),
        ("Null", "null"),
        ("on", "odd boolean"),
        ("No", "odd boolean"),
        ("y", "odd boolean"),
        ("TRUE", "odd boolean"),
        ("010", "odd number"),
        ("0x1f", "odd number"),
        ("1_000", "odd number"),
        ("12:30", "odd number"),
        (".inf", "odd number"),
    ],
)
def test_a_plain_value_is_taken_for_what_people_mean(text: str, sense: str) -> None:
    document = parse("f.yaml", f"a: {text}\n")
    node = document.node("a")
    assert isinstance(node, Scalar)
    assert node.sense == sense


def test_a_quoted_value_is_always_text() -> None:
    node = parse("f.yaml", "a: 'on'\n").node("a")
    assert isinstance(node, Scalar)
    assert node.sense == "text"


def test_a_place_inside_a_quoted_value_counts_the_quote() -> None:
    document = parse("f.yaml", "a: 'bcd'\nb: bcd\nc: |\n  bcd\n")
    nodes = [node for node in map(document.node, "abc") if isinstance(node, Scalar)]
    assert [node.at(2) for node in nodes] == [Place(1, 7), Place(2, 6), Place(3, 4)]


def test_the_place_of_what_is_missing_is_the_nearest_thing_around_it() -> None:
    document = parse("f.yaml", "a: {b: 1}\n")
    assert document.place("a", "c", "d") == Place(1, 4)
    assert document.place("x") == Place(1, 1)


def test_no_more_problems_are_said_than_a_person_reads() -> None:
    assert len(said("\n".join(f"a{n}: !t x" for n in range(500)))) == yaml.MAX_PROBLEMS
