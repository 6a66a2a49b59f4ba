"""A storm's events as a progress bar, as plain lines, or as they are.

``Course`` keeps what the events have told so far and is pure; the three ways of showing differ only in what they
print. All progress goes to stderr, so that stdout holds the result alone; with --json stdout holds the events.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from slabwatch.cli.screen import Screen
from slabwatch.cli.sparkline import sparkline
from slabwatch.cli.words import duration, many, mib, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

Event = Mapping[str, Any]

# Without a window, this much time is between two lines of one phase.
LINE_SECONDS = 5.0
MOST_POINTS = 4096  # as many as a daemon tells
MOST_BLOCKS = 60  # of the curve in a window
LEAST_SPAN = 4 * 2**20  # what any host moves by is no curve
_INDENT = 10
CURVE_WORDS = "  SUnreclaim"


@dataclass(slots=True)
class Course:
    """How far a storm is. ``take`` returns the line that is worth keeping, if the event gives one."""

    plan: Mapping[str, Any]
    phase: str = ""
    phase_began: float = 0.0
    t: float = 0.0
    latest: Event = field(default_factory=dict)
    first_sunreclaim: int | None = None
    peak_live: int = 0
    curve: list[int] = field(default_factory=list)  # SUnreclaim at each progress

    def take(self, event: Event) -> str | None:
        self.t = max(self.t, event.get("t") or 0.0)
        match event["event"]:
            case "phase":
                line = self._phase_line()
                self.phase, self.phase_began = str(event["phase"]), self.t
                return line
            case "progress":
                self.latest = event
                if self.first_sunreclaim is None:
                    self.first_sunreclaim = event.get("sunreclaim_bytes")
                self.peak_live = max(self.peak_live, event.get("live_tasks") or 0)
                if event.get("sunreclaim_bytes") is not None and len(self.curve) < MOST_POINTS:
                    self.curve.append(event["sunreclaim_bytes"])
                return None
            case "warning":
                return f"warning: {printable(str(event.get('text') or event.get('message') or ''))}"
            case "end":
                return self._phase_line()
            case _:
                return None  # a newer daemon may tell more

    def _phase_line(self) -> str | None:
        if not self.phase:
            return None
        parts = [f"{self.phase:<9}{duration(self.t - self.phase_began):>12}"]
        if self.phase == "create" and self.latest.get("cgroups"):
            parts.append(many(self.latest["cgroups"], "cgroup"))
        if self.phase == "load" and self.latest.get("tasks_started"):
            parts.append(many(self.latest["tasks_started"], "task"))
        if self.latest.get("sunreclaim_bytes") is not None:
            parts.append(f"SUnreclaim {self._sunreclaim()}")
        return "   ".join(parts)

    def _sunreclaim(self) -> str:
        size = self.latest["sunreclaim_bytes"]
        if self.first_sunreclaim is None:
            return mib(size)
        return f"{mib(size)} ({(size - self.first_sunreclaim) / 2**20:+,.1f})"

    def done(self) -> tuple[float, float] | None:
        """How much of this phase is done, and of how much; None when nobody can know."""
        latest, in_phase = self.latest, self.t - self.phase_began
        match self.phase:
            case "baseline" | "hold" | "settle":
                seconds = float(self.plan[f"{self.phase}_seconds"])
                return (min(in_phase, seconds), seconds) if seconds else None
            case "create":
                return latest.get("cgroups") or 0, self.plan["cgroups"]
            case "load":
                tasks = (latest.get("tasks_started") or 0) + (latest.get("tasks_failed") or 0)
                return tasks, latest.get("tasks_requested") or self.plan["total_tasks"]
            case "drain" if self.peak_live:
                return self.peak_live - (latest.get("live_tasks") or 0), self.peak_live
            case _:
                return None

    def counted(self) -> str:
        """What the bar counts, in words."""
        match self.phase:
            case "create":
                return many(self.latest.get("cgroups") or 0, "cgroup")
            case "load":
                requested = self.latest.get("tasks_requested") or self.plan["total_tasks"]
                return f"{self.latest.get('tasks_started') or 0:,} / {many(requested, 'task')}"
            case "pressure" if self.latest.get("pressure_bytes"):
                return f"{mib(self.latest['pressure_bytes'])} used up"
            case _:
                return ""

    def figures(self) -> str:
        """The kernel's memory now."""
        latest = self.latest
        if not latest:
            return ""
        parts = [f"{latest.get('live_tasks') or 0:,} live"]
        if latest.get("tasks_failed"):
            parts.append(f"{latest['tasks_failed']:,} failed")
        if latest.get("sunreclaim_bytes") is not None:
            parts.append(f"SUnreclaim {self._sunreclaim()}")
        if latest.get("task_struct_active") is not None:
            parts.append(f"task_struct {latest['task_struct_active']:,}")
        return "   ".join(parts)


class Progress(Protocol):
    """Shows events until ``close``."""

    def take(self, event: Event) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


def progress_for(screen: Screen, plan: Mapping[str, Any]) -> Progress:
    """JSON with --json, a bar in a window, lines elsewhere."""
    if screen.as_json:
        return JsonLines(screen)
    if sys.stderr.isatty():
        return Bar(Course(plan))
    return Lines(Course(plan))


class JsonLines:
    """Every event as it is, and the record on a line of its own at the end."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def take(self, event: Event) -> None:
        self._screen.json_line({key: value for key, value in event.items() if key != "record"})
        if event.get("record"):
            self._screen.json_line(event["record"])

    def say(self, text: str) -> None:
        self._screen.say(text)

    def close(self) -> None:
        """Nothing is open."""


class Lines:
    """A line at the end of each phase, and one now and then within it."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._last = 0.0

    def take(self, event: Event) -> None:
        course = self._course
        line = course.take(event)
        if line is not None:
            self.say(line)
            self._last = course.t
        elif event["event"] == "progress" and course.t - self._last >= LINE_SECONDS:
            self._last = course.t
            self.say("   ".join(filter(None, [f"{course.phase:<9}  ...", course.counted(), course.figures()])))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """A line for each phase that is over; below them the running one with a bar, the kernel's memory, and its curve."""

    def __init__(self, course: Course) -> None:
        from rich.console import Console
        from rich.live import Live

        self._course = course
        console = Console(stderr=True, highlight=False)
        self._blocks = console.encoding.startswith("utf")
        self._live = Live(console=console, transient=True, get_renderable=self._now, refresh_per_second=4)
        self._live.start()

    def take(self, event: Event) -> None:
        line = self._course.take(event)
        if line is not None:
            self.say(line)

    def say(self, text: str) -> None:
        from rich.text import Text

        self._live.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _now(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        course = self._course
        if not course.phase:
            return Text("starting")
        done = course.done()
        bar = ProgressBar(total=done[1], completed=done[0]) if done else ProgressBar(pulse=True)
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(width=9)
        line.add_column(ratio=1)
        line.add_column(justify="right", no_wrap=True)
        line.add_column(justify="right", no_wrap=True, min_width=8)
        line.add_row(Text(course.phase, "bold"), bar, course.counted(), duration(course.t - course.phase_began))
        figures = Text(" " * _INDENT + course.figures(), no_wrap=True, overflow="ellipsis")
        lines: list[RenderableType] = [line, figures]
        if len(course.curve) > 1 and self._blocks:
            width = min(MOST_BLOCKS, self._live.console.width - _INDENT - len(CURVE_WORDS))
            curve = sparkline(course.curve, width, least_span=LEAST_SPAN)
            lines.append(Text.assemble(" " * _INDENT, (curve, "yellow"), (CURVE_WORDS, "dim"), no_wrap=True))
        return Group(*lines)
