"""What a request to the control API may hold: checked here, before anything else sees it.

Only the form is judged here (names, types, sizes). Whether a storm makes sense, and whether the configuration
allows it, is ``storm.plan``'s to say.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta
from msgspec.structs import asdict

from slabwatch.form import Form, whole
from slabwatch.storm.plan import Kind

# Control characters have no place in log lines and messages.
_ONE_LINE = whole(r"[^\x00-\x1f\x7f]+", "a text without control characters")
Word = Annotated[str, _ONE_LINE, Meta(min_length=1, max_length=128)]


class Request(Form, frozen=True):
    """Base of all of them."""


class StormRequest(Request, frozen=True):
    """``POST /v1/storms``. What is left out is taken from the preset."""

    preset: Word | None = None
    cgroups: int | None = None
    tasks: int | None = None
    kind: Kind | None = None
    concurrency: int | None = None
    live_tasks: int | None = None
    hold_seconds: float | None = None
    settle_seconds: float | None = None
    shrink: bool | None = None
    pressure: bool | None = None
    ttl_seconds: float | None = None
    on_disconnect: Literal["continue", "stop"] | None = None
    dry_run: bool = False

    def wishes(self) -> dict[str, Any]:
        """What was asked for, for ``storm.plan.make_plan``."""
        return {name: value for name, value in asdict(self).items() if value is not None and name != "dry_run"}


class StopRequest(Request, frozen=True):
    """``POST /v1/storms/{id}/stop``."""

    reason: Word | None = None


class ShrinkRequest(Request, frozen=True):
    """``POST /v1/shrink``. No name: every cache."""

    caches: Annotated[tuple[Word, ...], Meta(max_length=1000)] = ()


class LockRequest(Request, frozen=True):
    """``POST /v1/lock``; ``stop`` ends the running storm too."""

    reason: Annotated[str, _ONE_LINE, Meta(min_length=1, max_length=500)]
    stop: bool = False


class UnlockRequest(Request, frozen=True):
    """``POST /v1/unlock``: nothing to choose."""


class ReloadRequest(Request, frozen=True):
    """``POST /v1/reload``: nothing to choose."""
