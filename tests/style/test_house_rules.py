"""The habits of the house that no linter knows, as laws."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "stormdrill"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "starter" not in path.relative_to(SOURCE).parts)
CODE = MODULES + sorted(
    path for folder in ("tests", "dev", "bench", "loadgen") for path in (ROOT / folder).rglob("*.py")
)
LONGEST_MODULE = 450
"""About 400 lines is the habit; beyond this a room must be divided."""
LONGEST_BODY = 52
"""About 50 lines."""
BAGS = {"utils", "util", "helpers", "helper", "common", "misc"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_no_module_is_longer_than_a_person_reads_at_once() -> None:
    long = {name_of(path): count for path in MODULES if (count := len(path.read_text().splitlines())) > LONGEST_MODULE}
    assert not long


def test_no_function_body_is_longer_than_about_fifty_lines() -> None:
    long = {
        f"{name_of(path)}:{function.lineno} {function.name}": body_length(function)
        for path in MODULES
        for function in functions(path)
        if body_length(function) > LONGEST_BODY
    }
    assert not long


def test_every_package_says_what_lives_in_it() -> None:
    missing = [
        name_of(path)
        for path in MODULES
        if path.name == "__init__.py" and not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
    ]
    assert not missing


def test_every_module_says_what_it_is() -> None:
    missing = [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not missing


def test_no_module_is_a_bag_of_odds_and_ends() -> None:
    assert not [name_of(path) for path in CODE if path.stem in BAGS or BAGS & set(path.relative_to(ROOT).parts)]


def test_nothing_is_handed_to_a_shell() -> None:
    found = []
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                found.append(f"{name_of(path)}:{node.value.lineno}")
            if isinstance(node, ast.Attribute) and node.attr in ("system", "popen") and _is_os(node.value):
                found.append(f"{name_of(path)}:{node.lineno}")
    assert not found


def _is_os(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"


def test_nothing_is_left_for_later_in_the_code() -> None:
    later = re.compile(r"#\s*(TO" + r"DO|FIX" + r"ME|XXX|HACK)\b", re.IGNORECASE)
    found = [
        f"{name_of(path)}:{number}"
        for path in CODE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if later.search(line)
    ]
    assert not found


def test_no_exception_is_swallowed_whole() -> None:
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id.endswith("Exception"))
            if broad and all(isinstance(line, ast.Pass) for line in node.body):
                found.append(f"{name_of(path)}:{node.lineno}")
    assert not found


@pytest.mark.parametrize("path", [ROOT / "tests"], ids=["tests"])
def test_test_modules_have_names_of_their_own(path: Path) -> None:
    """Without `__init__.py` two test modules of one name hide each other."""
    names = [module.name for module in path.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
    assert not [package for package in path.rglob("__init__.py") if list(package.parent.glob("test_*.py"))]
