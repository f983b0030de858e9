"""Demand as people author it: a profile of loadgen/, and what an experiment says of its load."""

from typing import Annotated, Literal

from msgspec import Meta

from stormdrill.spec.kinds import Duration, FileModel, Identifier, Labels, Rate, Scalar, Share, Text, Word, kind


class LoadFile(FileModel, frozen=True, kw_only=True):
    """The demand: a profile of loadgen/ and the mean rate that it is scaled to."""

    profile: Annotated[Word, Meta(description="A file of loadgen/, without its ending.", examples=["steady"])]
    rate: Rate


class PieceFile(FileModel, frozen=True, kw_only=True):
    """From `at` on the rate moves in a straight line to the next piece's factor."""

    at: Duration
    factor: Annotated[float, Meta(ge=0, le=1000)]


class StreamFile(FileModel, frozen=True, kw_only=True):
    """One kind of request."""

    share: Annotated[Share, Meta(description="Of all arrivals; the shares add up to 100%.")]
    labels: Annotated[Labels, Meta(description="What objectives select requests by.")] = {}
    deadline: Annotated[Duration, Meta(description="An answer after this long is no success.")]
    parameters: Annotated[dict[Identifier, Scalar], Meta(description="Given to the user file with each arrival.")] = {}


class ProfileFile(FileModel, frozen=True, kw_only=True):
    """Demand as a function of time, and who asks for what."""

    description: Annotated[Text, Meta(description="What demand this is.")] = ""
    user: Annotated[str, kind("module", r"^[a-z][a-z0-9_]*$", "A file in loadgen/ without its ending.", "platform")]
    arrivals: Annotated[Literal["constant", "poisson"], Meta(description="Evenly spaced, or as strangers arrive.")] = (
        "poisson"
    )
    shape: Annotated[list[PieceFile], Meta(description="The demand's course; the rate stays as asked when empty.")] = []
    streams: Annotated[dict[Word, StreamFile], Meta(min_length=1, description="Who asks for what.")]
