"""What a value in a file may look like: the kinds that all files share.

No postponed annotations here and in `files*`: the reader looks at the types themselves.
"""

from typing import Annotated

from msgspec import Meta, Struct

NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
IDENTIFIER = r"[a-zA-Z_][a-zA-Z0-9_]*"


def kind(name: str, pattern: str, description: str, *examples: str) -> Meta:
    return Meta(pattern=pattern, description=description, examples=list(examples), extra={"kind": name})


Text = Annotated[str, Meta(min_length=1, extra={"kind": "text"})]
Word = Annotated[str, kind("word", f"^{NAME}$", "A name: lower-case letters, digits and single dashes.", "region-loss")]
Identifier = Annotated[str, kind("identifier", f"^{IDENTIFIER}$", "A name: letters, digits, underscores.", "region")]
Duration = Annotated[
    str,
    kind(
        "duration",
        r"^\d+(\.\d+)?(ms|s|m|h|d)$",
        "A duration: a number and one of ms, s, m, h, d.",
        "10s",
        "250ms",
        "3m",
    ),
]
Rate = Annotated[
    str, kind("rate", r"^\d+(\.\d+)?/(s|m|h)$", "Arrivals: a number, a slash and one of s, m, h.", "60/s", "90/m")
]
Share = Annotated[str, kind("share", r"^\d+(\.\d+)?%$", "A share of the whole, in percent.", "50%")]
Size = Annotated[str, kind("size", r"^\d+(\.\d+)?(KB|MB|GB)$", "A size: a number and one of KB, MB, GB.", "256MB")]
Speed = Annotated[
    str,
    kind(
        "speed", r"^\d+(\.\d+)?(B|KB|MB|GB)/s$", "Bytes a second: a number and one of B/s, KB/s, MB/s, GB/s.", "4MB/s"
    ),
]
Expression = Annotated[
    str,
    Meta(
        min_length=1,
        description="metric{label=value} <op> value[unit] [within|for|after time] or alert(NAME) [within time].",
        examples=["success{tier=1} > 98%", "p95{tier=1} < 1.5 x baseline", "alert(RegionDown) within 10s"],
        extra={"kind": "expression"},
    ),
]

LabelValue = Annotated[str | int, Meta(description="A label's value.", extra={"kind": "label"})]
Argument = Annotated[str | int | float, Meta(description="One argument.", extra={"kind": "argument"})]
Labels = dict[Identifier, LabelValue]
Windows = Annotated[
    str,
    Meta(
        pattern=r"^\s*(whole run|warmup|baseline|fault|recovery|failback)( after \d+(\.\d+)?(ms|s|m|h|d))?"
        r"(\s*,\s*(whole run|warmup|baseline|fault|recovery|failback)( after \d+(\.\d+)?(ms|s|m|h|d))?)*\s*$",
        description="Where the objectives are judged: phases, each from its start or from a time into it.",
        examples=["baseline, recovery", "fault after 10s", "whole run"],
        extra={"kind": "windows"},
    ),
]
Scalar = Annotated[
    str | int | float | bool | None, Meta(description="Text, a number, true, false or null.", extra={"kind": "scalar"})
]


class FileModel(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a file: every key is declared, anything else is refused."""


class ParameterFile(FileModel, frozen=True, kw_only=True):
    """A parameter with the values that it may take."""

    default: Scalar
    choices: Annotated[list[Scalar], Meta(min_length=1)] = []
    description: str = ""


class SecretFile(FileModel, frozen=True, kw_only=True):
    """A secret parameter: where its value comes from (env or file), never the value."""

    secret: bool
    env: Annotated[Identifier, Meta(description="A variable of stormdrill's own environment.")] | None = None
    file: Annotated[Text, Meta(description="A file with one line; relative to where stormdrill is started.")] | None = (
        None
    )
    description: str = ""


ParameterValue = Annotated[
    str | int | float | bool | list[Scalar] | ParameterFile | None,
    Meta(
        description="The default, which also gives the type; {default, choices}; or {secret: true, env: NAME}.",
        extra={"kind": "parameter"},
    ),
]
Parameters = Annotated[
    dict[Identifier, ParameterValue],
    Meta(description="Names for $name below, with their defaults; --set KEY=VALUE sets them."),
]
Request = Annotated[
    str,
    kind("request", r"^(GET|HEAD) /[^\s]*$", "A request whose answer shows that it is ready.", "GET /healthz"),
]
Devices = Annotated[
    list[Word],
    Meta(description="Simulated devices: files devices/NAME in its STORMDRILL_DATA, which faults take away."),
]
Each = Annotated[
    Identifier,
    Meta(description="A list parameter: one such for every item; its name without the s stands for the item."),
]
