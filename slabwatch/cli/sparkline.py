"""A curve in one line of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int, least_span: float = 0) -> str:
    """At most ``width`` blocks, the lowest value the lowest; of more values than that the highest of each part.

    Less than ``least_span`` from the lowest value to the highest does not fill the line's height.
    """
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    parts = [values[len(values) * part // count : len(values) * (part + 1) // count] for part in range(count)]
    tops = [max(part) for part in parts]
    low = min(tops)
    span = max(max(tops) - low, least_span) or 1
    return "".join(BLOCKS[int((top - low) / span * (len(BLOCKS) - 1) + 0.5)] for top in tops)
