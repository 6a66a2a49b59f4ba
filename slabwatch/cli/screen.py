"""Where a verb's answer goes: JSON, a window, or a file or pipe. Progress and remarks go to stderr."""

from __future__ import annotations

import io
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from slabwatch.cli.draw import Line, Page, as_text, lay_out

A = TypeVar("A")


class Screen:
    """stdout and stderr of one run."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.is_window = sys.stdout.isatty() and not as_json
        # A locale that can not write a name must not cost the table.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    def show(self, answer: A, page_of: Callable[[A], Page]) -> None:
        """The answer itself with --json, else as a page."""
        if self.as_json:
            self.json_line(answer)
        else:
            self.page(page_of(answer))

    def json_line(self, answer: Any) -> None:
        """One object on a line of its own, at once."""
        print(json.dumps(answer), flush=True)

    def page(self, page: Page) -> None:
        """Print a page."""
        if self.is_window:
            from rich.console import Console

            console = Console(highlight=False)
            for line in lay_out(page, self.size()[0]):
                console.print(rich_line(line), soft_wrap=True)
        else:
            for line in lay_out(page, None):
                print(as_text(line).rstrip())
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """A remark beside the answer."""
        lines = textwrap.wrap(text, self.size()[0], break_on_hyphens=False) if sys.stderr.isatty() else [text]
        print("\n".join(lines), file=sys.stderr, flush=True)

    def size(self) -> tuple[int, int]:
        """Columns and lines of the window."""
        size = shutil.get_terminal_size()
        return max(40, size.columns), max(10, size.lines)

    @contextmanager
    def changing(self) -> Iterator[Callable[[Page], None]]:
        """A function that puts a page in place of the one before (in a window), or below it (elsewhere)."""
        if not self.is_window:
            yield self.page
            return
        from rich.console import Console, Group
        from rich.live import Live

        with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
            yield lambda page: live.update(Group(*map(rich_line, lay_out(page, self.size()[0]))), refresh=True)


def rich_line(line: Line) -> Any:
    """With its styles, as rich prints it."""
    from rich.text import Text

    return Text.assemble(*line, no_wrap=True, end="\n")
