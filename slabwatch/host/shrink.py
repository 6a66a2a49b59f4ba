"""Writing 1 to /sys/kernel/slab/<cache>/shrink: the kernel frees its empty and nearly empty slabs.

Needs root or CAP_DAC_OVERRIDE. Links are followed to the real cache, so that each is shrunk once. Measured before and
after with slabinfo and meminfo.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slabwatch.errors import KernelParseError, SourceDenied, SourceUnavailable, StormRejected
from slabwatch.host.root import KernelRoot, unavailable
from slabwatch.host.slab_sysfs import DIRECTORY, cache_directories


@dataclass(frozen=True, slots=True)
class CacheShrunk:
    """Bytes of one cache before and after; None where slabinfo does not show it. ``error`` is "" when it went well."""

    cache: str
    before_bytes: int | None
    after_bytes: int | None
    released_bytes: int | None
    error: str


@dataclass(frozen=True, slots=True)
class ShrinkResult:
    """What a shrink gave back, by cache and for the whole host (whose other work goes on meanwhile)."""

    caches: tuple[CacheShrunk, ...]
    slab_before_bytes: int | None
    slab_after_bytes: int | None
    sunreclaim_before_bytes: int | None
    sunreclaim_after_bytes: int | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For the control API."""
        return asdict(self)


def can_shrink(root: KernelRoot) -> None:
    """Raises SourceUnavailable (no SLUB sysfs) or SourceDenied (no right), and else does nothing."""
    # Any of them will do, and a cache may have gone since it was listed.
    paths = [f"{DIRECTORY}/{directory}/shrink" for directory in cache_directories(root)]
    path = next(filter(root.exists, paths), None)
    if path is None:
        raise SourceUnavailable(paths[0], "this kernel has no shrink file: it was built without SLUB_DEBUG")
    if not root.can_write(path):
        raise SourceDenied(path, "writing needs root or CAP_DAC_OVERRIDE")


def shrink(root: KernelRoot, caches: Sequence[str] = ()) -> ShrinkResult:
    """Shrink the named caches (none: all). Blocking. Raises SourceUnavailable, SourceDenied, StormRejected."""
    can_shrink(root)
    directories = cache_directories(root)
    target_of = {name: target for target, links in directories.items() for name in (target, *links)}
    unknown = [cache for cache in caches if cache not in target_of]
    if unknown:
        raise StormRejected("unknown_cache", f"no such cache: {', '.join(unknown)}. `slabwatchctl top` lists them")
    targets = sorted({target_of[cache] for cache in caches} if caches else directories)
    before, slab_before, sunreclaim_before = _sizes(root)
    started = time.perf_counter()
    errors = {target: error for target in targets if (error := _shrink_one(root, target))}
    seconds = time.perf_counter() - started
    after, slab_after, sunreclaim_after = _sizes(root)
    rows: list[CacheShrunk] = []
    for target in targets:
        shown = [name for name in (target, *directories[target]) if name in before or name in after]
        name = shown[0] if shown else target
        was, now = before.get(name), after.get(name)
        released = was - now if was is not None and now is not None else None
        rows.append(CacheShrunk(name, was, now, released, errors.get(target, "")))
    rows.sort(key=lambda row: (-(row.released_bytes or 0), row.cache))
    return ShrinkResult(tuple(rows), slab_before, slab_after, sunreclaim_before, sunreclaim_after, seconds)


def _shrink_one(root: KernelRoot, directory: str) -> str:
    path = f"{DIRECTORY}/{directory}/shrink"
    try:
        descriptor = os.open(root.path(path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"1")
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return ""  # the cache has gone meanwhile
    except OSError as error:
        return str(unavailable(path, error))
    return ""


def _sizes(root: KernelRoot) -> tuple[dict[str, int], int | None, int | None]:
    sizes: dict[str, int] = {}
    slab = sunreclaim = None
    try:
        slabinfo = root.read_slabinfo()
        sizes = dict(zip(slabinfo.names, slabinfo.size_bytes(root.page_size), strict=True))
    except (SourceUnavailable, KernelParseError):
        pass  # shrinking does not need to be seen to work
    try:
        meminfo = root.read_meminfo()
        slab, sunreclaim = meminfo.get("Slab"), meminfo.get("SUnreclaim")
    except (SourceUnavailable, KernelParseError):
        pass
    return sizes, slab, sunreclaim
