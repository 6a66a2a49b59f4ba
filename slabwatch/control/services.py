"""What the control server may touch of the daemon, and nothing else.

Protocols, so that this room does not import the classes behind them and a test can put its own in place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slabwatch.config import Config
from slabwatch.control.audit import AuditLog
from slabwatch.control.lock import MaintenanceSwitch
from slabwatch.storm.plan import Plan
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample


class Samples(Protocol):
    """The sampler: its newest sample, and the first good one, against which growth is counted."""

    @property
    def latest(self) -> Sample | None: ...
    @property
    def derived(self) -> Derived | None: ...
    @property
    def first(self) -> Sample | None: ...
    @property
    def first_derived(self) -> Derived | None: ...
    @property
    def interval_seconds(self) -> float: ...
    @property
    def polls(self) -> int: ...
    @property
    def overruns(self) -> int: ...


class Events(Protocol):
    """A storm's events, from the first one; the iteration ends after the "end" event."""

    def follow(self, start: int = 0) -> AsyncIterator[dict[str, Any]]: ...


class Storm(Protocol):
    """A storm that runs, or the last one that ended."""

    @property
    def id(self) -> str: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def phase(self) -> str | None: ...
    @property
    def requested_by(self) -> str: ...
    @property
    def started_at(self) -> float: ...
    @property
    def outcome(self) -> str | None: ...
    @property
    def events(self) -> Events: ...


class Storms(Protocol):
    """The registry of storms. ``start`` and ``forecast`` raise StormRejected; ``record`` reads a file, so it blocks.

    What ``start`` gives besides the storm: whether the same key had been used for it before.
    """

    @property
    def running(self) -> Storm | None: ...
    @property
    def leftover_cgroups(self) -> int: ...
    @property
    def recovering(self) -> str: ...

    async def start(
        self, wishes: Mapping[str, Any], *, requested_by: str, idempotency_key: str | None
    ) -> tuple[Storm, bool]: ...
    async def forecast(self, wishes: Mapping[str, Any]) -> dict[str, Any]: ...
    def find(self, storm_id: str) -> Storm | None: ...
    def summaries(self) -> list[dict[str, Any]]: ...
    def record(self, storm_id: str) -> dict[str, Any] | None: ...
    def request_stop(self, storm_id: str | None, reason: str) -> Storm | None: ...


class ShrinkOutcome(Protocol):
    def as_dict(self) -> dict[str, Any]: ...


class Shrinks(Protocol):
    """Raises SourceUnavailable or SourceDenied, and StormRejected("unknown_cache")."""

    async def shrink(self, caches: Sequence[str]) -> ShrinkOutcome: ...


@dataclass(frozen=True, slots=True)
class Services:
    """The daemon, as the control server sees it.

    ``examine`` blocks and is called in a thread. ``reload`` gives the keys whose new values need a restart; it raises
    ConfigError and then leaves everything as it was.
    ``facts`` gives state, started_at, metrics_url, remote_url ("": off), socket and kernel.
    """

    config: Callable[[], Config]
    sampler: Samples
    storms: Storms
    shrinker: Shrinks
    examine: Callable[[], list[dict[str, Any]]]
    reload: Callable[[], Awaitable[list[str]]]
    facts: Callable[[], dict[str, Any]]
    audit: AuditLog
    switch: MaintenanceSwitch
