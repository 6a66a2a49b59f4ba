"""The daemon's own metrics: what is absent until it is known, what counts, and the storm's figures."""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import ProcessCollector

from slabwatch import __version__
from slabwatch.expose.metrics import OWN_METRICS, STORM_PHASES
from slabwatch.expose.own import OwnMetrics
from slabwatch.host.own_process import OwnProcess

RECORD: dict[str, Any] = {
    "outcome": "completed",
    "phases": [
        {"name": "baseline", "started_at": 1_700_000_000.0, "seconds": 5.0},
        {"name": "cleanup", "started_at": 1_700_000_100.0, "seconds": 2.5},
    ],
    "verdict": {
        "class": "retained",
        "retained_bytes": 1_178_000_000,
        "released_by_pressure_bytes": 4_000_000,
        "released_by_shrink_bytes": 1_082_000_000,
        "pinned_bytes": 96_000_000,
    },
}


@pytest.fixture
def shown(series: Any) -> Any:
    def read(own: OwnMetrics, name: str) -> dict[str, float]:
        both = [series(own.render(openmetrics), openmetrics) for openmetrics in (False, True)]
        found = [
            {
                "/".join(value for _, value in sorted(labels)): number
                for (series_name, labels), number in one.items()
                if series_name == f"slabwatch_{name}"
            }
            for one in both
        ]
        assert found[0] == found[1]
        return found[0]

    return read


def test_at_the_start(shown: Any) -> None:
    own = OwnMetrics()
    assert shown(own, "build_info") == {f"{platform.python_version()}/{__version__}": 1}
    assert shown(own, "config_last_reload_successful") == {"": 1}
    assert shown(own, "polls_total") == shown(own, "poll_overruns_total") == {"": 0}
    assert shown(own, "storm_active") == shown(own, "storm_live_tasks") == {"": 0}
    assert shown(own, "storm_locked") == shown(own, "audit_lines_lost_total") == {"": 0}
    assert shown(own, "storms_total") == dict.fromkeys(("completed", "stopped", "aborted", "failed"), 0)
    absent = {metric.name for metric in OWN_METRICS if not shown(own, metric.name)}
    assert absent == {
        "kernel_info",
        "poll_interval_seconds",
        "web_config_last_reload_successful",
        "connections",
        "connections_closed_total",
        "web_requests_refused_total",
        "storm_leftover_cgroups",
        "storm_last_retained_bytes",
        "storm_last_pinned_bytes",
        "storm_last_released_by_pressure_bytes",
        "storm_last_released_by_shrink_bytes",
        "storm_last_verdict",
        "storm_last_end_timestamp_seconds",
    }


@pytest.mark.parametrize("openmetrics", [False, True])
def test_types_and_help_come_from_the_table(families: Any, openmetrics: bool) -> None:
    own = OwnMetrics()
    own.set_kernel("6.18", "slub", "v2", "on")
    own.set_interval(10)
    own.set_leftover(0)
    own.set_web_config(True)
    own.set_connections("metrics", 1, {"slow": 2})
    own.set_refused({"password": 3})
    own.storm_finished(RECORD)
    page = own.render(openmetrics).decode()
    for metric in OWN_METRICS:
        assert metric.head(openmetrics=openmetrics) in page
    assert "_created" not in page
    assert "# EOF" not in page
    assert "process_cpu_seconds_total" in page
    assert families(page.encode(), openmetrics)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_process_is_shown_as_prometheus_client_shows_it(families: Any, openmetrics: bool) -> None:
    ours = [family for family in families(OwnMetrics().render(openmetrics), openmetrics) if "process_" in family.name]
    for mine, theirs in zip(ours, ProcessCollector(registry=None).collect(), strict=True):
        assert (mine.name, mine.type, mine.documentation) == (theirs.name, theirs.type, theirs.documentation)
        (sample,), (expected,) = mine.samples, theirs.samples
        assert (sample.name, sample.labels) == (expected.name, expected.labels)
        assert sample.value == pytest.approx(expected.value, rel=0.05, abs=1)


def test_what_the_process_does_not_know_of_itself_has_no_series(monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnMetrics()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert b"process_open_fds " in own.render(False)
    assert b"process_max_fds" not in own.render(False)
    monkeypatch.setattr(OwnProcess, "read", lambda self: None)
    assert b"process_" not in own.render(False)
    assert b"build_info" in own.render(False)


def test_setters(shown: Any) -> None:
    own = OwnMetrics()
    own.set_kernel("5.3.1", "slub", "v1", "on")
    own.set_kernel("6.18", "slub", "hybrid", "off")
    own.set_interval(2.5)
    own.polled(0)
    own.polled(3)
    own.set_reload(False)
    own.storm_tasks(100, 2)
    own.storm_tasks(50, 0)
    own.set_leftover(7)
    assert shown(own, "kernel_info") == {"slub/hybrid/off/6.18": 1}
    assert shown(own, "poll_interval_seconds") == {"": 2.5}
    assert own.interval_seconds == 2.5
    assert shown(own, "polls_total") == {"": 2}
    assert shown(own, "poll_overruns_total") == {"": 3}
    assert shown(own, "config_last_reload_successful") == {"": 0}
    assert shown(own, "storm_tasks_started_total") == {"": 150}
    assert shown(own, "storm_tasks_failed_total") == {"": 2}
    assert shown(own, "storm_leftover_cgroups") == {"": 7}


def test_storm_phase(shown: Any) -> None:
    own = OwnMetrics()
    nothing = dict.fromkeys(STORM_PHASES, 0.0)
    assert shown(own, "storm_phase") == nothing
    own.storm_progress("load", 42)
    assert shown(own, "storm_phase") == nothing | {"load": 1.0}
    assert shown(own, "storm_active") == {"": 1}
    assert shown(own, "storm_live_tasks") == {"": 42}
    own.storm_progress(None, 0)
    assert shown(own, "storm_phase") == nothing
    assert shown(own, "storm_active") == {"": 0}
    with pytest.raises(ValueError, match="unknown phase"):
        own.storm_progress("lunch", 0)


def test_finished_storms(shown: Any) -> None:
    own = OwnMetrics()
    own.storm_finished(RECORD)
    assert shown(own, "storms_total")["completed"] == 1
    assert shown(own, "storm_last_retained_bytes") == {"": 1_178_000_000}
    assert shown(own, "storm_last_released_by_shrink_bytes") == {"": 1_082_000_000}
    assert shown(own, "storm_last_pinned_bytes") == {"": 96_000_000}
    assert shown(own, "storm_last_released_by_pressure_bytes") == {"": 4_000_000}
    assert shown(own, "storm_last_end_timestamp_seconds") == {"": 1_700_000_102.5}
    assert shown(own, "storm_last_verdict") == {"released": 0, "retained": 1, "pinned": 0, "inconclusive": 0}

    # without a shrink there are no figures for it, and those of the storm before must not stay
    verdict = {"class": "inconclusive", "retained_bytes": 5, "released_by_shrink_bytes": None, "pinned_bytes": None}
    iso = [{"name": "load", "started_at": "2023-11-14T22:13:20+00:00", "seconds": 1}]
    own.storm_finished(RECORD | {"outcome": "aborted", "verdict": verdict, "phases": iso})
    assert shown(own, "storms_total") == {"completed": 1, "aborted": 1, "stopped": 0, "failed": 0}
    assert shown(own, "storm_last_retained_bytes") == {"": 5}
    assert shown(own, "storm_last_released_by_shrink_bytes") == shown(own, "storm_last_pinned_bytes") == {}
    assert shown(own, "storm_last_released_by_pressure_bytes") == {}
    assert shown(own, "storm_last_end_timestamp_seconds") == {"": 1_700_000_001}
    assert shown(own, "storm_last_verdict") == {"released": 0, "retained": 0, "pinned": 0, "inconclusive": 1}

    own.storm_finished({"outcome": "failed", "verdict": None, "phases": []})
    assert shown(own, "storm_last_end_timestamp_seconds") == shown(own, "storm_last_retained_bytes") == {}
    assert set(shown(own, "storm_last_verdict").values()) == {0}


def test_last_storm_of_an_earlier_run_is_shown_but_not_counted(shown: Any) -> None:
    own = OwnMetrics()
    own.set_last_storm(RECORD)
    assert shown(own, "storm_last_verdict")["retained"] == 1
    assert set(shown(own, "storms_total").values()) == {0}


def test_revision_tells_of_every_change() -> None:
    own = OwnMetrics()
    seen = {own.revision}
    changes: list[Callable[[], None]] = [
        lambda: own.set_kernel("6.18", "slub", "v2", "on"),
        lambda: own.set_interval(1),
        lambda: own.polled(0),
        lambda: own.set_reload(False),
        lambda: own.storm_progress("hold", 1),
        lambda: own.storm_tasks(1, 0),
        lambda: own.set_leftover(1),
        lambda: own.storm_finished(RECORD),
        lambda: own.set_last_storm({}),
    ]
    for change in changes:
        change()
        assert own.revision not in seen
        seen.add(own.revision)
    own.set_leftover(1)
    assert own.revision in seen


def test_the_lock_and_the_audit_log(shown: Any) -> None:
    own = OwnMetrics()
    own.set_locked(True)
    own.audit_lost(7)
    assert shown(own, "storm_locked") == {"": 1}
    assert shown(own, "audit_lines_lost_total") == {"": 7}
