"""The kernel's families as exposition text, made from columns.

A label's prefix (``slabwatch_slab_objects{cache="dentry"} ``) is made once and kept while the column of names stays
the same; the numbers arrive as text and leave as text. A family's lines are kept in pieces of a few rows, and only
pieces with a changed number are written again. That is all that is kept: a page is its pieces, joined.
What has no value has no series, and a family without series has no ``# HELP`` and ``# TYPE`` either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from slabwatch.expose.cache_selection import CacheSelection, ShownCaches
from slabwatch.expose.metrics import KERNEL_METRICS, PREFIX, meminfo_metric
from slabwatch.kernel.meminfo import MemInfo
from slabwatch.kernel.slabinfo import SlabInfo
from slabwatch.kernel.text import changed
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import CGROUP_COLUMNS, CacheInfo, CgroupSlabs, Sample

_HEADS = {
    openmetrics: {metric.name: metric.head(openmetrics=openmetrics).encode() for metric in KERNEL_METRICS}
    for openmetrics in (False, True)
}
_ROWS = 32  # in a piece

# A family's name and the pieces of its lines.
Family = tuple[str, Sequence[bytes]]


class KernelPage:
    """Renders samples. Remembers prefixes and texts from one poll to the next, and the collectors' history.

    Not for use by several threads at once.
    """

    def __init__(self, selection: CacheSelection | None = None) -> None:
        self._selection = selection or CacheSelection()
        self._shown: tuple[Sample, ShownCaches] | None = None
        self._families: dict[str, _Family] = {}
        self._caches = _Labels("cache")
        self._expected_caches = _Labels("cache")
        self._cgroups = _Labels("cgroup")
        self._collector_names = _Labels("collector")
        self._meminfo = _MeminfoBlock()
        self._slab_sysfs: tuple[CacheInfo, ...] = ()
        self._slab_info = b""
        self._last_success: dict[str, float] = {}
        self._skipped: Counter[tuple[str, str]] = Counter()

    def select(self, selection: CacheSelection) -> None:
        """Other caches are to be shown, from the next sample on."""
        self._selection = selection

    def observe(self, sample: Sample) -> None:
        """Takes a sample into the collectors' history. Call it once a sample, before it is rendered."""
        for run in sample.collectors:
            if run.success and not run.reused:
                self._last_success[run.name] = sample.unix_seconds
            for reason, count in run.skipped.items():
                self._skipped[run.name, reason] += count

    def render(self, sample: Sample, derived: Derived, *, openmetrics: bool) -> bytes:
        """The sample's families in the text format or in OpenMetrics, without the latter's ``# EOF``."""
        return b"".join(chain.from_iterable(self.families(sample, derived, openmetrics=openmetrics)))

    def families(self, sample: Sample, derived: Derived, *, openmetrics: bool) -> Iterator[Sequence[bytes]]:
        """The same, family by family: the pieces of each."""
        heads = _HEADS[openmetrics]
        for name, pieces in self._slab(sample, derived):
            yield heads[name], *pieces
        if sample.meminfo is not None:
            yield (self._meminfo.text(sample.meminfo).encode(),)
        for families in (self._host(sample), self._cgroup(sample), self._collectors(sample)):
            for name, pieces in families:
                yield heads[name], *pieces

    def render_stale(self, sample: Sample, *, openmetrics: bool) -> bytes:
        """What can still be said when ``sample`` is too old: no collector succeeds, and when each last did."""
        heads = _HEADS[openmetrics]
        names = tuple([run.name for run in sample.collectors])
        labels = self._collector_names.of(names)
        success = self._column("collector_success", labels, [0] * len(names))
        families = (*success, *self._last_successes(names, labels))
        return b"".join([heads[name] + b"".join(pieces) for name, pieces in families])

    def _slab(self, sample: Sample, derived: Derived) -> Iterator[Family]:
        slabinfo = sample.slabinfo
        if slabinfo is not None:
            shown = self._shown_of(sample, slabinfo, derived)
            labels = self._caches.of(shown.names)
            for column, values in shown.columns.items():
                yield from self._column(f"slab_{column}", labels, values)
            expected = {name: count for name, count in derived.expected_objects.items() if name in shown.names}
            labels = self._expected_caches.of(tuple(expected))
            yield from self._column("slab_expected_objects", labels, tuple(expected.values()))
        yield from _single("slab_unattributed_bytes", derived.unattributed_bytes)
        if sample.slab_sysfs:
            if sample.slab_sysfs != self._slab_sysfs:
                self._slab_info = "".join(map(_slab_info, sample.slab_sysfs)).encode()
                self._slab_sysfs = sample.slab_sysfs
            yield "slab_info", (self._slab_info,)

    def _shown_of(self, sample: Sample, slabinfo: SlabInfo, derived: Derived) -> ShownCaches:
        """Chosen once a sample, however many formats are rendered: the choice has a memory."""
        if self._shown is None or self._shown[0] is not sample:
            self._shown = sample, self._selection.of(slabinfo, derived.cache_bytes)
        return self._shown[1]

    def _host(self, sample: Sample) -> Iterator[Family]:
        if sample.process is not None:
            yield from _single("processes", sample.process.processes)
            yield from _single("threads", sample.process.threads)
            yield from _single("forks_total", sample.process.forks)

    def _cgroup(self, sample: Sample) -> Iterator[Family]:
        cgroups = sample.cgroups
        if cgroups is None:
            return
        labels = self._cgroups.of(cgroups.paths)
        for column in CGROUP_COLUMNS:
            if column in cgroups.columns:
                yield from self._column(f"cgroup_{column}", labels, cgroups.columns[column])
        yield from _single("cgroups", cgroups.visible)
        yield from _single("cgroups_dying", cgroups.dying)
        yield from _single("cgroups_unpopulated_kernel_bytes", cgroups.unpopulated_kernel_bytes)
        yield from _single("cgroups_omitted", cgroups.omitted)
        yield from _single("cgroup_kept_descriptors", cgroups.kept_descriptors)

        if sample.cgroup_slabs:
            for column in ("active_objects", "objects"):
                text = "".join(_cgroup_slabs(sample.cgroup_slabs, labels, column))
                if text:
                    yield f"cgroup_slab_{column}", (text.encode(),)

    def _collectors(self, sample: Sample) -> Iterator[Family]:
        runs = sample.collectors
        names = tuple([run.name for run in runs])
        labels = self._collector_names.of(names)
        yield from self._column("collector_success", labels, [int(run.success) for run in runs])
        durations = [repr(float(run.duration_seconds)) for run in runs]
        yield from self._column("collector_duration_seconds", labels, durations)
        yield from self._column("collector_backoff_seconds", labels, [repr(run.backoff_seconds) for run in runs])
        yield from self._last_successes(names, labels)
        skipped = [
            f'{PREFIX}collector_skipped_total{{collector="{escape(name)}",reason="{escape(reason)}"}} {count}\n'
            for (name, reason), count in self._skipped.items()
            if name in names  # not those of one that a reload has turned off
        ]
        if skipped:
            yield "collector_skipped_total", ("".join(skipped).encode(),)

    def _last_successes(self, names: Iterable[str], labels: tuple[str, ...]) -> Iterator[Family]:
        last = [repr(float(self._last_success[name])) if name in self._last_success else None for name in names]
        yield from self._column("collector_last_success_timestamp_seconds", labels, last)

    def _column(self, name: str, labels: tuple[str, ...], values: Sequence[str | int | None]) -> Iterator[Family]:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = _Family(name)
        pieces = family.pieces(labels, values)
        if any(pieces):
            yield name, pieces


class _Labels:
    """Label parts (``{cache="dentry"} ``) of a column of names; the same tuple object while the names are equal."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._names: tuple[str, ...] = ()
        self._parts: tuple[str, ...] = ()

    def of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if names != self._names:
            self._names = names
            values = _distinct([escape(name) for name in names], "#")
            self._parts = tuple(f'{{{self._label}="{value}"}} ' for value in values)
        return self._parts


class _Family:
    """The lines of one family with one label, in pieces. Only those with a changed number are written again."""

    def __init__(self, name: str) -> None:
        self._name = PREFIX + name
        self._labels: tuple[str, ...] = ()
        self._values: Sequence[str | int | None] = ()
        self._pieces: list[bytes] = []

    def pieces(self, labels: tuple[str, ...], values: Sequence[str | int | None]) -> list[bytes]:
        if values is self._values and labels is self._labels:
            return self._pieces
        places = changed(values, self._values) if labels is self._labels else None
        if places is None:
            self._pieces = [self._piece(labels, values, start) for start in range(0, len(labels), _ROWS)]
        else:
            for piece in {place // _ROWS for place in places}:
                self._pieces[piece] = self._piece(labels, values, piece * _ROWS)
        self._labels, self._values = labels, values
        return self._pieces

    def _piece(self, labels: tuple[str, ...], values: Sequence[str | int | None], start: int) -> bytes:
        rows = zip(labels[start : start + _ROWS], values[start : start + _ROWS], strict=True)
        lines = [f"{label}{value}\n" for label, value in rows if value is not None]
        return f"{self._name}{self._name.join(lines)}".encode() if lines else b""


class _MeminfoBlock:
    """All families of /proc/meminfo: one text with gaps for the numbers, kept while the keys stay the same."""

    def __init__(self) -> None:
        self._keys: tuple[str, ...] = ()
        self._counts: frozenset[str] = frozenset()
        self._values: tuple[int, ...] = ()
        # Prefix, number, prefix, number, ..., newline: a number is replaced in place, then all is joined.
        self._pieces: list[str] = []

    def text(self, meminfo: MemInfo) -> str:
        keys, values = tuple(meminfo.values), tuple(meminfo.values.values())
        if keys != self._keys or meminfo.counts != self._counts:
            self._keys, self._counts, self._values = keys, meminfo.counts, ()
            self._pieces = [""] * (2 * len(keys))
            self._pieces[::2] = _meminfo_prefixes(keys, meminfo.counts)
            self._pieces.append("\n")
        if not keys:
            return ""
        places = changed(values, self._values)
        for place in range(len(values)) if places is None else places:
            self._pieces[2 * place + 1] = str(values[place])
        self._values = values
        return "".join(self._pieces)


def _meminfo_prefixes(keys: Sequence[str], counts: frozenset[str]) -> list[str]:
    metrics = [meminfo_metric(key, unitless=key in counts) for key in keys]
    # All are gauges: their HELP and TYPE lines are the same in both formats but for quotes in HELP, which
    # only a key of unheard-of form could bring in.
    names = _distinct([metric.name for metric in metrics], "_")
    prefixes = []
    for metric, name in zip(metrics, names, strict=True):
        named = replace(metric, name=name, help=metric.help.replace('"', "'"))
        prefixes.append(f"\n{named.head(openmetrics=False)}{named.full_name} ")
    if prefixes:
        prefixes[0] = prefixes[0][1:]
    return prefixes


def _slab_info(cache: CacheInfo) -> str:
    labels = {
        "cache": cache.name,
        "aliases": ",".join(cache.aliases),
        "reclaimable": _flag(cache.reclaimable),
        "accounted": _flag(cache.accounted),
    }
    shown = ",".join(f'{label}="{escape(value)}"' for label, value in labels.items())
    return f"{PREFIX}slab_info{{{shown}}} 1\n"


def _cgroup_slabs(parts: Iterable[CgroupSlabs], labels: Sequence[str], column: str) -> Iterator[str]:
    """The caches of which the cgroup has any object; for most it has none."""
    for part in parts:
        info = part.slabinfo
        for cache, value, objects in zip(info.names, getattr(info, column), info.objects, strict=True):
            if objects != "0":
                # The cgroup's label part as all families have it, with one more label in it.
                both = f'{labels[part.row].removesuffix("} ")},cache="{escape(cache)}"}}'
                yield f"{PREFIX}cgroup_slab_{column}{both} {value}\n"


def _flag(value: bool | None) -> str:
    return "" if value is None else str(value).lower()


def _single(name: str, value: int | None) -> Iterator[Family]:
    if value is not None:
        yield name, (f"{PREFIX}{name} {value}\n".encode(),)


def escape(value: str) -> str:
    """A label's value as it stands between quotes, in both formats."""
    # A lone surrogate can not be encoded: it is spelled out, as the parsers do with bytes that are not UTF-8.
    value = value.encode("utf-8", "backslashreplace").decode()
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _distinct(values: Sequence[str], separator: str) -> Sequence[str]:
    """The values, each later double with a number: two series of one name would cost the whole scrape.

    Doubles come about where different bytes are spelled alike, such as a cgroup named by the byte ff and one
    named by the four characters ``\\xff``.
    """
    if len(set(values)) == len(values):
        return values
    taken = set(values)
    used: Counter[str] = Counter()
    result = []
    for value in values:
        used[value] += 1
        chosen = value
        while used[value] > 1 and chosen in taken:
            chosen = f"{value}{separator}{used[value]}"
            used[value] += chosen in taken
        taken.add(chosen)
        result.append(chosen)
    return result
