"""The live view: on a terminal one line that moves under lines that stay; elsewhere plain lines, one a fact.

A view never stands in a run's way: when its reader has left, it falls silent and the run goes on.
"""

from __future__ import annotations

import os
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from stormdrill.cli import figures
from stormdrill.cli.outline import plan_lines
from stormdrill.cli.scene import Line, Moment, Scene
from stormdrill.cli.screen import NARROWEST, PLAIN_WIDTH, Sink, width_of
from stormdrill.model.event import Recorded
from stormdrill.model.plan import Plan
from stormdrill.ports import LiveLoad

if TYPE_CHECKING:
    from rich.text import Text

HEARTBEAT_S = 10.0
"""Without a terminal, this often a line says that a long phase goes on."""
WIDE_BAR = 26
NARROW_BAR = 12
GLUE = "\u00a0"
UNIT = re.compile(r"(\d) (ms|s|min|bytes)\b")
"""A number stays on one line with its unit."""


class View(Protocol):
    """What `api.run` takes as its observer."""

    def announce(self, plan: Plan) -> None: ...
    def __call__(self, what: Recorded | LiveLoad | None, gauges: Mapping[str, float] | None = None) -> None:
        """An event as it is written; or the generator's last second with gauges, keyed as objectives write them:
        shares in percent, times in seconds."""
        ...


class PlainView:
    """Prints lines as facts come in. No colour, no cursor movement."""

    def __init__(self, out: TextIO, width: int = PLAIN_WIDTH, clock: Callable[[], float] = time.monotonic) -> None:
        self.out = Sink(out)
        self._width = max(NARROWEST, width)
        self._clock = clock
        self._last_s = clock()
        self._lock = threading.Lock()
        self.scene = Scene()

    def announce(self, plan: Plan) -> None:
        self.scene = Scene(plan)
        self._print(["", *plan_lines(plan, self._width), ""])

    def __call__(self, what: Recorded | LiveLoad | None, gauges: Mapping[str, float] | None = None) -> None:
        with self._lock:
            if not isinstance(what, Recorded):
                self.scene.figures_are(what, gauges or {}, self._clock() * 1000)
                self._beat()
                return
            for line in self.scene.tell(what):
                self._print(layout(line, self._width))
                self._last_s = self._clock()

    def _beat(self) -> None:
        now_s = self._clock()
        if now_s - self._last_s < HEARTBEAT_S:
            return
        self._last_s = now_s
        moment = self.scene.moment(now_s * 1000)
        left = f"{figures.seconds(moment.remaining_s)} left" if moment.remaining_s else ""
        self._print(layout(Line(moment.label, "…", moment.text, left), self._width))

    def _print(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.out.write(f"{line}\n")
        self.out.flush()


class LiveView(PlainView):
    """The same lines, above one that shows progress, remaining time and figures, drawn anew a few times a second."""

    def __init__(self, out: TextIO, width: int) -> None:
        super().__init__(out, width)
        from rich.console import Console
        from rich.live import Live

        self._console = Console(
            file=cast(TextIO, self.out), highlight=False, markup=False, emoji=False, width=self._width
        )
        self._drawn = Live(
            console=self._console, get_renderable=self._picture, refresh_per_second=4, transient=True, auto_refresh=True
        )

    def start(self) -> None:
        self._drawn.start(refresh=True)

    def stop(self) -> None:
        self._drawn.stop()

    def _beat(self) -> None:
        """The line that moves says it already."""

    def _picture(self) -> Text:
        from rich.text import Text

        return Text(moving_line(self.scene.moment(time.monotonic() * 1000), self._width), no_wrap=True)

    def _print(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._console.print(line, soft_wrap=True)


@contextmanager
def open_view(out: TextIO) -> Iterator[View]:
    """The view that fits `out`; nothing that moves when it is no terminal, or a dumb one."""
    if not out.isatty() or os.environ.get("TERM") == "dumb":
        yield PlainView(out)
        return
    view = LiveView(out, width_of(out))
    view.start()
    try:
        yield view
    finally:
        view.stop()


def layout(line: Line, width: int) -> list[str]:
    """One fact as lines of at most `width`: label, state, text wrapped under itself, time at the right edge."""
    lead = f"  {line.label:<9} {line.state:<10} "
    took = f"  {line.took}" if line.took else ""
    indent = 23 if width >= 80 else 14
    room = max(20, width - len(took))
    words = UNIT.sub(f"\\1{GLUE}\\2", f"{lead}{line.text}".rstrip())
    rows = textwrap.wrap(
        words,
        room,
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [words]
    rows = [row.replace(GLUE, " ") for row in rows]
    if took:
        rows[0] = f"{rows[0]:<{room}}{took}"
    return rows


def moving_line(moment: Moment, width: int) -> str:
    """The line that shows progress: a bar where the length is known, the remaining time, the figures."""
    if moment.share_done is None or moment.remaining_s is None:
        return f"  {moment.label:<9} {moment.text} …"[:width]
    bar_width = WIDE_BAR if width >= 116 else NARROW_BAR
    full = round(moment.share_done * bar_width)
    bar = f"▏{'█' * full}{' ' * (bar_width - full)}▏"
    left = f"{figures.seconds(moment.remaining_s)} left" if moment.remaining_s else "ending"
    return f"  {moment.label:<9} {bar} {left}   {moment.text}"[:width]
