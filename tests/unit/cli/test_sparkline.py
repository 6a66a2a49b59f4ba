"""A curve in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.cli.sparkline import BLOCKS, sparkline


@pytest.mark.parametrize(
    ("values", "width", "least", "expected"),
    [
        ([], 9, 0, ""),
        ([1], 0, 0, ""),
        ([1], -3, 0, ""),
        ([5], 9, 0, "▁"),
        ([5, 5, 5], 9, 0, "▁▁▁"),
        ([0, 7], 9, 0, "▁█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 9, 0, BLOCKS),
        ([7, 0, 7], 9, 14, "▅▁▅"),  # half of the height
        ([0, 9, 0, 0, 0, 3], 3, 0, "█▁▃"),  # no peak is lost
        ([0, 9, 0, 0, 0], 2, 0, "█▁"),
    ],
)
def test_a_curve(values: list[float], width: int, least: float, expected: str) -> None:
    assert sparkline(values, width, least) == expected


@given(st.lists(st.integers(0, 2**50), min_size=1), st.integers(1, 80))
def test_it_fits_and_has_the_peak(values: list[int], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set(BLOCKS)
    assert "▁" in line
    peak = len(line) * values.index(max(values)) // len(values)
    assert max(line) in line[max(0, peak - 1) : peak + 2]
