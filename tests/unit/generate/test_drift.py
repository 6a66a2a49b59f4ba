"""What is committed is what ``make docs`` would write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.generate.everything import everything

PROJECT = Path(__file__).parent.parent.parent.parent
MADE = everything(PROJECT)


@pytest.mark.parametrize("path", MADE)
def test_the_file_is_as_its_sources_say(path: str) -> None:
    target = PROJECT / path
    assert target.exists(), f"{path} is missing: run make docs"
    assert target.read_text(encoding="utf-8") == MADE[path], f"{path} is old: run make docs"


def test_nothing_is_left_of_what_is_no_longer_made() -> None:
    for directory in {str(Path(path).parent) for path in MADE if Path(path).parent.name in ("man", "made")}:
        assert {str(path.relative_to(PROJECT)) for path in (PROJECT / directory).iterdir()} <= set(MADE)
