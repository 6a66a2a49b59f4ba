"""What a request to the control API may hold: checked here, before anything else sees it.

Only the form is judged here (names, types, sizes). Whether a storm makes sense, and whether the configuration
allows it, is ``storm.plan``'s to say.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from slabwatch.storm.plan import Kind

# A word that fits into a log line and a message.
Word = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StormRequest(Request):
    """``POST /v1/storms``. What is left out is taken from the preset."""

    preset: Word | None = None
    cgroups: int | None = None
    tasks: int | None = None
    kind: Kind | None = None
    concurrency: int | None = None
    live_tasks: int | None = None
    hold_seconds: Seconds | None = None
    settle_seconds: Seconds | None = None
    shrink: bool | None = None
    pressure: bool | None = None
    ttl_seconds: Seconds | None = None
    on_disconnect: Literal["continue", "stop"] | None = None
    dry_run: bool = False

    def wishes(self) -> dict[str, Any]:
        """What was asked for, for ``storm.plan.make_plan``."""
        return self.model_dump(exclude={"dry_run"}, exclude_none=True)


class StopRequest(Request):
    """``POST /v1/storms/{id}/stop``."""

    reason: Word | None = None


class ShrinkRequest(Request):
    """``POST /v1/shrink``. No name: every cache."""

    caches: Annotated[list[Word], Field(max_length=1000)] = []


class LockRequest(Request):
    """``POST /v1/lock``; ``stop`` ends the running storm too."""

    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
    stop: bool = False


class UnlockRequest(Request):
    """``POST /v1/unlock``: nothing to choose."""


class ReloadRequest(Request):
    """``POST /v1/reload``: nothing to choose."""
