"""Reads what an experiment says of its load: profiles with a rate, or a locustfile of the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.model.experiment import LoadUse
from stormdrill.model.profile import Profile, Stream
from stormdrill.model.units import parse_rate
from stormdrill.spec.demand import SumError, as_recorded, composed, parse_sum
from stormdrill.spec.files_load import OBSERVED, LoadFile
from stormdrill.spec.scalars import nearest, seconds, short
from stormdrill.spec.yaml import Document, Scalar, Table

_LISTEN = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_OPEN = ("rate",)
_CLOSED = ("users", "spawn", "deadline")


class Asked(Struct, frozen=True):
    """The load of one form of an experiment; all None where it has none, or where it could not be read."""

    use: LoadUse | None = None
    profile: Profile | None = None
    """All its parts, their times still as the profiles have them."""


def take_observed(document: Document, table: Table) -> bool:
    """Whether its `load:` is the word observed, which is taken out of the table then: it is no table itself."""
    node = table.get("load")
    if not isinstance(node, Scalar) or node.broken or node.sense == "null":
        return False
    if node.text == OBSERVED:
        del table.entries["load"]
        return True
    meant = OBSERVED if nearest(node.text, [OBSERVED]) else "{profile: steady, rate: 20/s}, or observed"
    document.problem(node, f"{short(node.text)} is no load", f"write {meant}")
    return False


class LoadReading:
    """Reads one `load:`. `profiles` and `locustfiles`: what the names in it stand for; None for what can't be had."""

    def __init__(
        self,
        document: Document,
        file: LoadFile,
        profiles: Mapping[str, Profile | None],
        locustfiles: Mapping[str, Path | None],
    ) -> None:
        self.document = document
        self.file = file
        self.profiles = profiles
        self.locustfiles = locustfiles

    def asked(self) -> Asked:
        file, document = self.file, self.document
        node = document.node("load")
        if not isinstance(node, Table):
            return Asked()
        self.check_machines()
        has = {key for key in node.entries if key in ("profile", "locustfile", *_OPEN, *_CLOSED)}
        if "locustfile" in has:
            return self.closed(has)
        for key in _CLOSED:
            if key in has:
                what = f"{key} belongs to a locustfile of your own, which isn't named"
                document.problem(document.key("load", key), what, "remove it, or add locustfile: FILE.py")
        if "profile" not in has:
            if not document.broken("load") and not has & set(_CLOSED):
                lacks = "profile" if "rate" in has else "profile, rate"
                fix = "profile: steady" + ("" if "rate" in has else "; rate: 20/s")
                document.problem(
                    node.place, f"load lacks {lacks}", f"add {fix}; or locustfile: FILE.py; or write load: observed"
                )
            return Asked()
        profile = self.sum()
        return Asked(*self.rated(profile, has)) if file.profile else Asked()

    def sum(self) -> Profile | None:
        """The sum of the named profiles; None where one of them can't be had."""
        node = self.document.node("load", "profile")
        if not isinstance(node, Scalar) or node.broken:
            return None
        try:
            terms = parse_sum(node.text)
        except SumError as error:
            self.document.problem(node.at(error.offset), error.what, error.fix)
            node.broken = True
            return None
        found = {term.name: profile for term in terms if (profile := self.profiles.get(term.name)) is not None}
        if len(found) < len({term.name for term in terms}):
            return None
        first = found[terms[0].name]
        for term in terms:
            if found[term.name].user != first.user:
                what = f"{term.name} is sent by {found[term.name].user}, and {first.name} by {first.user}"
                fix = "one generator runs one user file: let both name the same user"
                self.document.problem(node.at(term.offset), what, fix)
                return None
        return composed(terms, found)

    def rated(self, profile: Profile | None, has: set[str]) -> tuple[LoadUse | None, Profile | None]:
        file, document = self.file, self.document
        rate_per_s = parse_rate(file.rate) if file.rate else 0.0
        if file.rate and rate_per_s == 0:
            document.problem(document.place("load", "rate"), "a rate of 0", "write for instance 20/s")
        if "rate" not in has and profile is not None:
            replayed = as_recorded(profile)
            if replayed is None:
                node = document.place("load", "profile")
                document.problem(node, "no rate: only what replays a recording has one of its own", "add rate: 60/s")
                return None, profile
            profile, rate_per_s = replayed
        if not rate_per_s:
            return None, profile
        return self.use(" ".join((file.profile or "").split()), rate_per_s), profile

    def closed(self, has: set[str]) -> Asked:
        """Users of a locustfile that runs unchanged."""
        file, document = self.file, self.document
        for key in ("profile", *_OPEN):
            if key in has:
                what = f"{key} besides a locustfile of your own, whose users ask when they were answered"
                document.problem(document.key("load", key), what, "leave one of them out")
        missing = [key for key in ("users", "deadline") if key not in has]
        if missing:
            fix = "; ".join({"users": "users: 50", "deadline": "deadline: 1s"}[key] for key in missing)
            document.problem(document.place("load"), f"load lacks {', '.join(missing)}", f"add {fix}")
        for key, text in (("deadline", file.deadline), ("spawn", file.spawn)):
            if text and float(re.match(r"[\d.]+", text)[0]) == 0:  # type: ignore[index]  # its kind says so
                document.problem(document.place("load", key), f"{key} of 0", "write more")
        name = file.locustfile or ""
        if not name or not file.users or not file.deadline:
            return Asked()
        found = self.locustfiles.get(name)
        if found is None:  # said where it was looked for
            return Asked()
        use = replace(
            self.use("", 0.0),
            locustfile=name,
            users=file.users,
            spawn_per_s=parse_rate(file.spawn) if file.spawn else float(file.users),
            deadline_s=seconds(file.deadline),
        )
        stem = PurePosixPath(name).stem
        stream = Stream("any", 1.0, {}, use.deadline_s)
        return Asked(use, Profile(stem, stem, "poisson", (), (stream,), description="Users that wait for answers"))

    def use(self, profile: str, rate_per_s: float) -> LoadUse:
        file = self.file
        here = file.from_ is not None
        return LoadUse(profile, rate_per_s, file.workers or 0, tuple(file.hosts), file.listen or "", here=here)

    def check_machines(self) -> None:
        file, document = self.file, self.document
        seen = set()
        for index, host in enumerate(file.hosts):
            if host and host in seen:
                document.problem(document.place("load", "hosts", index), f"{host} stands twice", "remove one")
            seen.add(host)
        match = _LISTEN.fullmatch(file.listen) if file.listen else None
        if file.listen and (match is None or not 0 < int(match["port"]) < 65536):
            what = f"{short(file.listen)} is no address to listen at"
            document.problem(document.place("load", "listen"), what, "write host:port, for instance 192.0.2.1:5557")
        if file.hosts and not file.listen and document.node("load", "listen") is None:
            what = "workers of other machines, and no address at which they report"
            document.problem(document.key("load", "hosts"), what, "add listen: 192.0.2.1:5557")
        if file.listen and not file.hosts and document.node("load", "hosts") is None:
            what = "an address for workers of other machines, and none of them is named"
            document.problem(document.key("load", "listen"), what, "add hosts: [one], or remove it")
