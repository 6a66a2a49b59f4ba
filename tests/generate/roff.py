"""Manual pages as text: the few macros of man(7) that are needed, and the escapes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable


class Page:
    """One page, built from top to bottom; ``text()`` is the file."""

    def __init__(self, name: str, section: int, version: str, manual: str) -> None:
        # No date: a page is remade from the same declarations at any time, and must not differ then.
        self._lines = [
            '.\\" Written by `make docs` from the declarations in the code.',
            f'.TH {name.upper()} {section} "" "slabwatch {version}" "{manual}"',
            ".nh",  # no hyphenation, no padding: options and paths stay whole
            ".ad l",
        ]

    def text(self) -> str:
        """The file."""
        return "\n".join(self._lines) + "\n"

    def name(self, name: str, purpose: str) -> None:
        """The line that whatis(1) and apropos(1) read."""
        self.section("NAME")
        self._lines.append(f"{escape(name)} \\- {escape(purpose)}")

    def section(self, title: str) -> None:
        self._lines.append(f".SH {title}")

    def subsection(self, title: str) -> None:
        self._lines.append(f'.SS "{escape(title)}"')

    def paragraph(self, text: str) -> None:
        """Running text; words in back quotes are set bold."""
        self._break()
        self._text(text)

    def item(self, tag: str, text: str) -> None:
        """A term, which is roff already (see ``bold`` and ``italic``), and what it means."""
        self._lines += [".TP", tag]
        self._text(text)

    def items(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Several, with plain terms."""
        for term, text in pairs:
            self.item(bold(term), text)

    def literal(self, lines: str) -> None:
        """Lines that stay as they are: a synopsis, examples."""
        self._break()
        self._lines += [".nf", *map(escape, textwrap.dedent(lines).strip("\n").splitlines()), ".fi"]

    def _break(self) -> None:
        if not self._lines[-1].startswith((".SH", ".SS")):  # a paragraph begins there anyhow
            self._lines.append(".PP")

    def _text(self, text: str) -> None:
        # Line by line from sentence to sentence, as man pages are written.
        words = " ".join(text.split())
        for sentence in re.split(r"(?<=[.:;?]) (?=[A-Z`/])", words):
            pieces = sentence.split("`")
            marked = "".join(bold(piece) if index % 2 else escape(piece) for index, piece in enumerate(pieces))
            for line in textwrap.wrap(marked, 78, break_long_words=False, break_on_hyphens=False):
                self._lines.append(f"\\&{line}" if line.startswith((".", "'")) else line)


def escape(text: str) -> str:
    """Text as roff shows it: hyphens that can be copied, no line that is taken for a request."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    plain = plain.replace('"', "\\(dq").replace("µ", "\\(mc").replace("`", "\\(ga")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


def bold(text: str) -> str:
    """As typed."""
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    """To be replaced."""
    return f"\\fI{escape(text)}\\fR"
