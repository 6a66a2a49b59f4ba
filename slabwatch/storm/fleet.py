"""The last storm of each of many hosts, by kernel release. Pure.

Storms are put together only where what decides about their size is the same; others stand apart.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from slabwatch.storm.compare import deciding


@dataclass(frozen=True, slots=True)
class HostStorm:
    """What is needed of one host's record. ``retained_bytes`` is None where the storm did not come so far."""

    host: str
    release: str
    plan: Mapping[str, Any]
    outcome: str
    verdict: str
    retained_bytes: int | None


@dataclass(frozen=True, slots=True)
class Spread:
    """Median (of an even number: the mean of the two in the middle), least and most."""

    median: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Release:
    """All hosts with one kernel release."""

    release: str
    hosts: tuple[str, ...]
    verdicts: Mapping[str, int]
    retained_bytes: Spread | None


@dataclass(frozen=True, slots=True)
class Group:
    """All storms of one plan; ``plan`` is what decides."""

    plan: Mapping[str, Any]
    releases: tuple[Release, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def host_storm(host: str, record: Mapping[str, Any]) -> HostStorm:
    """From a finished storm's record."""
    verdict = record["verdict"] or {}
    return HostStorm(
        host=host,
        release=record["host"]["release"],
        plan=deciding(record["plan"]),
        outcome=record["outcome"],
        verdict=verdict.get("class", "inconclusive"),
        retained_bytes=verdict.get("retained_bytes"),
    )


def grouped(storms: Iterable[HostStorm]) -> tuple[Group, ...]:
    """By plan, then by release; the largest groups first."""
    plans: list[tuple[Mapping[str, Any], list[HostStorm]]] = []
    for storm in storms:
        group = next((known for plan, known in plans if plan == storm.plan), None)
        if group is None:
            plans.append((storm.plan, group := []))
        group.append(storm)
    plans.sort(key=lambda entry: -len(entry[1]))
    return tuple(Group(plan, tuple(_releases(group))) for plan, group in plans)


def _releases(storms: Iterable[HostStorm]) -> Iterable[Release]:
    by_release: dict[str, list[HostStorm]] = {}
    for storm in storms:
        by_release.setdefault(storm.release, []).append(storm)
    for release, group in sorted(by_release.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        verdicts = Counter(storm.verdict for storm in group)
        yield Release(release, tuple(storm.host for storm in group), dict(verdicts.most_common()), _spread(group))


def _spread(storms: Iterable[HostStorm]) -> Spread | None:
    sizes = [storm.retained_bytes for storm in storms if storm.retained_bytes is not None]
    return Spread(round(statistics.median(sizes)), min(sizes), max(sizes)) if sizes else None
