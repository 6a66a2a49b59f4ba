"""Reports: the text in the form of the mail that began it all, and the curve as CSV."""

from __future__ import annotations

import copy
import csv
import io
from typing import Any

import pytest

from slabwatch.storm.report import csv_report, text_report
from slabwatch.storm.verdict import judge, judge_caches
from tests.hosts import HOSTS
from tests.unit.storm.evidence import TWO_CPUS, recorded_evidence
from tests.unit.storm.records import MIB, made_record, snapshot

GOLDEN = """\
Storm 20190926-120000-abcd: completed
  started   2019-09-26 12:00:00 UTC by root, took 262.3 s
  host      Linux 5.0.0-27-generic, slub, cgroup hybrid, accounting on, 8 CPUs, 16384.0 MiB
  plan      preset seed: 1000 cgroups x 100 tasks, kind shell, at most 1000 alive
            shell: `sleep 1` started by a shell script, one at a time in each cgroup
  tasks     99999 started of 100000, 1 failed, 1000 alive at the peak; the kernel counted unknown forks
  cgroups   1000 created, 999 removed, 1 left over; dying 0 before, unknown after
  seconds   baseline 5.0, create 2.3
  left      /sys/fs/cgroup/memory/slabwatch-storm-20190926-120000-abcd/c0007: still busy

Before the storm
-------------
Slab:             419196 kB
SReclaimable:     123788 kB
SUnreclaim:       295408 kB
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : slabdata <active_slabs> <num_slabs>
task_struct          735    990   5888    5    8 : slabdata    198    198
Number of running processes : 334

After the settle time
-------------
Slab:             948932 kB
SReclaimable:     125816 kB
SUnreclaim:       823116 kB
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : slabdata <active_slabs> <num_slabs>
task_struct        11404  11665   5888    5    8 : slabdata   2333   2333
Number of running processes : 334

After a shrink of all caches
-------------
Slab:             419200 kB
SReclaimable:     123788 kB
SUnreclaim:       295412 kB
Number of running processes : unknown

Caches by growth (MiB)
-------------
cache                           growth    stayed by shrink    pinned  verdict
task_struct                      66.72     66.72         -         -  retained
dentry                            2.00      0.00      0.00      0.00  released (reclaimable)

Verdict: retained
-------------
515.3 MiB stayed, most of it in task_struct; a shrink gave back 514.6 MiB
SUnreclaim grew by 515.3 MiB; 515.3 MiB of it stayed, of which a shrink gave back 514.6 MiB and 0.7 MiB is pinned.
The caches explain 13% of what stayed.
"""


def test_the_whole_text() -> None:
    assert text_report(made_record()) == GOLDEN


def test_a_storm_that_was_stopped_before_it_measured_anything() -> None:
    reason = "the daemon stops"
    text = text_report(
        made_record(
            outcome="stopped",
            reason=reason,
            snapshots={},
            caches=[],
            verdict={"class": "inconclusive", "reason": f"the storm was stopped: {reason}"},
        )
    )
    assert text.startswith("Storm 20190926-120000-abcd: stopped (the daemon stops)\n")
    assert text.endswith("\n\nVerdict: inconclusive\n-------------\nthe storm was stopped: the daemon stops\n")
    assert "Caches by growth" not in text


def test_states_come_in_the_order_of_the_storm() -> None:
    names = ("removed", "shrunk", "pressured", "settled", "drained", "loaded", "created", "baseline")
    text = text_report(made_record(snapshots={name: snapshot(1, 1, 1, 9, 1, 1) for name in names}))
    lines = text.splitlines()
    headings = [lines[number - 1] for number, line in enumerate(lines) if line == "-------------"]
    assert headings == [
        "Before the storm",
        "With the cgroups made, no task yet",
        "At the peak of the load",
        "All tasks gone",
        "After the settle time",
        "After memory pressure",
        "After a shrink of all caches",
        "With the cgroups removed",
        "Caches by growth (MiB)",
        "Verdict: retained",
    ]


def test_without_a_shrink_nothing_is_said_of_one() -> None:
    verdict = made_record()["verdict"] | {"released_by_shrink_bytes": None, "pinned_bytes": None}
    text = text_report(made_record(verdict=verdict))
    assert "\nSUnreclaim grew by 515.3 MiB; 515.3 MiB of it stayed.\n" in text


STEP = {
    "where": "storm",
    "ended": "limit",
    "consumed_bytes": 64 * MIB,
    "limit_hits": 92,
    "oom_kills": 1,
    "pages_scanned": None,
    "slab_objects_scanned": 4321,
    "seconds": 0.14,
}


def test_memory_pressure_limits_and_what_they_gave_back() -> None:
    verdict = made_record()["verdict"] | {"released_by_pressure_bytes": MIB}
    caches = [row | {"released_by_pressure_bytes": 3 * MIB} for row in made_record()["caches"]]
    host = STEP | {"where": "host", "ended": "floor", "consumed_bytes": 5000 * MIB, "oom_kills": 0, "limit_hits": None}
    limits = {"memory_bytes": 300 * MIB, "pids": None}
    text = text_report(made_record(verdict=verdict, caches=caches, pressure=[STEP, host], limits=limits))
    for line in (
        "  limits    300.0 MiB, no limit of pids, set in the kernel on the storm's own cgroup",
        "  pressure  64 MiB used up in the storm's own cgroup, until the kernel gave no more, 0.1 s",
        "            limit met 92 times, OOM kills 1; the kernel looked through unknown pages and 4321 slab objects",
        "  pressure  5000 MiB used up on the host, down to the floor of MemAvailable, 0.1 s",
        "cache                           growth    stayed  pressure by shrink    pinned  verdict",
        "task_struct                      66.72     66.72      3.00         -         -  retained",
        "514.6 MiB and 0.7 MiB is pinned.",
    ):
        assert f"\n{line}\n" in text
    assert "515.3 MiB of it stayed, of which memory pressure gave back 1.0 MiB, a shrink gave back\n514.6 MiB" in text
    assert max(map(len, text.splitlines())) <= 120
    without_shrink = verdict | {"released_by_shrink_bytes": None, "pinned_bytes": None}
    text = text_report(made_record(verdict=without_shrink))
    assert "515.3 MiB of it stayed, of which memory pressure gave back 1.0 MiB.\n" in text


def test_many_caches_are_cut_and_the_rest_is_summed() -> None:
    row = made_record()["caches"][0]
    rows = [
        row | {"cache": f"cache-{index:02d}", "growth_bytes": MIB, "retained_bytes": MIB // 2} for index in range(20)
    ]
    text = text_report(made_record(caches=rows))
    assert "cache-14 " in text
    assert "cache-15 " not in text
    assert "\n5 more                            5.00      2.50\n" in text


@pytest.mark.parametrize("host", HOSTS)
def test_lines_fit_and_every_recorded_storm_can_be_reported(host: str) -> None:
    made = recorded_evidence(host)
    reason = "MemAvailable fell to 123456789012 bytes, below the floor of 98765432101 (storm.min_available_ratio)"
    record = made_record(
        outcome="aborted", reason=reason, caches=judge_caches(made, TWO_CPUS), verdict=judge(made, TWO_CPUS)
    )
    record["cgroups"]["left"] = {}
    text = text_report(record)
    assert max(map(len, text.splitlines())) <= 120
    assert " ".join(record["verdict"]["reason"].split()) in " ".join(text.split()), "wrapped, and nothing lost"


def test_a_report_does_not_change_its_record() -> None:
    record = made_record()
    before = copy.deepcopy(record)
    text_report(record)
    csv_report(record)
    assert record == before


def test_the_curve_as_csv() -> None:
    assert csv_report(made_record()) == (
        "t,phase,slab_bytes,sunreclaim_bytes,task_struct_active,live_tasks\n0.0,baseline,5,4,735,0\n1.0,load,9,,,3\n"
    )


@pytest.mark.parametrize("series", [[], [{"t": 0.5, "phase": "baseline", "more": "of a later format"}]])
def test_any_curve_can_be_read_again(series: list[dict[str, Any]]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_report(made_record(series=series)))))
    assert [(row["t"], row["phase"]) for row in rows] == [(str(one["t"]), one["phase"]) for one in series]
