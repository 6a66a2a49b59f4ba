"""What a test needs from the machine it runs on."""

from __future__ import annotations

import os


def need(condition: bool, what: str) -> None:
    """Skip the test when ``what`` is missing; with SLABWATCH_REQUIRE=all, as CI has it, fail instead."""
    if condition:
        return
    import pytest  # only now: the virtual machines' guests have none

    if os.environ.get("SLABWATCH_REQUIRE") == "all":
        pytest.fail(f"SLABWATCH_REQUIRE=all, and this is missing: {what}")
    pytest.skip(f"needs {what}")
