"""The profiles that an experiment's load names, with those that they are like and what they replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from stormdrill.model.profile import Profile
from stormdrill.spec import catalogue
from stormdrill.spec.parameters import Filled
from stormdrill.spec.profile import Demanded, resolve_profile
from stormdrill.spec.scalars import instead
from stormdrill.spec.yaml import Document, Place


class Source(Struct, frozen=True):
    """A file as it was read; it is copied into the run directory."""

    path: Path
    text: str


class Profiles:
    """Reads each profile once. `read` opens a file under a role, and keeps what is wrong with it. `given`: parameters
    of the experiment and its system."""

    def __init__(
        self,
        roots: Sequence[Path],
        read: Callable[[str, Path], Document | None],
        given: Mapping[str, Filled] | None = None,
    ) -> None:
        self._roots = roots
        self._read = read
        self._given = given or {}
        self._read_from: dict[str, Document | None] = {}
        self._demanded: dict[str, Demanded] = {}
        self._like: dict[str, str] = {}
        self.found: dict[str, Profile | None] = {}
        """None: it can't be had, which has been said."""

    def want(self, name: str, document: Document, place: Place) -> Profile | None:
        """The profile of a name that stands in `document` at `place`; None after a problem was recorded."""
        if name in self.found:
            return self.found[name]
        self.found[name] = None
        path = catalogue.find(self._roots, f"loadgen/{name}.yaml")
        if path is None:
            known = catalogue.names(self._roots, "loadgen")
            document.problem(place, f"there is no loadgen/{name}.yaml", instead(name, known, "profiles"))
            return None
        own = self._read(f"loadgen/{name}", path)
        if own is None:
            return None
        self._read_from[name] = own
        demanded = resolve_profile(own, lambda other, at: self._liked(name, other, at), self._given)
        profile = demanded.profile
        if profile.user and not catalogue.find(self._roots, f"loadgen/{profile.user}.py"):
            known = catalogue.names(self._roots, "loadgen", ".py")
            at = own.place("user") if own.node("user") else own.place("like")
            own.problem(at, f"there is no loadgen/{profile.user}.py", instead(profile.user, known, "user files"))
        self._demanded[name] = demanded
        self.found[name] = None if own.problems or not profile.streams else profile
        return self.found[name]

    def _liked(self, name: str, other: str, place: Place) -> Profile | None:
        document = self._read_from[name]
        assert document is not None
        if other == name:
            document.problem(place, "a profile that is like itself", "name another one")
            return None
        profile = self.want(other, document, place)
        if further := self._like_of(other):
            document.problem(place, f"{other} is like {further} itself", f"write {further}")
            return None
        self._like[name] = other
        return profile

    def _like_of(self, name: str) -> str:
        document = self._read_from.get(name)
        node = document.node("like") if document else None
        return str(getattr(node, "text", ""))

    def sources(self, names: Iterable[str], texts: dict[str, Source]) -> dict[str, Source]:
        """The files behind these profiles, by the names of their copies in the run directory."""
        found: dict[str, Source] = {}
        wanted = list(dict.fromkeys(names))
        for index, name in enumerate(wanted):
            found["profile.yaml" if index == 0 else f"profile-{name}.yaml"] = texts[f"loadgen/{name}"]
            demanded = self._demanded[name]
            if demanded.recorded and demanded.recorded_in:
                found[demanded.recorded.trace.file] = Source(demanded.recorded_in, demanded.recorded.text)
        for name in wanted:
            if (other := self._like.get(name)) and other not in wanted:
                found[f"profile-{other}.yaml"] = texts[f"loadgen/{other}"]
        return found
