"""Reads a demand profile of loadgen/."""

from __future__ import annotations

from pathlib import Path

from stormdrill.errors import Refused
from stormdrill.model.profile import Piece, Profile, Stream
from stormdrill.spec.files_load import ProfileFile
from stormdrill.spec.scalars import percent, seconds
from stormdrill.spec.walk import Walker
from stormdrill.spec.yaml import Document, ordered, parse, read_text


def read_profile(path: Path) -> Profile:
    """The profile that `path` describes. Raises Refused with every problem."""
    document = parse(str(path), read_text(path))
    profile = resolve_profile(document)
    if document.problems:
        raise Refused(ordered(document.problems))
    return profile


def resolve_profile(document: Document) -> Profile:
    """The profile, as far as it could be read: look at the document's problems before using it."""
    name = Path(document.name).stem
    if document.root is None:
        return Profile(name=name, user="", arrivals="constant", shape=(), streams=())
    file = Walker(document).table(document.root, ProfileFile, "the profile")
    _check_shape(document, file)
    _check_streams(document, file)
    return Profile(
        name=name,
        user=file.user,
        arrivals=file.arrivals,
        shape=tuple(Piece(at_s=seconds(piece.at), factor=piece.factor) for piece in file.shape),
        streams=tuple(
            Stream(
                name=name,
                share=percent(stream.share) / 100,
                labels={key: str(value) for key, value in stream.labels.items()},
                deadline_s=seconds(stream.deadline),
                parameters=dict(stream.parameters),
            )
            for name, stream in file.streams.items()
        ),
        description=" ".join(file.description.split()),
    )


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


def _check_streams(document: Document, file: ProfileFile) -> None:
    if document.broken("streams"):
        return
    total = sum(percent(stream.share) for stream in file.streams.values())
    if file.streams and abs(total - 100) > 0.01:
        document.problem(document.key("streams"), f"the shares add up to {total:g}%", "make them add up to 100%")
    for name, stream in file.streams.items():
        if seconds(stream.deadline) == 0:
            document.problem(document.place("streams", name, "deadline"), "a deadline of 0", "write for instance 1s")
        if percent(stream.share) == 0:
            document.problem(document.place("streams", name, "share"), "a stream without a share", "remove the stream")
