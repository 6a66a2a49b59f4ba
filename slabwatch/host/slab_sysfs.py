"""/sys/kernel/slab: which names share one cache, and the flags that do not change while a cache lives.

Kernel document: ABI/testing/sysfs-kernel-slab. Merged caches are links to one directory, whose own name may be one
like ``:A-0000192``. The files that cost the kernel a walk of its lists (``objects``, ``partial``...) are never
read here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from slabwatch.errors import KernelParseError, SourceUnavailable
from slabwatch.host.root import KernelRoot, unavailable
from slabwatch.kernel.slab_attributes import parse_attribute

DIRECTORY = "/sys/kernel/slab"
# create_unique_id() in mm/slub.c writes the flags that keep caches apart between ":" and "-": A is SLAB_ACCOUNT.
_UNIQUE_ID = re.compile(r":([A-Za-z]*)-?\d+\Z")
_LIST_EVERY = 60  # polls: listing takes 85 us


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """One cache: the name that slabinfo has, the other names that share it, and its flags (None: not told)."""

    name: str
    aliases: tuple[str, ...]
    reclaimable: bool | None
    accounted: bool | None


class SlabSysfs:
    """Reads the directory again only when the set of caches or of their names has changed."""

    def __init__(self, root: KernelRoot) -> None:
        self._root = root
        self._polls = 0
        self._listing: frozenset[str] = frozenset()
        self._seen: tuple[object, ...] = ()
        self._caches: tuple[CacheInfo, ...] = ()

    def caches(self, names: tuple[str, ...]) -> tuple[CacheInfo, ...]:
        """All caches, for the names that slabinfo shows now. Raises SourceUnavailable."""
        directory = self._root.path(DIRECTORY)
        try:
            if self._polls % _LIST_EVERY == 0:
                self._listing = frozenset(os.listdir(directory))
            # 2 and the number of caches. slabinfo may be off, and an alias changes neither.
            seen = names, os.stat(directory).st_nlink, self._listing
        except OSError as error:
            raise unavailable(DIRECTORY, error) from error
        self._polls += 1
        if seen != self._seen:
            self._caches = self._read(frozenset(names))
            self._seen = seen
        return self._caches

    def _read(self, shown: frozenset[str]) -> tuple[CacheInfo, ...]:
        return tuple(
            self._cache(directory, aliases, shown)
            for directory, aliases in sorted(cache_directories(self._root).items())
        )

    def _cache(self, directory: str, links: list[str], shown: frozenset[str]) -> CacheInfo:
        names = sorted([*links, *([] if directory.startswith(":") else [directory])]) or [directory]
        name = next((name for name in names if name in shown), names[0])
        unique = _UNIQUE_ID.match(directory)
        return CacheInfo(
            name=name,
            aliases=tuple(other for other in names if other != name),
            reclaimable=self._flag(directory, "reclaim_account"),
            accounted="A" in unique[1] if unique else None,
        )

    def _flag(self, directory: str, attribute: str) -> bool | None:
        path = f"{DIRECTORY}/{directory}/{attribute}"
        try:
            return parse_attribute(self._root.read(path), path) != 0
        except (SourceUnavailable, KernelParseError):
            return None


def cache_directories(root: KernelRoot) -> dict[str, list[str]]:
    """Real caches (directories) with the names that link to them. Raises SourceUnavailable, e.g. without SLUB."""
    found: dict[str, list[str]] = {}
    try:
        with os.scandir(root.path(DIRECTORY)) as entries:
            for entry in entries:
                if entry.is_symlink():
                    target = os.path.basename(os.readlink(entry.path))
                    found.setdefault(target, []).append(entry.name)
                elif entry.is_dir():
                    found.setdefault(entry.name, [])
    except OSError as error:
        raise unavailable(DIRECTORY, error) from error
    if not found:
        raise SourceUnavailable(DIRECTORY, "is empty: the kernel was built without SLUB_DEBUG or sysfs for slabs")
    return found
