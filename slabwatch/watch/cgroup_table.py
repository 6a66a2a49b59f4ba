"""From what was read of the cgroups to the table that is exported: caps, the rest's sum, and what is empty. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence

from slabwatch.host.hierarchy import MemoryHierarchy
from slabwatch.host.memory_cgroups import STORM_PREFIX, Column, Reading, Tree, spelled
from slabwatch.watch.sample import CGROUP_COLUMNS, CgroupReadings
from slabwatch.watch.select import Largest

OTHER = "__other__"
STORM = STORM_PREFIX.rstrip("-")
# Columns whose sum over several cgroups means something.
_SUMMED = frozenset(CGROUP_COLUMNS) - {"kernel_max_bytes", "kernel_limit_bytes", "memory_max_usage_bytes", "populated"}


def as_table(
    hierarchy: MemoryHierarchy,
    tree: Tree,
    reading: Reading,
    dying: int | None,
    largest: Largest,
    *,
    fold_storms: bool,
    kept_descriptors: int = 0,
) -> CgroupReadings:
    """The largest keep a row of their own, the others are summed. Those beyond the depth are in their ancestors'."""
    paths, columns = reading.paths, reading.columns
    rows = [index for index in range(len(paths)) if _has_figure(index, columns)] if _has_gaps(columns) else None
    if rows is not None and len(rows) < len(paths):
        paths = tuple(paths[index] for index in rows)
        columns = {name: [column[index] for index in rows] for name, column in columns.items()}
    unpopulated = _unpopulated_kernel_bytes(paths, columns, reading.alone)
    kept = largest.choose(paths, _sizes(columns, len(paths)))
    omitted = len(paths) - len(kept)
    if omitted:
        columns = {name: _with_other(name, paths, column, kept) for name, column in columns.items()}
        paths = tuple(path for path in paths if path in kept)
    shown = tuple([spelled(_folded(path)) for path in paths] if fold_storms else map(spelled, paths))
    return CgroupReadings(
        mode=hierarchy.mode,
        version=hierarchy.version,
        paths=(*shown, OTHER) if omitted else shown,
        columns={name: tuple(columns[name]) for name in CGROUP_COLUMNS if name in columns},
        visible=tree.visible,
        dying=dying,
        omitted=omitted,
        unpopulated_kernel_bytes=unpopulated,
        kept_descriptors=kept_descriptors,
    )


def _folded(path: str) -> str:
    """A storm's root has one name for all storms: a series that comes and goes with each id would be a new one."""
    if STORM_PREFIX not in path:  # nearly every path, at every poll
        return path
    directory, name = posixpath.split(path)
    return posixpath.join(directory, STORM) if name.startswith(STORM_PREFIX) else path


def _has_gaps(columns: Mapping[str, Column]) -> bool:
    return all(None in column for column in columns.values())


def _has_figure(index: int, columns: Mapping[str, Column]) -> bool:
    return any(column[index] is not None for column in columns.values())


def _sizes(columns: Mapping[str, Column], count: int) -> list[int]:
    sizes = columns.get("kernel_bytes") or columns.get("memory_bytes")
    return [int(size or 0) for size in sizes] if sizes else [0] * count


def _with_other(name: str, paths: Sequence[str], column: Column, kept: frozenset[str]) -> Column:
    own = [value for path, value in zip(paths, column, strict=True) if path in kept]
    rest = [int(value) for path, value in zip(paths, column, strict=True) if path not in kept and value is not None]
    return [*own, str(sum(rest)) if name in _SUMMED and rest else None]


def _unpopulated_kernel_bytes(paths: Sequence[str], columns: Mapping[str, Column], alone: frozenset[str]) -> int | None:
    """Kernel memory of cgroups without any task in or below them; each byte once.

    A cgroup's figure has its descendants' in it, but not where it is ``alone``.
    """
    populated, kernel = columns.get("populated"), columns.get("kernel_bytes")
    if populated is None or kernel is None or not any(populated):
        return None
    empty = {path: int(size or 0) for path, has, size in zip(paths, populated, kernel, strict=True) if has == "0"}
    whole = empty.keys() - alone
    return sum(size for path, size in empty.items() if whole.isdisjoint(_ancestors(path)))


def _ancestors(path: str) -> Iterator[str]:
    while path != "/":
        yield (path := posixpath.dirname(path))
