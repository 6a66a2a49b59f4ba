"""How much is tried: a minute or two in CI, and as much as SLABWATCH_FUZZ says with `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# Multiplies the number of examples of each test.
EFFORT = int(os.environ.get("SLABWATCH_FUZZ", "1"))
_NO_EXPLANATION = [phase for phase in Phase if phase is not Phase.explain]


def tries(count: int) -> settings:
    """So many examples, times the effort; not the same ones each time, beyond those that once failed."""
    return settings(
        max_examples=count * EFFORT,
        deadline=None,
        phases=_NO_EXPLANATION,
        suppress_health_check=list(HealthCheck),
    )
