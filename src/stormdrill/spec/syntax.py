"""What a YAML parser's error means to the person who wrote the file."""

from __future__ import annotations

import re

from yaml import MarkedYAMLError

_HINTS = (
    ("mapping values are not allowed", "a colon where no key can be", "put the text before or after it into quotes"),
    ("could not find expected ':'", "a key without its colon", "write key: value"),
    ("did not find expected key", "the indentation does not fit the lines above", "align the keys of one table"),
    ("did not find expected '-' indicator", "the indentation does not fit the list above", "align the dashes"),
    (
        "did not find expected ',' or '}'",
        "a { } that is not closed or has an odd entry",
        "write {key: value, key: value}",
    ),
    ("did not find expected ',' or ']'", "a [ ] that is not closed or has an odd entry", "write [one, two]"),
    ("cannot start any token", "a character that cannot start a value", "put the value into quotes"),
    ("found unexpected end of stream", "a quote that is not closed", "close it"),
    ("did not find expected node content", "a value is missing or starts oddly", "put the value into quotes"),
    ("did not find expected alphabetic", "a * or & that starts a value", "put the value into quotes"),
    ("block sequence entries are not allowed", "a dash where no list can begin", "start the list on a line of its own"),
    ("found unknown escape character", "an unknown escape in a text with double quotes", "use single quotes"),
    ("block collections are not allowed", "a table that begins on its key's line", "start it on a line of its own"),
)


def explain(text: str, error: MarkedYAMLError) -> tuple[int, int, str, str]:
    """Line and column, 1-based, what is wrong there, and what to write."""
    opened = error.context_mark
    mark = error.problem_mark or opened
    said = str(error.problem or error.context or "cannot be read as YAML")
    if mark and opened and opened.line != mark.line and ("expected ','" in said or "end of stream" in said):
        mark = opened
    number, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.split("\n")
    line = lines[number - 1] if number <= len(lines) else ""
    before = line[:column]
    if "${" in before:
        return number, line.index("${") + 1, "${…} does not parse in YAML", "write $name, without braces"
    if re.search(r"[{\[,]", said) and re.search(r"[\w)]\{", before):
        return number, column, "an expression with { } inside { } or [ ]", "put the expression into quotes"
    for part, what, fix in _HINTS:
        if part in said:
            return number, column, what, fix
    return number, column, f"this is not YAML: {said}", "put the value into quotes, or look at the line above"
