"""Functions, classes, methods and imports in `src` that nothing in `src`, `loadgen`, `bench` or `dev` uses.

Tests don't count as use: what only a test calls is dead. Fields of records aren't looked at: they are the formats.
A name that a framework calls stands in CALLED_BY with who does; one that waits for its caller doesn't.
"""

from __future__ import annotations

import sys

from vulture import Vulture

KINDS = {"function", "class", "method", "property", "import", "unreachable_code"}
CALLED_BY = {
    "_": "singledispatch",
    "__call__": "whoever calls what a protocol describes",
    "__getattr__": "the interpreter",
    "connection_made": "asyncio",
    "connection_lost": "asyncio",
    "data_received": "asyncio",
    "eof_received": "asyncio",
    "pause_writing": "asyncio",
    "resume_writing": "asyncio",
    "readinto": "io",
    "convert": "click",
    "parse_args": "click",
    "list_commands": "click",
    "get_command": "click",
    "format_commands": "click",
    "resolve_command": "click",
    "is_safe_callable": "Jinja2's sandbox",
    "is_safe_attribute": "Jinja2's sandbox",
    "after_connect": "geventhttpclient",
    "_is_socket_alive": "geventhttpclient",
    "_create_tcp_socket": "geventhttpclient",
    "return_socket": "geventhttpclient",
    "client_listener": "Locust's master, which starts it",
    "connect_to_master": "Locust's worker, which starts it",
    "stats_reporter": "Locust's worker, which starts it",
    "logs_reporter": "Locust's worker, which starts it",
    "reject": "users' locustfiles",
    "drive": "Locust, which calls what carries its task decorator",
    "fold": "anyone who reads a record: the properties compare it with the conductor's steps",
    **dict.fromkeys(
        ("BandwidthSqueeze", "CpuStarvation", "GpuPoolOutage", "LateDependency", "MemoryLeak"),
        "faults.builtin, by its word",
    ),
    **dict.fromkeys(
        ("NodeLoss", "NoisyNeighbour", "Partition", "QueueBacklog", "RegionLoss"), "faults.builtin, by its word"
    ),
    **dict.fromkeys(("BadRelease", "QuotaExhaustion", "Segmentation"), "faults.builtin, by its word"),
    "ignore_aliases": "PyYAML",
    "_load_from_exec_plugin": "the kubernetes client's loader",
    "refuse": "users' locustfiles",
    "read_policy": "tools that read one file alone",
    "read_system": "tools that read one file alone",
}
DECORATORS = ["@click.*", "@*.command", "@*.register", "@runbook.command", "@events.*", "@routes.*"]


def main() -> int:
    finder = Vulture(ignore_names=list(CALLED_BY), ignore_decorators=DECORATORS)
    finder.scavenge(["src", "loadgen", "bench", "dev"])
    unused = finder.get_unused_code(min_confidence=60)
    found = [item for item in unused if item.typ in KINDS and "src" in item.filename.parts]
    for item in found:
        print(f"{item.filename}:{item.first_lineno}: unused {item.typ} {item.name}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
