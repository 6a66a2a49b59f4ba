"""Which caches and cgroups get series of their own: patterns first, then the largest, with hysteresis."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence

# How much larger than the smallest incumbent a newcomer must be to take its place. Without it, two that are nearly
# equal would take turns, and each turn ends a series and begins another.
HYSTERESIS = 1.25


def pattern_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Names that match one of ``include`` and none of ``exclude`` (shell patterns; ``*`` also spans "/")."""
    if "*" in include and not exclude:
        return lambda name: True
    wanted, unwanted = _any_of(include), _any_of(exclude)
    return lambda name: wanted.match(name) is not None and unwanted.match(name) is None


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    # Without any pattern: one that matches nothing.
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)", re.DOTALL)


class Largest:
    """Keeps the ``most`` largest of a changing set of names."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._incumbents: frozenset[str] = frozenset()

    @property
    def kept(self) -> frozenset[str]:
        """The names that were chosen last."""
        return self._incumbents

    def choose(self, names: Sequence[str], sizes: Sequence[int]) -> frozenset[str]:
        """The names that are kept: all while they fit, else the largest, where those kept before count for more."""
        if len(names) <= self._most:
            self._incumbents = frozenset(names)
            return self._incumbents
        incumbents = self._incumbents
        ranked = sorted(
            (-(size * HYSTERESIS if name in incumbents else size), name not in incumbents, name)
            for name, size in zip(names, sizes, strict=True)
        )
        self._incumbents = frozenset(name for _, _, name in ranked[: self._most])
        return self._incumbents
