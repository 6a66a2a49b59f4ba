"""/proc/cmdline: the parameters that the kernel was booted with.

Kernel document: Documentation/admin-guide/kernel-parameters.rst. A sample::

    console=ttyS0 console=tty0 quiet cgroup.memory=nosocket,nokmem dyndbg="file mm/slub.c +p"

Double quotes protect spaces. ``-`` and ``_`` are the same in names. What follows ``--`` is for init.
"""

from __future__ import annotations

import re

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import whole_lines

PATH = "/proc/cmdline"

# Possessive, so that no input makes it try again: an unclosed quote reaches to the end, as in the kernel.
_WORD = re.compile(r'(?:[^\s"]++|"[^"]*+"?)++', re.ASCII)


def parse_cmdline(data: bytes) -> dict[str, tuple[str, ...]]:
    """The values of each parameter, in their order; none for one that stands alone, like ``quiet``.

    Names are spelled with ``_``. Raises KernelParseError when the line has no end.
    """
    lines = whole_lines(data, PATH)
    if not lines:
        raise KernelParseError(PATH, 0, "", "file (empty)")
    parameters: dict[str, tuple[str, ...]] = {}
    for word in _WORD.findall(" ".join(lines)):
        if word == "--":
            break
        name, assigned, value = _unquote(word).partition("=")
        values = (_unquote(value),) if assigned else ()
        name = name.replace("-", "_")
        parameters[name] = parameters.get(name, ()) + values
    return parameters


def _unquote(text: str) -> str:
    if text.startswith('"'):
        return text[1:].removesuffix('"')
    return text
