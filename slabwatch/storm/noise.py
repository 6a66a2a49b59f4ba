"""How restless the host is by itself: how far its slab memory swings in the baseline, and rises during the settle time.

When the tasks have gone, the storm asks for nothing more: what rises then was asked for by somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample


@dataclass(slots=True)
class _Range:
    """Of one figure: its lowest and highest value, and how far it rose from the lowest before."""

    low: int
    high: int
    rise: int = 0

    def add(self, value: int) -> None:
        self.low = min(self.low, value)
        self.high = max(self.high, value)
        self.rise = max(self.rise, value - self.low)


@dataclass(slots=True)
class Noise:
    """Of one phase: by cache in bytes, and of SUnreclaim. Keeps no sample."""

    caches: dict[str, _Range] = field(default_factory=dict)
    sunreclaim: _Range | None = None

    def add(self, sample: Sample, derived: Derived) -> None:
        """One more moment of the phase."""
        if sample.slabinfo:
            for name, size in zip(sample.slabinfo.names, derived.cache_bytes, strict=True):
                self.caches.setdefault(name, _Range(size, size)).add(size)
        if sample.meminfo and (value := sample.meminfo.get("SUnreclaim")) is not None:
            if self.sunreclaim is None:
                self.sunreclaim = _Range(value, value)
            self.sunreclaim.add(value)

    def swings(self) -> tuple[dict[str, int], int]:
        """From the lowest to the highest value: by cache where it is not 0, and of SUnreclaim."""
        by_cache = {name: span.high - span.low for name, span in self.caches.items() if span.high > span.low}
        return by_cache, self.sunreclaim.high - self.sunreclaim.low if self.sunreclaim else 0

    def rises(self) -> tuple[dict[str, int], int]:
        """The same, of what rose alone: a host that gives memory back is not restless."""
        by_cache = {name: span.rise for name, span in self.caches.items() if span.rise}
        return by_cache, self.sunreclaim.rise if self.sunreclaim else 0


def louder(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """For each cache the larger of the two."""
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one | other}
