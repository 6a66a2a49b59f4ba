"""The storms of many hosts while they run: a live table with a row a host, or lines. All of it goes to stderr."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from slabwatch.cli.contexts import Host
from slabwatch.cli.draw import Column, Grid, Note, Page, lay_out
from slabwatch.cli.exit_codes import Exit
from slabwatch.cli.follow import Course, Event
from slabwatch.cli.screen import rich_line
from slabwatch.cli.words import duration, many, printable
from slabwatch.errors import ControlError

if TYPE_CHECKING:
    from rich.console import RenderableType

# Lines of a window that are no hosts': the header, "and N more", and what is said meanwhile.
MARGIN = 6
LEAST_ROWS = 4


@dataclass(slots=True)
class Turn:
    """One host's storm. ``state``: waiting, starting, running, then the outcome, or how it came to none."""

    host: Host
    state: str = "waiting"
    storm_id: str | None = None
    course: Course | None = None
    record: Mapping[str, Any] | None = None
    error: ControlError | None = None
    exit: Exit | None = None

    @property
    def verdict(self) -> str | None:
        """None as long as there is none."""
        return (self.record["verdict"] or {}).get("class") if self.record else None


class Board(Protocol):
    """``tell`` has a line that is worth keeping; ``close`` leaves nothing of a table behind."""

    def tell(self, turn: Turn, line: str) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


def board_for(turns: Sequence[Turn], *, as_json: bool) -> Board:
    """A table in a window, lines elsewhere; with --json the end alone counts, and no line is kept from a log."""
    return Table(turns) if sys.stderr.isatty() and not as_json else Lines()


class Lines:
    """Each line with its host."""

    def tell(self, turn: Turn, line: str) -> None:
        self.say(f"{turn.host.name}: {line}")

    def say(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class Table:
    """A row a host; what is said goes above it."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._turns = turns
        console = Console(stderr=True, highlight=False)
        self._live = Live(console=console, transient=True, get_renderable=self._now, refresh_per_second=4)
        self._live.start()

    def tell(self, turn: Turn, line: str) -> None:
        """The row shows it; warnings alone are worth a line."""
        if line.startswith("warning: "):
            self.say(f"{turn.host.name}: {line}")

    def say(self, text: str) -> None:
        from rich.text import Text

        self._live.console.print(Text(printable(text)), soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _now(self) -> RenderableType:
        from rich.console import Group

        columns, lines = shutil.get_terminal_size()
        page = board_page(self._turns, max(LEAST_ROWS, lines - MARGIN))
        return Group(*map(rich_line, lay_out(page, max(40, columns))))


def board_page(turns: Sequence[Turn], room: int) -> Page:
    """How far each host is, in at most ``room`` rows."""
    shown = worth_showing(turns, room)
    columns = (
        Column("host", gives="end"),
        Column("state", "state"),
        Column("phase"),
        Column("done %", "percent"),
        Column("figures", gives="end"),
    )
    rows = [(turn.host.name, turn.verdict or turn.state, *_progress(turn)) for turn in shown]
    rest = [Note(f"and {many(len(turns) - len(shown), 'host')} more", "dim")] if len(shown) < len(turns) else []
    return (Grid(columns, rows), *rest)


def _progress(turn: Turn) -> tuple[str, float | None, str]:
    course = turn.course
    if course is None or turn.exit is not None:
        return "", None, str(turn.error) if turn.error else ""
    done = course.done()
    share = 100 * done[0] / done[1] if done and done[1] else None
    return f"{course.phase} {duration(course.t - course.phase_began)}", share, course.figures()


def worth_showing(turns: Sequence[Turn], room: int) -> list[Turn]:
    """At most ``room``, in the hosts' order: what runs, then what went wrong, then what is next, then what is over."""

    def rank(place: int) -> tuple[int, int]:
        turn = turns[place]
        if turn.exit is None:
            return (2 if turn.state == "waiting" else 0), place
        return (1 if turn.exit else 3), -place

    return [turns[place] for place in sorted(sorted(range(len(turns)), key=rank)[:room])]


@dataclass(frozen=True, slots=True)
class HostProgress:
    """What follows one storm, as ``steer.to_the_end`` needs it."""

    turn: Turn
    board: Board

    def take(self, event: Event) -> None:
        line = self.turn.course.take(event) if self.turn.course else None
        if line is not None:
            self.board.tell(self.turn, line)

    def say(self, text: str) -> None:
        self.board.say(f"{self.turn.host.name}: {text}")

    def close(self) -> None:
        """The board is closed by itself."""
