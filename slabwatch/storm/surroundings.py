"""What a storm needs from the daemon around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from slabwatch.host.root import KernelRoot
from slabwatch.host.shrink import ShrinkResult
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample

if TYPE_CHECKING:
    from slabwatch.storm.runner import StormRun


class Measure(Protocol):
    """Gives a fresh sample (``Sampler.measure``)."""

    async def __call__(self) -> tuple[Sample, Derived]: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """``host``: the record's ``host``; ``reclaimable``: flags that sysfs told."""

    root: KernelRoot
    measure: Measure
    shrink: Callable[[], Awaitable[ShrinkResult]]
    host: Mapping[str, Any]
    reclaimable: Mapping[str, bool]
    min_available_bytes: int
    on_progress: Callable[[StormRun], None]
