"""The slab caches that get series of their own, as columns ready to be rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slabwatch.config import Caches
from slabwatch.kernel.slabinfo import SlabInfo
from slabwatch.watch.select import Largest, pattern_filter

OTHER = "__other__"
# The columns of SlabInfo that are passed on as they are, in the order of the table, and whether a sum of them means
# something.
COLUMNS: Mapping[str, bool] = {
    "active_objects": True,
    "objects": True,
    "object_size_bytes": False,
    "objects_per_slab": False,
    "pages_per_slab": False,
    "active_slabs": True,
    "slabs": True,
}


@dataclass(frozen=True, slots=True)
class ShownCaches:
    """``columns``: those of COLUMNS and ``size_bytes``, as long as ``names``."""

    names: tuple[str, ...]
    columns: Mapping[str, Sequence[str | int | None]]


class CacheSelection:
    """Patterns, then the largest by bytes; what is beyond the count is summed in one row, what is excluded is not."""

    def __init__(self, include: Sequence[str] = ("*",), exclude: Sequence[str] = (), max_count: int = 1000) -> None:
        self._wanted = pattern_filter(include, exclude)
        self._all = tuple(include) == ("*",) and not exclude
        self._max_count = max_count
        self._largest = Largest(max_count)

    @classmethod
    def from_config(cls, config: Caches) -> CacheSelection:
        """As the configuration has it."""
        return cls(config.include, config.exclude, config.max_count)

    def of(self, slabinfo: SlabInfo, cache_bytes: Sequence[int]) -> ShownCaches:
        """What is to be shown of this sample."""
        names = slabinfo.names
        columns: dict[str, Sequence[str | int | None]] = {column: getattr(slabinfo, column) for column in COLUMNS}
        columns["size_bytes"] = cache_bytes
        if self._all and len(names) <= self._max_count:
            return ShownCaches(names, columns)
        wanted = [index for index, name in enumerate(names) if self._wanted(name)]
        kept = self._largest.choose([names[index] for index in wanted], [cache_bytes[index] for index in wanted])
        own = [index for index in wanted if names[index] in kept]
        rest = [index for index in wanted if names[index] not in kept]
        shown = {column: [values[index] for index in own] for column, values in columns.items()}
        if rest:
            for column, values in columns.items():
                total = sum(int(values[index] or 0) for index in rest)
                shown[column].append(total if COLUMNS.get(column, True) else None)
        return ShownCaches((*(names[index] for index in own), *((OTHER,) if rest else ())), shown)
