"""The page that a scrape gets: rendered at most once for each poll and format, compressed at most once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, CONTENT_TYPE_PLAIN_1_0_0, choose_encoder

from slabwatch.expose.cache_selection import CacheSelection
from slabwatch.expose.own import OwnMetrics
from slabwatch.expose.render import KernelPage
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample

try:
    from isal import isal_zlib as zlib
except ImportError:  # there is none for every machine
    import zlib  # type: ignore[no-redef]

_OPENMETRICS = "application/openmetrics-text"
# All names here are plain ones, which "underscores" leaves as they are.
_OPENMETRICS_1_0_0 = f"{_OPENMETRICS}; version=1.0.0; charset=utf-8; escaping=underscores"
_TEXT_1_0_0 = f"{CONTENT_TYPE_PLAIN_1_0_0}; escaping=underscores"

# Prometheus always asks for a compressed page: docs/benchmarks.md has what each way takes.
_GZIP_LEVEL = 1
_GZIP_FORM = 31  # zlib.h, deflateInit2(): the largest window, and gzip's head and tail
_STALE_INTERVALS = 3
_STALE_SECONDS_AT_LEAST = 30.0


class MetricsPage:
    """The last sample, as a page. ``clock`` gives the seconds that ``Sample.monotonic_seconds`` are counted in;
    ``catch_up`` is called before anybody looks, and publishes what was sampled meanwhile.

    Not for use by several threads at once.
    """

    def __init__(
        self,
        own: OwnMetrics,
        clock: Callable[[], float] = time.monotonic,
        selection: CacheSelection | None = None,
        catch_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._own = own
        self._clock = clock
        self._catch_up = catch_up
        self._kernel = KernelPage(selection)
        self._last: tuple[Sample, Derived] | None = None
        # For OpenMetrics and not: the kernel's part, in the pieces that its renderer keeps anyway; and what the daemon
        # itself has to say, which may change between two polls (a reload, a storm).
        self._kernel_pieces: dict[bool, list[Sequence[bytes]]] = {}
        self._own_texts: dict[bool, bytes] = {}
        self._bodies: dict[tuple[bool, bool], bytes] = {}
        self._revision = 0

    def publish(self, sample: Sample, derived: Derived) -> None:
        """Makes this sample the one that is served. Call it once a sample; nothing is rendered until a scrape comes."""
        self._kernel.observe(sample)
        self._last = sample, derived
        self._kernel_pieces.clear()
        self._forget_own()

    def select(self, selection: CacheSelection) -> None:
        """Other caches are to be shown, from the next sample on."""
        self._kernel.select(selection)

    def fresh(self, now_monotonic: float) -> bool:
        """Whether the last sample is young enough to be shown: max(3 x interval, 30 s)."""
        self._catch_up()
        if self._last is None:
            return False
        longest = max(_STALE_INTERVALS * (self._own.interval_seconds or 0.0), _STALE_SECONDS_AT_LEAST)
        return now_monotonic - self._last[0].monotonic_seconds <= longest

    def body(self, accept: str, gzip: bool) -> tuple[bytes, str]:
        """The page, and its content type. ``accept``: the request's header ("" when it has none)."""
        content_type = _content_type(accept)
        openmetrics = content_type.startswith(_OPENMETRICS)
        if not self.fresh(self._clock()):
            return _joined(self._stale(openmetrics), gzip), content_type
        return self._current(openmetrics, gzip), content_type

    def _current(self, openmetrics: bool, gzip: bool) -> bytes:
        if self._revision != self._own.revision:
            self._revision = self._own.revision
            self._forget_own()
        body = self._bodies.get((openmetrics, gzip))
        if body is None:
            body = self._bodies[openmetrics, gzip] = _joined(self._whole(openmetrics), gzip)
        return body

    def _whole(self, openmetrics: bool) -> Iterator[Sequence[bytes]]:
        assert self._last is not None
        kernel = self._kernel_pieces.get(openmetrics)
        if kernel is None:
            kernel = self._kernel_pieces[openmetrics] = [*self._kernel.families(*self._last, openmetrics=openmetrics)]
        yield from kernel
        own = self._own_texts.get(openmetrics)
        if own is None:
            own = self._own_texts[openmetrics] = self._ending(openmetrics)
        yield (own,)

    def _stale(self, openmetrics: bool) -> Iterator[Sequence[bytes]]:
        if self._last:
            yield (self._kernel.render_stale(self._last[0], openmetrics=openmetrics),)
        yield (self._ending(openmetrics),)

    def _ending(self, openmetrics: bool) -> bytes:
        return self._own.render(openmetrics) + (b"# EOF\n" if openmetrics else b"")

    def _forget_own(self) -> None:
        self._own_texts.clear()
        self._bodies.clear()


def _joined(families: Iterable[Sequence[bytes]], gzip: bool) -> bytes:
    return _compress(families) if gzip else b"".join(chain.from_iterable(families))


def _compress(families: Iterable[Sequence[bytes]]) -> bytes:
    """Family by family, so that the page never is in memory as a whole."""
    compressor = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORM)
    compressed = [compressor.compress(b"".join(pieces)) for pieces in families]
    return b"".join([*compressed, compressor.flush()])


@lru_cache(maxsize=16)  # a scraper asks the same each time
def _content_type(accept: str) -> str:
    # prometheus_client chooses the format; the answer's own header is one of three, because it would repeat
    # whatever version and escaping were asked for (and fails on a version that is not a number).
    try:
        _, chosen = choose_encoder(accept)
    except (TypeError, ValueError):
        return CONTENT_TYPE_PLAIN_0_0_4
    if chosen.startswith(_OPENMETRICS):
        return _OPENMETRICS_1_0_0
    return _TEXT_1_0_0 if chosen.startswith(CONTENT_TYPE_PLAIN_1_0_0) else CONTENT_TYPE_PLAIN_0_0_4
