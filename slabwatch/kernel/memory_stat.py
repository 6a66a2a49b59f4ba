"""memory.stat of a memory cgroup: its memory by use.

Kernel document: Documentation/admin-guide/cgroup-v2.rst ("memory.stat"), cgroup-v1/memory.rst. A sample (v2)::

    kernel 204800
    kernel_stack 0
    slab_reclaimable 50264
    slab_unreclaimable 151152
    slab 201416

Drift: v1 has no field for slab or kernel memory at all. v2 gained ``vmalloc`` and then ``kernel`` in 5.18 and 5.19.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slabwatch.kernel.flat_keyed import parse_flat_keyed

PATH = "memory.stat"

_PARTS = ("slab", "kernel_stack", "pagetables", "percpu", "sock", "vmalloc")


def parse_memory_stat(data: bytes) -> dict[str, str]:
    """All keys with their values as decimal text (bytes, or events for counters). Raises KernelParseError."""
    return parse_flat_keyed(data, PATH)


def kernel_bytes(stat: Mapping[str, str]) -> int | None:
    """The kernel memory charged to this cgroup, None where the file does not tell (v1).

    Before ``kernel`` was there it is the sum of its parts, as far as this kernel has them, and of the buffers of
    sockets, which ``kernel`` leaves out (mem_cgroup_charge_skmem counts them in MEMCG_SOCK alone).
    """
    if "kernel" in stat:
        return int(stat["kernel"])
    if "slab" not in stat:
        return None
    return sum([int(stat[part]) for part in _PARTS if part in stat])


class StatPicker:
    """Takes a few figures out of many memory.stat files, whose keys stand at the same places on one kernel.

    ``pick`` gives one decimal text a key, None for a key that is not there.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self._seen: list[str] = []  # all keys of the last file, in their order
        self._places: list[int | None] = []

    def pick(self, data: bytes) -> list[str | None]:
        """The figures of one file. Raises KernelParseError."""
        words = data.decode("ascii", "replace").split()
        # The same keys as in the last file: each figure is where it was, and those that were not there are not now.
        if words[::2] == self._seen and len(words) % 2 == 0 and data.endswith(b"\n"):
            values = [None if place is None else words[place] for place in self._places]
            if "".join(filter(None, values)).isdigit():
                return values
        stat = parse_memory_stat(data)
        self._seen = list(stat)
        self._places = [2 * self._seen.index(key) + 1 if key in stat else None for key in self.keys]
        return [stat.get(key) for key in self.keys]
