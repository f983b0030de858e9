"""Demand as people author it: a profile of loadgen/, and what an experiment says of its load."""

from typing import Annotated, Literal

from msgspec import Meta, field

from stormdrill.spec.kinds import Duration, Each, FileModel, Identifier, Labels, Rate, Scalar, Share, Text, Word, kind

DEMAND = (
    r"^\s*(\d+(\.\d+)?\s*[x×*]\s*)?[a-z][a-z0-9]*(-[a-z0-9]+)*"
    r"(\s*\+\s*(\d+(\.\d+)?\s*[x×*]\s*)?[a-z][a-z0-9]*(-[a-z0-9]+)*)*\s*$"
)
"""One profile or a sum of several; read by `spec.demand`, which says what is wrong and where."""
OBSERVED = "observed"
Factor = Annotated[float, Meta(ge=0, le=1000)]
Multiple = Annotated[float, Meta(ge=0.001, le=1000)]


class LoadFile(FileModel, frozen=True, kw_only=True):
    """The demand: profiles of loadgen/ and the mean rate that they are scaled to; or a locustfile of your own."""

    profile: (
        Annotated[
            Text,
            Meta(
                description="A file of loadgen/, without its ending, or a sum of several.",
                examples=["steady", "peak + 0.5 x spike"],
            ),
        ]
        | None
    ) = None
    rate: Annotated[Rate, Meta(description="What a profile's factor 1 is; a replay's mean.")] | None = None
    workers: (
        Annotated[int, Meta(ge=1, le=64, description="Generator processes; as many as needed by default.")] | None
    ) = None
    hosts: Annotated[list[Word], Meta(description="Workers that a person starts on other machines, by name.")] = []
    listen: Annotated[Text, Meta(description="host:port at which the workers of other machines report.")] | None = None
    from_: Annotated[
        Literal["here"] | None,
        Meta(description="Of a cluster: sent from this machine, for looking only: its evidence is INVALID."),
    ] = field(name="from", default=None)
    locustfile: Annotated[Text, Meta(description="A locustfile of your own, run unchanged: closed loop.")] | None = None
    users: Annotated[int, Meta(ge=1, le=100_000, description="Of the locustfile.")] | None = None
    spawn: Annotated[Rate, Meta(description="How fast the users come; all within a second by default.")] | None = None
    deadline: Annotated[Duration, Meta(description="Of the locustfile's requests: later is no success.")] | None = None


class PieceFile(FileModel, frozen=True, kw_only=True):
    """From `at` on the rate moves in a straight line to the next piece's factor."""

    at: Duration
    factor: Factor


class RampFile(FileModel, frozen=True, kw_only=True):
    """From one level to another in a straight line."""

    from_: Annotated[Factor, Meta(description="Before it.")] = field(name="from", default=0.0)
    to: Annotated[Factor, Meta(description="After it.")] = 1.0
    over: Annotated[Duration, Meta(description="How long it rises.")]
    at: Annotated[Duration, Meta(description="When it begins.")] = "0s"


class SpikeFile(FileModel, frozen=True, kw_only=True):
    """A burst, and nothing besides it: what comes on top of another demand."""

    factor: Annotated[Factor, Meta(description="While it lasts.")]
    at: Annotated[Duration, Meta(description="When it begins.")] = "0s"
    for_: Annotated[Duration, Meta(description="How long it lasts, rise and fall included.")] = field(name="for")
    rise: Annotated[Duration, Meta(description="How long it takes to get there.")] = "0s"
    fall: Annotated[Duration, Meta(description="How long it takes to be gone.")] = "0s"
    base: Annotated[Factor, Meta(description="Before and after it.")] = 0.0


class DayFile(FileModel, frozen=True, kw_only=True):
    """A day's wave, whose mean is the asked rate."""

    length: Annotated[Duration, Meta(description="Into which 24 hours are compressed.")]
    peak: Annotated[float, Meta(ge=1, le=20, description="The busiest moment, as a multiple of the mean.")] = 3.0
    busiest: Annotated[Duration, Meta(description="Hours after midnight at which that is.")] = "20h"
    begin: Annotated[Duration, Meta(description="Hours after midnight at which the load begins.")] = "0h"
    days: Annotated[int, Meta(ge=1, le=7, description="How many of them.")] = 1


class MonthEndFile(FileModel, frozen=True, kw_only=True):
    """Days that grow into the last ones of a month, whose mean is the asked rate."""

    length: Annotated[Duration, Meta(description="Into which the days are compressed.")]
    days: Annotated[int, Meta(ge=2, le=31)] = 10
    last: Annotated[int, Meta(ge=1, le=30, description="How many of them are busy.")] = 3
    factor: Annotated[float, Meta(ge=1, le=100, description="The last day, as a multiple of a plain one.")] = 4.0
    peak: Annotated[float, Meta(ge=1, le=20, description="Of each day: its busiest moment over its mean.")] = 1.5


class FailoverFile(FileModel, frozen=True, kw_only=True):
    """What each survivor gets when some of its peers are gone."""

    of: Annotated[int, Meta(ge=2, le=1000, description="How many share the demand.")]
    lost: Annotated[int, Meta(ge=1, le=999, description="How many of them are lost.")] = 1
    at: Annotated[Duration, Meta(description="When they are lost.")] = "0s"
    for_: Annotated[Duration, Meta(description="How long; for good when left out.")] | None = field(
        name="for", default=None
    )


class BacklogFile(FileModel, frozen=True, kw_only=True):
    """Work that was held back comes on top of what comes anyhow."""

    of: Annotated[Duration, Meta(description="How long it was held back.")]
    over: Annotated[Duration, Meta(description="How long it takes to be sent.")]
    at: Annotated[Duration, Meta(description="When that begins.")] = "0s"


class StepsFile(FileModel, frozen=True, kw_only=True):
    """A staircase of level stretches, each of them a stage that checks can compare."""

    each: Annotated[Duration, Meta(description="How long each step lasts.")]
    factors: Annotated[list[Multiple], Meta(description="Of the asked rate, in their order.")] = []
    from_: Annotated[Multiple, Meta(description="The first step, instead of factors.")] | None = field(
        name="from", default=None
    )
    to: Annotated[Multiple, Meta(description="The last step.")] | None = None
    ratio: Annotated[float, Meta(ge=1.01, le=100, description="From one step to the next.")] | None = None
    at: Annotated[Duration, Meta(description="When the first one begins.")] = "0s"


class DownFile(FileModel, frozen=True, kw_only=True):
    """A staircase down from the load, to find where a system recovers that did not by itself."""

    to: Annotated[Multiple, Meta(description="The last step, of the asked rate.")]
    steps: Annotated[int, Meta(ge=1, le=50)] = 4
    each: Annotated[Duration, Meta(description="How long each step lasts.")]


class EpisodesFile(FileModel, frozen=True, kw_only=True):
    """Each load with each trigger of each duration: the same load before and after a surge."""

    loads: Annotated[list[Multiple], Meta(min_length=1, description="Of the asked rate, before and after.")]
    triggers: Annotated[list[Multiple], Meta(min_length=1, description="Of the asked rate, in the surge.")]
    durations: Annotated[list[Duration], Meta(min_length=1, description="Of the surge.")]
    base: Annotated[Duration, Meta(description="How long the load lasts before the surge.")]
    hold: Annotated[Duration, Meta(description="How long the load lasts after it.")]
    down: DownFile | None = None
    rest: Annotated[Duration, Meta(description="How long it is quiet before the next one.")] = "0s"
    idle: Annotated[Factor, Meta(description="How much is asked in that time.")] = 0.05
    at: Annotated[Duration, Meta(description="When the first one begins.")] = "0s"


class ReplayFile(FileModel, frozen=True, kw_only=True):
    """Recorded moments, replayed: bursts keep their shape."""

    file: Annotated[Text, Meta(description="Relative to the profile's own file.", examples=["shop.log"])]
    format: Annotated[
        Literal["auto", "seconds", "milliseconds", "iso", "access-log"],
        Meta(description="What stands in each line; found from the first one by default."),
    ] = "auto"
    time: Annotated[float, Meta(ge=0.0001, le=10_000, description="2: twice as slow.")] = 1.0
    rate: Annotated[float, Meta(ge=0.0001, le=10_000, description="2: twice as many.")] = 1.0


class StreamFile(FileModel, frozen=True, kw_only=True):
    """One kind of request."""

    share: Annotated[Share, Meta(description="Of all arrivals; the shares add up to 100%.")]
    each: Each | None = None
    labels: Annotated[Labels, Meta(description="What objectives select by.")] = {}
    deadline: Annotated[Duration, Meta(description="An answer after this long is no success.")]
    parameters: Annotated[dict[Identifier, Scalar], Meta(description="Given to the user file with each arrival.")] = {}


class RetryFile(FileModel, frozen=True, kw_only=True):
    """What the client does when it was not served, within the arrival's deadline."""

    attempts: Annotated[int, Meta(ge=1, le=20, description="At most, the first one included.")]
    wait: Annotated[Duration, Meta(description="Before the second; doubled before each further one.")] = "100ms"
    jitter: Annotated[Share, Meta(description="How much of the wait is left to chance.")] = "50%"
    obey: Annotated[bool, Meta(description="Whether Retry-After is obeyed.")] = True
    share: Annotated[Share, Meta(description="Of the arrivals that may be tried again: a retry budget.")] = "100%"


Since = Literal["start", "warmup", "baseline", "fault", "recovery", "failback"]


class ProfileFile(FileModel, frozen=True, kw_only=True):
    """Demand as a function of time, and who asks for what."""

    description: Annotated[Text, Meta(description="What demand this is.")] = ""
    parameters: Annotated[
        dict[Identifier, Annotated[list[Scalar], Meta(min_length=1)]],
        Meta(description="Lists for each; where the experiment or its system has one of that name, that one counts."),
    ] = {}
    like: Annotated[Word, Meta(description="A profile whose user, arrivals and streams this one has.")] | None = None
    user: (
        Annotated[str, kind("module", r"^[a-z][a-z0-9_]*$", "A file in loadgen/ without its ending.", "platform")]
        | None
    ) = None
    arrivals: (
        Annotated[Literal["constant", "poisson"], Meta(description="Evenly spaced, or as strangers arrive.")] | None
    ) = None
    from_: Annotated[Since, Meta(description="From when times count: the load's start, or a phase's.")] = field(
        name="from", default="start"
    )
    shape: Annotated[list[PieceFile], Meta(description="The demand's course; the rate stays as asked when empty.")] = []
    ramp: RampFile | None = None
    spike: SpikeFile | None = None
    day: DayFile | None = None
    month_end: MonthEndFile | None = None
    failover: FailoverFile | None = None
    backlog: BacklogFile | None = None
    steps: StepsFile | None = None
    episodes: EpisodesFile | None = None
    replay: ReplayFile | None = None
    retry: RetryFile | None = None
    streams: Annotated[dict[Word, StreamFile], Meta(min_length=1, description="Who asks for what.")] = {}


COURSES = ("shape", "ramp", "spike", "day", "month_end", "failover", "backlog", "steps", "episodes")
"""Keys of a profile that say how its rate moves; one of them at most."""
