"""What a single value may be: its kinds, what to say when it is another, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from stormdrill.model.units import parse_duration, parse_rate
from stormdrill.spec.yaml import Document, Scalar

LONGEST_S = 30 * 86400.0
HIGHEST_PER_S = 1_000_000.0


class Kind(NamedTuple):
    meant: str
    """With its article, for messages."""
    example: str


KINDS = {
    "text": Kind("text", ""),
    "word": Kind("a name of lower-case letters, digits and dashes", "region-loss"),
    "module": Kind("a name of lower-case letters, digits and underscores", "platform"),
    "identifier": Kind("a name of letters, digits and underscores", "region"),
    "duration": Kind("a duration", "10s"),
    "rate": Kind("a rate", "60/s"),
    "share": Kind("a share in percent", "50%"),
    "size": Kind("a size", "256MB"),
    "speed": Kind("bytes a second", "4MB/s"),
    "expression": Kind("an expression", "success > 98%"),
    "label": Kind("a label's value", "eu"),
    "argument": Kind("an argument", "--port"),
    "windows": Kind("a phase", "fault after 10s"),
    "request": Kind("a request", "GET /healthz"),
    "path": Kind("a path that begins with a slash", "/metrics"),
    "sample": Kind("a sample's name", "queue_depth"),
    "url": Kind("an address of a server", "http://127.0.0.1:9090"),
    "header": Kind("a header's name", "Authorization"),
    "sample path": Kind("a path without its first slash", "alerts"),
    "docker label": Kind("a container label's name", "com.example.drill"),
    "cluster name": Kind("a name in the cluster: lower-case letters, digits and dashes", "shop"),
    "cluster label": Kind("a label's name in the cluster", "topology.kubernetes.io/region"),
    "daemonset": Kind("the namespace and name of a DaemonSet", "kube-system/nvidia-device-plugin"),
    "window": Kind("days, hours and a time zone", "mon-fri 09:00-17:00 Europe/Berlin"),
    "dates": Kind("two days", "2026-12-20/2027-01-03"),
}

_UNITS = {
    "ms": ("ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
}
_UNIT = {word: unit for unit, words in _UNITS.items() for word in words}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if one is near."""
    from difflib import get_close_matches

    names = list(known)
    folded = {name.lower().replace("_", "-"): name for name in names}
    same = folded.get(word.lower().replace("_", "-").strip())
    if same:
        return same
    found = get_close_matches(word.lower()[:100], list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def instead(word: str, known: Iterable[str], kind: str = "these") -> str:
    """What to write for an unknown word: the nearest one, else the whole list."""
    names = sorted(known)
    near = nearest(word, names)
    if near:
        return f"write {near}"
    if not names:
        return f"there are no {kind} here" if kind != "these" else "remove it"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"known: {shown}"


def short(text: str) -> str:
    """A value as messages quote it: on one line, not too long."""
    folded = " ".join(text.split())
    return folded if len(folded) <= 60 else folded[:57] + "…"


def plain_text(document: Document, node: Scalar, meant: str) -> str | None:
    """The scalar where text is meant; None after a problem was recorded."""
    text, sense = node.text, node.sense
    if sense == "text":
        if text.strip():
            return text
        document.problem(node, f"empty text where {meant} is meant", "write it, or remove the key")
    elif sense == "null":
        document.problem(node, f"a value is missing: {meant} is meant", "write it, or remove the key")
    elif sense == "odd boolean":
        truth = "true" if text.lower() in ("y", "yes", "true", "on") else "false"
        document.problem(node, f"YAML 1.1 reads {text} as {truth} where {meant} is meant", f'write "{text}" in quotes')
    elif sense == "bool":
        document.problem(node, f"{text} is a boolean where {meant} is meant", f'write "{text}" in quotes')
    else:
        document.problem(node, f"{text} is a number where {meant} is meant", f'write "{text}" in quotes')
    return None


def word_of(document: Document, node: Scalar, kind: str, pattern: str, *, bounded: bool = False) -> str | None:
    """The scalar as a value of `kind`, which `pattern` describes; None after a problem was recorded. `bounded`: the
    caller knows how much is too much."""
    meant, example = KINDS[kind]
    if kind in QUANTITIES and node.sense in ("int", "float", "odd number"):
        document.problem(node, f"{node.text} is not {meant}: it has no unit", f"write {_quantity(kind, node.text)}")
        return None
    text = plain_text(document, node, meant)
    if text is None:
        return None
    if not re.search(pattern, text) or text.endswith("\n"):
        fix = suggestion(kind, text)
        quoted = short(text)
        if kind == "url" and re.search(r"[@?#]", text):  # a password or a token, most likely
            quoted = "an address with a user, a password or a query"
        document.problem(node, f"{quoted} is not {meant}", f"write {fix}" if fix else f"write for instance {example}")
        return None
    said = None if bounded else _beyond(kind, text)
    if said:
        document.problem(node, *said)
        return None
    return text


QUANTITIES = ("duration", "rate", "share", "size", "speed")


def _quantity(kind: str, number: str) -> str:
    if kind == "share":
        try:
            value = float(number)
        except ValueError:
            return "50%"
        return f"{value * 100:g}%" if 0 < value <= 1 and "." in number else f"{number}%"
    return number + {"duration": "s", "rate": "/s", "size": "MB", "speed": "MB/s"}[kind]


def suggestion(kind: str, text: str) -> str | None:
    """What was probably meant by a value that is not of `kind`."""
    folded = " ".join(text.strip().lower().split())
    number = re.match(r"\d+(\.\d+)?", folded)
    rest = folded[number.end() :].strip() if number else ""
    if kind == "duration" and number:
        return f"{number.group()}{_UNIT[rest]}" if rest in _UNIT else _in_one_unit(folded)
    if kind == "rate" and number:
        return f"{number.group()}/{_rate_unit(rest)}"
    if kind == "share" and number and rest in ("", "percent", "per cent", "%"):
        return f"{number.group()}%"
    if kind == "size" and number and rest[:1] in ("k", "m", "g"):
        return f"{number.group()}{rest[0].upper()}B"
    if kind == "speed" and number and rest[:1] in ("b", "k", "m", "g"):
        return f"{number.group()}{rest[0].upper()}{'' if rest[0] == 'b' else 'B'}/s"
    if kind in ("word", "identifier", "module"):
        joint = "-" if kind == "word" else "_"
        folded = re.sub(r"\.(ya?ml|md|py)$", "", folded.rpartition("/")[2])
        made = re.sub(r"[^a-z0-9]+", joint, folded).strip(joint)
        return made if re.fullmatch(r"[a-z][a-z0-9_-]*", made) else None
    if kind == "url":
        found = re.fullmatch(r"(?:(https?)://)?(?:[^\s/@]*@)?([\w.-]+(?::\d{1,5})?(?:/[^\s?#]*)?)(?:[?#].*)?", text)
        return f"{found[1] or 'http'}://{found[2]}" if found else None
    if kind in ("path", "sample path") and not re.search(r"\s", folded):
        return f"/{text}" if kind == "path" else text.lstrip("/") or None
    return None


def _in_one_unit(folded: str) -> str | None:
    """90s for 1m30s; None for what is no sum of durations."""
    pieces = re.findall(r"(\d+)\s*([a-z]+)\s*", folded)
    if "".join(re.sub(r"\s", "", folded).split()) != "".join(map("".join, pieces)) or len(pieces) < 2:
        return None
    units = [_UNIT.get(unit) for _, unit in pieces]
    if None in units:
        return None
    total = sum(parse_duration(f"{number}{unit}") for (number, _), unit in zip(pieces, units, strict=True))
    return f"{total:g}s" if total < 1e6 else None


def _rate_unit(rest: str) -> str:
    unit = rest.removeprefix("/").removeprefix("per").strip()
    return {"min": "m", "minute": "m", "m": "m", "rpm": "m", "h": "h", "hour": "h"}.get(unit, "s")


def _beyond(kind: str, text: str) -> tuple[str, str] | None:
    """What is wrong with a well-formed value that nobody can mean."""
    if kind == "duration" and parse_duration(text) > LONGEST_S:
        return f"{short(text)} is longer than 30 days", "write a shorter one"
    if kind == "rate" and parse_rate(text) > HIGHEST_PER_S:
        return f"{short(text)} is more than {HIGHEST_PER_S:,.0f}/s", "write a lower one"
    if kind == "share" and float(text[:-1]) > 100:
        return f"{short(text)} is more than the whole", "write at most 100%"
    if kind in ("size", "speed") and len(text) > 12:
        return f"{short(text)} is too large", "write a smaller one"
    return None


def seconds(text: str | None) -> float:
    """Seconds in an authored duration; nan, which is neither more nor less than anything, for a refused one."""
    try:
        return parse_duration(text) if text else float("nan")
    except ValueError:
        return float("nan")


def percent(text: str) -> float:
    """0 to 100 in an authored share; nan for a refused one."""
    return float(text[:-1]) if text else float("nan")


def megabytes(text: str) -> float:
    """MB in an authored size; nan for a refused one."""
    return float(text[:-2]) * {"KB": 1 / 1024, "MB": 1.0, "GB": 1024.0}[text[-2:]] if text else float("nan")


def bytes_per_s(text: str) -> float:
    """Bytes a second in an authored speed; nan for a refused one."""
    if not text:
        return float("nan")
    number = text[:-2].rstrip("KMGB")
    return float(number) * {"B": 1.0, "KB": 1024.0, "MB": 1024.0**2, "GB": 1024.0**3}[text[len(number) : -2]]


def quantity(kind: str, text: str) -> float:
    """The number behind an authored quantity, in the unit in which it is counted: s, per second, %, MB, bytes/s."""
    readers: dict[str, Callable[[str], float]] = {
        "duration": parse_duration,
        "rate": parse_rate,
        "share": percent,
        "size": megabytes,
        "speed": bytes_per_s,
    }
    return readers[kind](text)
