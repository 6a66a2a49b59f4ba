"""The alerts on slabwatch itself, and on its storms."""

from __future__ import annotations

from deploy.prometheus.rules.declared import JOB, Alert, compared
from deploy.prometheus.rules.templates import LARGEST_CACHES, ON_HOST, count, figure, label, size
from deploy.prometheus.rules.thresholds import THRESHOLDS

DAEMON_ALERTS: tuple[Alert, ...] = (
    Alert(
        "SlabwatchDown",
        "warning",
        "5m",
        f"up{{{JOB}}} == 0\nor absent(up{{{JOB}}})",
        "slabwatch {{ with $labels.instance }}on {{ . }}{{ else }}on all hosts{{ end }} is not scraped",
        (
            "{{ if $labels.instance }}The daemon, the host or the network is down: nobody watches this host's slab "
            "memory.{{ else }}Prometheus has no target of slabwatch: look at its scrape configuration and its service "
            "discovery.{{ end }}",
        ),
        "slabwatch",
    ),
    Alert(
        "SlabwatchStale",
        "warning",
        "5m",
        "slabwatch_poll_interval_seconds\nunless max without (collector) (slabwatch_collector_success) == 1",
        f"slabwatch {ON_HOST} answers, but has no figures",
        (
            "No collector has succeeded for "
            + figure("time() - max(slabwatch_collector_last_success_timestamp_seconds{HOST})", "humanizeDuration")
            + "; each should every {{ $value | humanizeDuration }}. The series of this host's memory are gone.",
        ),
        "slabwatch",
    ),
    Alert(
        "SlabwatchCollectorFailing",
        "warning",
        "10m",
        "slabwatch_collector_success == 0\n"
        "and ignoring (collector) max without (collector) (slabwatch_collector_success) == 1",
        f"slabwatch's collector {{{{ $labels.collector }}}} fails {ON_HOST}",
        (
            "Its series are missing; other collectors work. Most often the daemon lacks a right: /proc/slabinfo needs "
            "CAP_DAC_READ_SEARCH. slabwatchctl doctor on the host says what it is.",
        ),
        "slabwatch",
    ),
    Alert(
        "SlabinfoReadSlow",
        "warning",
        "15m",
        compared(
            'avg_over_time(slabwatch_collector_duration_seconds{collector="slabinfo"}[15m])',
            ">",
            "slabinfo_read_seconds",
        ),
        f"Reading /proc/slabinfo takes long {ON_HOST}",
        (
            "{{ $value | humanizeDuration }} on average, with locks held that the whole kernel needs. slabwatch waits "
            + figure("slabwatch_collector_backoff_seconds{collector='slabinfo',HOST}", "humanizeDuration")
            + " before it reads again; other programs that read slabinfo do not.",
            "Cgroups: "
            + count("slabwatch_cgroups{HOST}")
            + ", removed and still held: "
            + count("slabwatch_cgroups_dying{HOST}"),
            LARGEST_CACHES,
        ),
        "slabwatch",
    ),
    Alert(
        "SlabwatchThresholdsMissing",
        "warning",
        "10m",
        f"count(count by (name) (slabwatch:threshold)) < {len(THRESHOLDS)}\n"
        "or count(slabwatch_build_info) * 0 unless count(slabwatch:threshold)",
        "Thresholds of slabwatch's alerts are missing: the alerts that need them can not fire",
        (
            f"{{{{ $value | printf `%.0f` }}}} of {len(THRESHOLDS)} thresholds are there. Load "
            "slabwatch-thresholds.yml as it was delivered, and change figures in it only.",
        ),
        "slabwatch",
    ),
)

STORM_ALERTS: tuple[Alert, ...] = (
    Alert(
        "StormRunning",
        "info",
        "0m",
        "slabwatch_storm_active == 1",
        f"A storm runs {ON_HOST}",
        (
            "Somebody tests how this kernel frees memory. Phase: "
            + label("phase", "slabwatch_storm_phase{HOST} == 1")
            + ", tasks alive: "
            + count("slabwatch_storm_live_tasks{HOST}"),
            "The alerts on this host's growth are silent meanwhile, and for a while after.",
        ),
        "storms",
    ),
    Alert(
        "StormLeftovers",
        "warning",
        "15m",
        "slabwatch_storm_leftover_cgroups > 0\nunless slabwatch_storm_active == 1",
        f"A storm left cgroups behind {ON_HOST}",
        (
            "{{ $value | printf `%.0f` }} cgroups named slabwatch-storm-* could not be removed. They hold kernel "
            "memory and ids.",
        ),
        "storms",
    ),
    Alert(
        "StormFoundRetention",
        "info",
        "0m",
        'slabwatch_storm_last_verdict{verdict=~"retained|pinned"} == 1\nand ignoring (verdict) '
        + compared("time() - slabwatch_storm_last_end_timestamp_seconds", "<", "storm_finding_seconds"),
        f"A storm showed that the kernel keeps memory {ON_HOST}: {{{{ $labels.verdict }}}}",
        (
            "Linux "
            + label("release", "slabwatch_kernel_info{HOST}")
            + ". Stayed after the storm's tasks had gone: "
            + size("slabwatch_storm_last_retained_bytes{HOST}")
            + ", given back by a shrink: "
            + size("slabwatch_storm_last_released_by_shrink_bytes{HOST}")
            + ", pinned: "
            + size("slabwatch_storm_last_pinned_bytes{HOST}"),
            LARGEST_CACHES,
        ),
        "storms",
    ),
)
