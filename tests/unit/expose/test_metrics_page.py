"""The page: negotiation, one rendering for many scrapes, and no frozen figures once the sample is old."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.expose import page as page_module
from slabwatch.expose.own import OwnMetrics
from slabwatch.expose.page import MetricsPage
from slabwatch.expose.render import KernelPage
from slabwatch.watch.derive import derive
from slabwatch.watch.sample import Sample

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROMETHEUS_2 = (
    f"{OPENMETRICS},application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own() -> OwnMetrics:
    return OwnMetrics()


@pytest.fixture
def page(own: OwnMetrics, clock: Clock) -> MetricsPage:
    return MetricsPage(own, clock)


def publish(page: MetricsPage, sample: Sample) -> None:
    page.publish(sample, derive(sample))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        (PROMETHEUS_2, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        # never a version or an escaping that is not what is sent
        (
            "application/openmetrics-text;version=2.0.0;escaping=dots",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        ("text/plain;version=banana", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.x", "text/plain; version=0.0.4; charset=utf-8"),
        (";,;=,,q=", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_negotiation(page: MetricsPage, build: Any, families: Any, accept: str, content_type: str) -> None:
    publish(page, build.whole_sample())
    body, chosen = page.body(accept, gzip=False)
    assert chosen == content_type
    openmetrics = content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n") == openmetrics
    names = {family.name for family in families(body, openmetrics)}
    assert {"slabwatch_slab_objects", "slabwatch_meminfo_slab_bytes", "slabwatch_polls"} <= names


@given(
    st.lists(
        st.sampled_from(["text/plain", "application/openmetrics-text", "*/*", "version", "q", "escaping", "1.0", ""])
    ).flatmap(
        lambda words: st.lists(st.sampled_from(",;= /"), min_size=len(words), max_size=len(words)).map(
            lambda glue: "".join(map("".join, zip(words, glue, strict=True)))
        )
    )
    | st.text(max_size=20)
)
def test_any_accept_header_gets_a_page(accept: str) -> None:
    _, content_type = MetricsPage(OwnMetrics()).body(accept, gzip=False)
    assert content_type.startswith(("text/plain; version=", "application/openmetrics-text; version=1.0.0"))


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_no_family_appears_twice(page: MetricsPage, build: Any, families: Any, accept: str) -> None:
    publish(page, build.whole_sample())
    names = [family.name for family in families(page.body(accept, False)[0], bool(accept))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_gzip_is_the_same_page(page: MetricsPage, build: Any, accept: str) -> None:
    publish(page, build.whole_sample())
    compressed, content_type = page.body(accept, gzip=True)
    assert (gzip.decompress(compressed), content_type) == page.body(accept, gzip=False)


def test_ten_scrapes_cost_one_rendering_and_one_compression(
    page: MetricsPage, own: OwnMetrics, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(target: Any, name: str) -> None:
        original = getattr(target, name)

        def call(*args: Any, **keywords: Any) -> Any:
            calls.append(name)
            return original(*args, **keywords)

        monkeypatch.setattr(target, name, call)

    counted(KernelPage, "families")
    counted(page_module, "_compress")
    publish(page, build.whole_sample())
    assert calls == [], "nothing is rendered for nobody"
    first = page.body("", gzip=True)
    assert all(page.body("", gzip=True) == first for _ in range(9))
    page.body("", gzip=False)
    assert sorted(calls) == ["_compress", "families"]

    page.body(OPENMETRICS, gzip=True)
    page.body(OPENMETRICS, gzip=True)
    assert sorted(calls) == ["_compress", "_compress", "families", "families"]

    # what the daemon says changes between two polls: the kernel's part is not rendered again
    assert b"slabwatch_config_last_reload_successful 1" in page.body("", gzip=False)[0]
    own.set_reload(False)
    assert b"slabwatch_config_last_reload_successful 0" in page.body("", gzip=False)[0]
    assert calls.count("families") == 2

    publish(page, build.whole_sample(number=2, slabinfo=build.slabinfo({"new": (1, 1, 1, 1, 1, 1, 1)})))
    assert b'slabwatch_slab_objects{cache="new"} 1' in page.body("", gzip=False)[0]
    assert calls.count("families") == 3


def test_skipped_is_counted_once_a_sample(page: MetricsPage, build: Any) -> None:
    line = b'slabwatch_collector_skipped_total{collector="slabinfo",reason="bad_line"} %d\n'
    publish(page, build.whole_sample())
    assert line % 2 in page.body("", False)[0]
    assert line % 2 in page.body(OPENMETRICS, False)[0]
    publish(page, build.whole_sample(number=2))
    assert line % 4 in page.body("", False)[0]


@pytest.mark.parametrize(("interval", "longest"), [(None, 30.0), (1.0, 30.0), (10.0, 30.0), (60.0, 180.0)])
def test_freshness(page: MetricsPage, own: OwnMetrics, build: Any, interval: float | None, longest: float) -> None:
    if interval is not None:
        own.set_interval(interval)
    assert not page.fresh(1000.0)
    publish(page, build.sample(monotonic_seconds=1000.0))
    assert page.fresh(1000.0)
    assert page.fresh(1000.0 + longest)
    assert not page.fresh(1000.0 + longest + 0.001)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_stale_page_has_no_frozen_figures(
    page: MetricsPage, clock: Clock, build: Any, series: Any, accept: str
) -> None:
    publish(page, build.whole_sample())
    fresh_page = page.body(accept, False)
    clock.now = 1030.5
    body, content_type = page.body(accept, False)
    assert gzip.decompress(page.body(accept, True)[0]).startswith(b"# HELP slabwatch_collector_success")
    assert content_type == fresh_page[1]
    found = series(body, bool(accept))
    kernel = {name for name, _ in found if name.startswith(("slabwatch_collector", "slabwatch_slab"))}
    assert kernel == {"slabwatch_collector_success", "slabwatch_collector_last_success_timestamp_seconds"}
    assert {value for (name, _), value in found.items() if name == "slabwatch_collector_success"} == {0.0}
    assert ("slabwatch_polls_total", frozenset()) in found
    assert not any("meminfo" in name or "cgroup_" in name or "threads" in name for name, _ in found)

    publish(page, build.whole_sample(number=2, monotonic_seconds=1030.0))
    assert b"slabwatch_slab_objects" in page.body(accept, False)[0]


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_before_the_first_sample(page: MetricsPage, series: Any, accept: str) -> None:
    found = series(page.body(accept, False)[0], bool(accept))
    assert ("slabwatch_storm_active", frozenset()) in found
    assert not any(name.startswith("slabwatch_collector") for name, _ in found)
