"""A page (sentences and tables) becomes lines: for a window of some width, or plain for a file or a pipe.

Plain is for programs: no colour, nothing cut or left out, numbers without separators, sentences as "# " lines.
"""

from __future__ import annotations

import textwrap
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from slabwatch.cli.words import MIB, clock, duration, printable

Value = str | int | float | None
Kind = Literal["text", "state", "count", "mib", "growth", "percent", "duration", "time"]
Span = tuple[str, str]  # text and its style, in rich's words
Line = tuple[Span, ...]

GAP = 2
NARROWEST = 12  # no column is cut to less

STATE_STYLES = {
    "ok": "green", "info": "cyan", "warn": "yellow", "fail": "bold red", "no": "yellow",
    "released": "green", "retained": "yellow", "pinned": "red", "inconclusive": "magenta",
    "running": "cyan", "completed": "green", "stopped": "yellow", "aborted": "red", "failed": "red",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """``optional`` columns go first where the window is narrow; then the one that ``gives`` is cut or wrapped."""

    title: str
    kind: Kind = "text"
    optional: bool = False
    gives: Literal["", "end", "start", "wrap"] = ""

    @property
    def is_number(self) -> bool:
        return self.kind in ("count", "mib", "growth", "percent", "duration")


# The columns of a list of names and values.
PAIRS = (Column(""), Column("", gives="wrap"))


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; a list of names and values has no header."""

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Value]]
    header: bool = True


@dataclass(frozen=True, slots=True)
class Note:
    """Sentences around a table."""

    text: str
    style: str = ""


Page = Sequence[Grid | Note | str]


def lay_out(page: Page, width: int | None) -> list[Line]:
    """The page's lines; no ``width``: plain. An empty line between blocks, in a window only."""
    lines: list[Line] = []
    for block in page:
        if lines and width is not None:
            lines.append(())
        if isinstance(block, Grid):
            lines += _grid(block, width)
        elif isinstance(block, Note):
            prefix = "# " if width is None else ""
            lines += [((prefix + text, block.style),) for text in _wrapped(block.text, width)]
        else:
            lines += [((text, "bold"),) for text in _wrapped(block, width)]
    return lines


def as_text(line: Line) -> str:
    """Without styles."""
    return "".join(text for text, _ in line)


def _wrapped(text: str, width: int | None) -> list[str]:
    clean = printable(text)
    return [clean] if width is None else textwrap.wrap(clean, width, break_on_hyphens=False) or [""]


def _grid(grid: Grid, width: int | None) -> list[Line]:
    plain = width is None
    # For programs, a title is one word.
    titles = [column.title.replace(" ", "_") if plain else column.title for column in grid.columns]
    cells = [
        [_cell(value, column.kind, plain=plain) for value, column in zip(row, grid.columns, strict=True)]
        for row in grid.rows
    ]
    widths = [
        max([_width(title) if grid.header else 0, *(_width(row[place]) for row in cells)])
        for place, title in enumerate(titles)
    ]
    shown = list(range(len(widths))) if width is None else _fit(grid.columns, widths, width)
    columns = [grid.columns[place] for place in shown]
    widths = [widths[place] for place in shown]
    lines = [_line([(titles[place], "bold") for place in shown], columns, widths)] if grid.header else []
    for row in cells:
        lines += _row([row[place] for place in shown], columns, widths)
    return lines


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Which columns are shown; the one that gives is narrowed, in ``widths``."""
    shown = list(range(len(columns)))

    def excess() -> int:
        return sum(widths[place] for place in shown) + GAP * (len(shown) - 1) - width

    for place in reversed(range(len(columns))):
        if columns[place].optional and excess() > 0:
            shown.remove(place)
    for place in reversed(shown):
        if columns[place].gives and excess() > 0:
            widths[place] = max(NARROWEST, widths[place] - excess())
    return shown


def _row(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> list[Line]:
    """One line, or as many as the wrapped cell takes."""
    parts = [_pieces(cell, column, width) for cell, column, width in zip(cells, columns, widths, strict=True)]
    styles = [_style(cell, column) for cell, column in zip(cells, columns, strict=True)]
    return [
        _line(
            [
                (pieces[number] if number < len(pieces) else "", style)
                for pieces, style in zip(parts, styles, strict=True)
            ],
            columns,
            widths,
        )
        for number in range(max(map(len, parts)))
    ]


def _pieces(cell: str, column: Column, width: int) -> list[str]:
    if _width(cell) <= width:
        return [cell]
    if column.gives == "wrap":
        return textwrap.wrap(cell, width, break_on_hyphens=False)
    return ["…" + _head(cell[::-1], width - 1)[::-1] if column.gives == "start" else _head(cell, width - 1) + "…"]


def _head(text: str, width: int) -> str:
    """The longest beginning that is no wider than this."""
    while _width(text) > width:
        text = text[: -max(1, (_width(text) - width) // 2)]
    return text


def _line(spans: Sequence[Span], columns: Sequence[Column], widths: Sequence[int]) -> Line:
    line: list[Span] = []
    for (text, style), column, width in zip(spans, columns, widths, strict=True):
        padding = " " * (width - _width(text))
        line += [(padding + text if column.is_number else text + padding, style), (" " * GAP, "")]
    return tuple(line[:-1])


def _style(text: str, column: Column) -> str:
    if text == "-":
        return "dim"
    return STATE_STYLES.get(text, "") if column.kind == "state" else ""


def _cell(value: Value, kind: Kind, *, plain: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return printable(value) or "-"
    match kind:
        case "mib":
            text = f"{value / MIB:,.2f}"
        case "growth":
            text = f"{value / MIB:+,.2f}"
            text = "0.00" if text in ("+0.00", "-0.00") else text
        case "percent":
            text = f"{value:.0f}"
        case "duration":
            text = f"{value:.1f}" if plain else duration(value)
        case "time":
            text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(value)) if plain else clock(value)
        case _:
            text = f"{value:,}"
    return text.replace(",", "") if plain else text


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char) for char in text)
