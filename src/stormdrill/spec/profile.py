"""Reads a demand profile of loadgen/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from stormdrill.errors import Problem, Refused
from stormdrill.model.profile import Piece, Profile, Retry, Stage, Stream
from stormdrill.spec import catalogue
from stormdrill.spec.files_load import COURSES, ProfileFile, ReplayFile
from stormdrill.spec.parameters import Filled
from stormdrill.spec.scalars import instead, percent, seconds
from stormdrill.spec.shapes import Course, Unshaped, shaped
from stormdrill.spec.streams import expanded
from stormdrill.spec.trace import Recorded, read_trace
from stormdrill.spec.walk import Walker
from stormdrill.spec.yaml import Document, Place, ordered, parse, read_text


class Demanded(Struct, frozen=True):
    """A profile as read, and the recording that it replays."""

    profile: Profile
    recorded: Recorded | None = None
    recorded_in: Path | None = None


Look = Callable[[str, Place], Profile | None]
"""The profile of a name that stands at a place; None where it can't be had, which has been said then."""


def read_profile(path: Path) -> Profile:
    """The profile that `path` describes; others that it is like are looked for beside it, then in the catalogue.

    Raises Refused with every problem.
    """
    return read_demanded(path).profile


def read_demanded(path: Path) -> Demanded:
    """The same with its recording. Raises Refused with every problem."""
    document = parse(str(path), read_text(path))
    others: list[Problem] = []
    found = resolve_profile(document, _beside(path, document, others))
    if document.problems or others:
        raise Refused([*ordered(document.problems), *others])
    return found


def _beside(path: Path, document: Document, problems: list[Problem]) -> Look:
    def look(name: str, place: Place) -> Profile | None:
        roots = (path.absolute().parent.parent, catalogue.root())
        other = catalogue.find([path.absolute().parent], f"{name}.yaml") or catalogue.find(
            roots, f"loadgen/{name}.yaml"
        )
        if other is None:
            beside = [found.stem for found in path.absolute().parent.glob("*.yaml")]
            known = {*beside, *catalogue.names(roots, "loadgen")} - {path.stem}
            document.problem(place, f"there is no loadgen/{name}.yaml", instead(name, known, "profiles"))
            return None
        told = parse(str(other), read_text(other))
        found = resolve_profile(told, _only_once(document, name, place)).profile
        problems.extend(ordered(told.problems))
        return None if told.problems or document.problems else found

    return look


def _only_once(document: Document, name: str, place: Place) -> Look:
    def look(further: str, _: Place) -> None:
        document.problem(place, f"{name} is like {further} itself", f"write {further}")

    return look


def resolve_profile(document: Document, look: Look, given: Mapping[str, Filled] | None = None) -> Demanded:
    """The profile, as far as it could be read: look at the document's problems before using it. `given`: parameters of
    the experiment and its system, which count before its own of the same name."""
    name = Path(document.name).stem
    nothing = Profile(name=name, user="", arrivals="constant", shape=(), streams=())
    if document.root is None:
        return Demanded(nothing)
    counts = expanded(document, given or {})
    file = Walker(document).table(document.root, ProfileFile, "the profile")
    like = look(file.like, document.place("like")) if file.like else None
    _check_whole(document, file)
    _check_shape(document, file)
    _check_streams(document, file, counts)
    shape, stages = _course(document, file)
    recorded = _recording(document, name, file.replay) if file.replay else None
    replayed = "constant" if recorded else None  # as recorded, not as strangers would have come
    return Demanded(
        Profile(
            name=name,
            user=file.user or (like.user if like else ""),
            arrivals=file.arrivals or replayed or (like.arrivals if like else "poisson"),  # type: ignore[arg-type]
            shape=shape,
            streams=_streams(file, counts) or (like.streams if like else ()),
            description=" ".join(file.description.split()),
            stages=stages,
            retry=_retry(document, file),
            trace=recorded.trace if recorded else None,
            since=None if file.from_ == "start" else file.from_,
        ),
        recorded,
        _place_of(document, file.replay) if file.replay else None,
    )


def _streams(file: ProfileFile, counts: Mapping[str, int]) -> tuple[Stream, ...]:
    return tuple(
        Stream(
            name=name,
            share=percent(stream.share) / 100 / counts.get(name, 1),
            labels={key: str(value) for key, value in stream.labels.items()},
            deadline_s=seconds(stream.deadline),
            parameters=dict(stream.parameters),
        )
        for name, stream in file.streams.items()
    )


def _retry(document: Document, file: ProfileFile) -> Retry | None:
    if file.retry is None or document.problems:
        return None
    asked = file.retry
    return Retry(
        attempts=asked.attempts,
        wait_s=seconds(asked.wait),
        jitter=percent(asked.jitter) / 100,
        obey=asked.obey,
        share=percent(asked.share) / 100,
    )


def _course(document: Document, file: ProfileFile) -> tuple[tuple[Piece, ...], tuple[Stage, ...]]:
    """Pieces and stages. Where times count from a phase, the first piece says what holds before it."""
    key = next((key for key in COURSES if getattr(file, key)), None)
    if document.problems:
        return (), ()
    course: Course = getattr(file, key) if key else ()
    try:
        found = shaped(course)
    except Unshaped as wrong:
        path = [int(step) if step.isdigit() else step for step in wrong.key.split(".") if step]
        document.problem(document.place(str(key), *path), wrong.what, wrong.fix)
        return (), ()
    if file.from_ == "start" or not found.pieces:
        return found.pieces, found.stages
    return (Piece(0.0, found.before), *found.pieces), found.stages


def _recording(document: Document, name: str, replay: ReplayFile) -> Recorded | None:
    if document.broken("replay") or not replay.file:
        return None
    try:
        return read_trace(_place_of(document, replay), f"trace-{name}.times", replay.format, replay.time, replay.rate)
    except Refused as refused:
        for problem in refused.problems:
            if problem.line or problem in document.problems:
                document.problems.append(problem)  # a line of the recording itself
            else:
                document.problem(document.place("replay", "file"), f"{problem.where}: {problem.what}", problem.fix)
    return None


def _place_of(document: Document, replay: ReplayFile) -> Path:
    return Path(document.name).parent / replay.file


def _check_whole(document: Document, file: ProfileFile) -> None:
    """A profile is complete by itself, or by the one that it is like; and its demand moves in one way."""
    root = document.root
    assert root is not None
    missing = [key for key in ("user", "streams") if root.get(key) is None]
    if missing and file.like is None and root.get("like") is None:
        fix = "; ".join({"user": "user: platform_user", "streams": "streams: …"}[key] for key in missing)
        document.problem(root.place, f"the profile lacks {', '.join(missing)}", f"add {fix}, or like: steady")
    courses = [key for key in COURSES if root.get(key) is not None]
    for key in courses[1:]:
        what = f"{key} besides {courses[0]}: a profile's rate moves in one way"
        document.problem(document.key(key), what, "write two profiles, and add them up in the experiment: one + two")
    if file.from_ != "start" and not courses and root.get("replay") is None and not document.broken("from"):
        what = f"from: {file.from_}, and nothing in this profile that has a time"
        document.problem(document.key("from"), what, "remove it, or say what happens then: spike, shape, replay, …")
    for key in ("steps", "episodes"):
        if key in courses and root.get("replay") is not None:
            what = f"{key} of a recording: its stretches aren't level"
            document.problem(document.key(key), what, "leave one of them out")


def _check_shape(document: Document, file: ProfileFile) -> None:
    before = 0.0
    for index, piece in enumerate(file.shape):
        at = seconds(piece.at)
        place = document.place("shape", index, "at")
        if index == 0 and at > 0:
            document.problem(place, "the shape does not begin at 0s", "write at: 0s")
        if at < before:
            document.problem(place, f"{piece.at} is before the piece above", "write the pieces in the order of time")
        before = at
    if file.shape and all(piece.factor == 0 for piece in file.shape):
        document.problem(document.place("shape"), "a shape without any arrivals", "write a factor above 0")


def _check_streams(document: Document, file: ProfileFile, counts: Mapping[str, int]) -> None:
    if document.broken("streams"):
        return
    total = sum(percent(stream.share) / counts.get(name, 1) for name, stream in file.streams.items())
    if file.streams and abs(total - 100) > 0.01:
        document.problem(document.key("streams"), f"the shares add up to {total:g}%", "make them add up to 100%")
    for name, stream in file.streams.items():
        if seconds(stream.deadline) == 0:
            document.problem(document.place("streams", name, "deadline"), "a deadline of 0", "write for instance 1s")
        if percent(stream.share) == 0:
            document.problem(document.place("streams", name, "share"), "a stream without a share", "remove the stream")
