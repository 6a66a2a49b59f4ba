"""Reports of a finished storm: text in the form of the mail that began it all, and the curve as CSV. Pure."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from slabwatch.storm.explain import pressure_step

_SLABINFO_HEADER = (
    "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
    " : slabdata <active_slabs> <num_slabs>"
)
_HEADINGS = {
    "baseline": "Before the storm",
    "created": "With the cgroups made, no task yet",
    "loaded": "At the peak of the load",
    "drained": "All tasks gone",
    "settled": "After the settle time",
    "pressured": "After memory pressure",
    "shrunk": "After a shrink of all caches",
    "removed": "With the cgroups removed",
}
_MOST_CACHES = 15
_WIDTH = 120


def text_report(record: Mapping[str, Any]) -> str:
    """The whole report, each line at most 120 characters wide, but for paths of what was left over."""
    parts = [_head(record)]
    parts += [
        _state(heading, record["snapshots"][name]) for name, heading in _HEADINGS.items() if name in record["snapshots"]
    ]
    if record["caches"]:
        parts.append(_caches(record["caches"]))
    parts.append(_verdict(record))
    return "\n".join(parts)


def csv_report(record: Mapping[str, Any]) -> str:
    """The curve: one row a sample."""
    out = io.StringIO()
    columns = ("t", "phase", "slab_bytes", "sunreclaim_bytes", "task_struct_active", "live_tasks")
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(record["series"])
    return out.getvalue()


def _head(record: Mapping[str, Any]) -> str:
    plan, host, tasks, cgroups = record["plan"], record["host"], record["tasks"], record["cgroups"]
    started = datetime.fromtimestamp(record["started_at"], UTC)
    phases = ", ".join(f"{phase['name']} {phase['seconds']:.1f}" for phase in record["phases"])
    lines = [
        _wrapped(f"Storm {record['id']}: {record['outcome']}" + (f" ({record['reason']})" if record["reason"] else "")),
        f"  started   {started:%Y-%m-%d %H:%M:%S} UTC by {record['requested_by']}, took {record['seconds']:.1f} s",
        f"  host      Linux {host['release']}, {host['allocator']}, cgroup {host['cgroup_mode']}, "
        f"accounting {host['kmem_accounting']}, {host['cpus']} CPUs, {_mib(host['memory_bytes'])}",
        f"  plan      preset {plan['preset']}: {plan['cgroups']} cgroups x {plan['tasks']} tasks, kind {plan['kind']}, "
        f"at most {plan['live_tasks']} alive",
        f"            {plan['kind']}: {plan['kind_text']}",
        f"  tasks     {tasks['started']} started of {tasks['requested']}, {tasks['failed']} failed, "
        f"{tasks['peak_live']} alive at the peak; the kernel counted {_known(tasks['forks_observed'])} forks",
        f"  cgroups   {cgroups['created']} created, {cgroups['removed']} removed, {cgroups['leftover']} left over; "
        f"dying {_known(cgroups['dying_before'])} before, {_known(cgroups['dying_after'])} after",
        f"  seconds   {phases}",
    ]
    charges = cgroups.get("charges")
    if charges and charges["cgroups"]:
        lines.append(
            f"  charged   {_mib(charges['total_bytes'])} at the peak to {charges['charged']} of {charges['cgroups']} "
            f"cgroups, at most {_mib(charges['max_bytes'])} to one ({charges['file']})"
        )
    limits = record.get("limits") or {}
    if limits:
        pids, memory = limits.get("pids"), limits.get("memory_bytes")
        lines.append(
            f"  limits    {'no memory limit' if memory is None else _mib(memory)}, "
            f"{'no limit of' if pids is None else f'{pids:,}'} pids, set in the kernel on the storm's own cgroup"
        )
    for step in record.get("pressure") or ():
        lines += _pressure(step)
    lines += [f"  left      {path}: {why}" for path, why in cgroups.get("left", {}).items()]
    return "\n".join(lines)


def _pressure(step: Mapping[str, Any]) -> list[str]:
    hits, kills, pages, objects = (
        _known(step[key]) for key in ("limit_hits", "oom_kills", "pages_scanned", "slab_objects_scanned")
    )
    return [
        f"  pressure  {pressure_step(step)}, {step['seconds']:.1f} s",
        f"            limit met {hits} times, OOM kills {kills}; the kernel looked through {pages} pages and {objects} "
        "slab objects",
    ]


def _state(heading: str, snapshot: Mapping[str, Any]) -> str:
    lines = ["", heading, "-------------"]
    meminfo = snapshot["meminfo"] or {}
    lines += [
        f"{key + ':':<15} {meminfo[key] // 1024:>8} kB"
        for key in ("Slab", "SReclaimable", "SUnreclaim")
        if key in meminfo
    ]
    row = next((row for row in snapshot["caches"] or () if row["cache"] == "task_struct"), None)
    if row:
        lines.append(_SLABINFO_HEADER)
        lines.append(
            f"{row['cache']:<17} {row['active_objects']:>6} {row['objects']:>6} {row['object_size_bytes']:>6} "
            f"{row['objects_per_slab']:>4} {row['pages_per_slab']:>4} : "
            f"slabdata {row['active_slabs']:>6} {row['slabs']:>6}"
        )
    lines.append(f"Number of running processes : {_known(snapshot['processes'])}")
    if snapshot.get("cgroups_dying"):
        lines.append(f"Number of dying cgroups : {snapshot['cgroups_dying']}")
    return "\n".join(lines)


def _caches(rows: list[Mapping[str, Any]]) -> str:
    columns = {
        "growth": "growth_bytes",
        "stayed": "retained_bytes",
        "pressure": "released_by_pressure_bytes",
        "by shrink": "released_by_shrink_bytes",
        "pinned": "pinned_bytes",
    }
    if all(row.get("released_by_pressure_bytes") is None for row in rows):
        del columns["pressure"]
    lines = ["", "Caches by growth (MiB)", "-------------"]
    lines.append(f"{'cache':<28} {' '.join(f'{title:>9}' for title in columns)}  verdict")
    for row in rows[:_MOST_CACHES]:
        note = " (reclaimable)" if row["reclaimable"] else ""
        cells = " ".join(_mib_cell(row.get(key)) for key in columns.values())
        lines.append(f"{row['cache']:<28} {cells}  {row['verdict']}{note}")
    if len(rows) > _MOST_CACHES:
        rest = rows[_MOST_CACHES:]
        lines.append(
            f"{f'{len(rest)} more':<28} {_mib_cell(sum(row['growth_bytes'] for row in rest))} "
            f"{_mib_cell(sum(row['retained_bytes'] for row in rest))}"
        )
    return "\n".join(lines)


def _verdict(record: Mapping[str, Any]) -> str:
    verdict = record["verdict"]
    lines = ["", f"Verdict: {verdict['class']}", "-------------", _wrapped(verdict["reason"])]
    if verdict.get("growth_bytes") is not None:
        stayed = f"SUnreclaim grew by {_mib(verdict['growth_bytes'])}; {_mib(verdict['retained_bytes'])} of it stayed"
        shares = []
        if verdict.get("released_by_pressure_bytes") is not None:
            shares.append(f"memory pressure gave back {_mib(verdict['released_by_pressure_bytes'])}")
        if verdict["pinned_bytes"] is not None:
            shares.append(f"a shrink gave back {_mib(verdict['released_by_shrink_bytes'])}")
            shares.append(f"{_mib(verdict['pinned_bytes'])} is pinned")
        of_which = f", of which {', '.join(shares[:-1])}{' and ' * (len(shares) > 1)}{shares[-1]}" if shares else ""
        lines.append(_wrapped(f"{stayed}{of_which}."))
    if verdict.get("explained_ratio") is not None:
        lines.append(f"The caches explain {verdict['explained_ratio']:.0%} of what stayed.")
    if verdict.get("explanation"):
        lines.append(_wrapped(verdict["explanation"]))
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _mib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1048576:.1f} MiB"


def _mib_cell(size: int | None) -> str:
    return f"{'-' if size is None else f'{size / 1048576:.2f}':>9}"
