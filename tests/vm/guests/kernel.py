"""One kernel: what slabwatch reads of it, a storm, a daemon that is killed in the midst of one, and dying cgroups.

Each figure is read a second time here, without slabwatch. Where kernels differ, the kernel is asked what it has;
its version decides only where history is all that there is.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e import daemon as e2e
from tests.e2e.daemon import Daemon, open_directory
from tests.golden.program import run
from tests.golden.raw_files import Series, expected_series, kernel_bytes, key, kib, number, pairs, pairs_of_stat
from tests.live.kernel import cgroups_below, marked, memory_mount, own_directory, wait_for_no_task, wait_until
from tests.vm.guests.findings import Findings

ROOT = Path("/")
OUT = Path("/out")
TRIES = 8
# Of the daemon itself, and what only its own run can know.
OWN = re.compile(r"slabwatch_(collector_.*|build_info|kernel_info|cgroup_kept_descriptors)")
CGROUPS, TASKS = 200, 25
DYING, DYING_TASKS = 50, 4
STACK_BYTES = 16 * 1024
READING_BYTES = 64 * 4096
SHEAVES = Path("/sys/kernel/slab/task_struct/sheaf_capacity")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kernel")
    parser.add_argument("--settle", type=float, default=30.0, help="seconds from the tasks' end to the verdict")
    settle = parser.parse_args(argv).settle
    e2e.BIN = Path("/payload/bin")
    findings = Findings(OUT)
    mounted = memory_mount()
    assert mounted is not None, "no memory cgroups"
    mount, version = mounted
    findings.figures |= {
        "release": platform.release(),
        "cgroup_version": version,
        "pid_1": Path("/proc/1/comm").read_text().strip(),
        "sheaves": SHEAVES.exists() and number(SHEAVES) > 0,
        "memory_mib": kib(ROOT, "MemTotal") >> 20,
    }
    findings.part("watch", lambda: watch(findings))
    with open_directory() as directory, own_directory(mount, version, "vm") as parent:
        daemon = Daemon(directory, parent)
        try:
            findings.part("start", lambda: start(findings, daemon))
            findings.part("doctor", lambda: doctor(findings, daemon, version))
            findings.part("storm", lambda: storm(findings, daemon, version, settle))
            findings.part("killed", lambda: killed(findings, daemon))
            findings.part("dying", lambda: dying(findings, daemon, mount, version))
            findings.part("stop", lambda: stop(findings, daemon))
        finally:
            daemon.close()
            findings.keep("daemon.log", daemon.log.read_text(encoding="utf-8"))
            daemon.kill_what_is_left()
    return findings.end()


def watch(findings: Findings) -> None:
    """Every series of ``slabwatch --once``, bracketed by two readings; a moving figure gets several tries."""
    # What the reading itself takes is charged to the reader.
    slack = {
        key(name, cgroup=cgroup): READING_BYTES
        for cgroup in _own_cgroups()
        for name in ("cgroup_kernel_bytes", "cgroup_slab_unreclaimable_bytes", "cgroup_memory_bytes")
    }
    unlike: set[Series] | None = None
    for _ in range(TRIES):
        before = expected_series(ROOT)
        once = run(["--once"])
        after = expected_series(ROOT)
        told = {series: value for series, value in once.series.items() if not OWN.fullmatch(series[0])}
        now = {
            series
            for series in told.keys() | before.keys() | after.keys()
            if not _between(before.get(series), told.get(series), after.get(series), slack.get(series, 0))
        }
        unlike = now if unlike is None else unlike & now
        if not unlike:
            break
    assert unlike is not None
    findings.keep("once.prom", once.output.decode())
    findings.figures["series"] = len(told)
    caches = {dict(labels)["cache"] for (name, labels) in told if name == "slabwatch_slab_slabs"}
    findings.figures["caches"] = len(caches)
    rows = len(Path("/proc/slabinfo").read_text().splitlines()) - 2
    findings.check("each row of slabinfo is a cache", len(caches) == rows, f"{len(caches)} of {rows}")
    detail = f"{len(told)} series" if not unlike else f"unlike: {sorted(unlike)[:5]}"
    findings.check("--once says what the kernel's files say", not unlike, detail)
    success = once.labelled("collector_success", "collector")
    findings.check("all collectors succeed", set(success.values()) == {1.0} and len(success) == 4, sorted(success))
    findings.check("nothing is skipped", not once.of("collector_skipped_total"), once.of("collector_skipped_total"))
    findings.check("--once has nothing to complain about", (once.code, once.log) == (0, ""), once.log)


def _between(before: float | None, told: float | None, after: float | None, slack: float) -> bool:
    if before is None or told is None or after is None:
        return False
    return min(before, after) - slack <= told <= max(before, after) + slack


def _own_cgroups() -> Iterator[str]:
    """The one that this process is in for memory, and those above it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    path = Path(own.get("memory", own.get("", "/")))
    return map(str, (path, *path.parents))


def start(findings: Findings, daemon: Daemon) -> None:
    daemon.start()
    page = daemon.get("/metrics")[2].decode()
    findings.keep("metrics.prom", page)
    release = f'release="{platform.release()}"'
    told = next((line for line in page.splitlines() if line.startswith("slabwatch_kernel_info")), "no kernel_info")
    findings.check("kernel_info names this kernel", release in told and 'allocator="slub"' in told, told)


def doctor(findings: Findings, daemon: Daemon, version: int) -> None:
    """By the client, as its user would."""
    done = daemon.ctl("--json", "doctor")
    told: dict[str, dict[str, str]] = {row["name"]: row for row in json.loads(done.stdout)["findings"]}
    findings.figures["doctor"] = {name: f"{row['state']}: {row['finding']}" for name, row in told.items()}
    findings.check("doctor ends well", (done.returncode, done.stderr) == (0, ""), f"{done.returncode} {done.stderr}")

    def says(name: str, state: str, words: str) -> None:
        row = told.get(name, {"state": "absent", "finding": ""})
        holds = row["state"] == state and words in row["finding"]
        findings.check(f"doctor: {name} is {state}", holds, f"{row['state']}: {row['finding']}")

    rows = len(Path("/proc/slabinfo").read_text().splitlines()) - 2
    says("slabinfo", "ok", f"{rows} caches")
    says("memory cgroups", "ok", f"v{version}")
    says("kernel memory accounting", "ok", "on")
    sheaves = findings.figures["sheaves"]
    says("slab caches", "info" if sheaves else "ok", "per-CPU sheaves" if sheaves else "shared by all cgroups")
    says("kernel config", "ok", "SLUB")
    says("shrink", "ok", "possible and allowed")
    says("storm smoke", "ok", "possible")


def storm(findings: Findings, daemon: Daemon, version: int, settle: float) -> None:
    forks = pairs_of_stat(ROOT)["processes"]
    assert daemon.parent is not None
    storm_id = daemon.begin_storm(
        cgroups=CGROUPS, tasks=TASKS, hold_seconds=8, settle_seconds=settle, shrink=True, ttl_seconds=170 + settle
    )
    record: dict[str, Any] = {}
    for event in daemon.storm_events(storm_id):
        if event["event"] == "phase" and event["phase"] == "hold":
            _while_alive(findings, daemon.parent / f"slabwatch-storm-{storm_id}", version)
        if event["event"] == "end":
            record = event["record"]
    findings.keep("storm.json", record)
    findings.check("the storm is completed", record["outcome"] == "completed", record["reason"])
    counted = pairs_of_stat(ROOT)["processes"] - forks
    tasks = record["tasks"]
    started = (tasks["started"], tasks["failed"])
    findings.check("all tasks were started", started == (CGROUPS * TASKS, 0), tasks)
    findings.check("the kernel counted them", CGROUPS * TASKS <= tasks["forks_observed"] <= counted,
                   f"{tasks['forks_observed']} forks in the record, {counted} by /proc/stat over all")  # fmt: skip
    charged = record["cgroups"]["charges"]
    held = findings.figures.get("charged_bytes", 0)
    alike = charged["cgroups"] == charged["charged"] == CGROUPS and abs(charged["total_bytes"] - held) < 0.05 * held
    findings.check("the record's charges are the kernel's", alike, f"{charged}, read here: {held}")
    left = cgroups_below(daemon.parent)
    findings.check("nothing is left over", not left and record["cgroups"]["leftover"] == 0, left[:3])
    _verdict(findings, record)


def _while_alive(findings: Findings, root: Path, version: int) -> None:
    cgroups = sorted(root.glob("c[0-9]*"))
    tasks = [len((cgroup / "cgroup.procs").read_text().split()) for cgroup in cgroups]
    charges = [
        kernel_bytes(cgroup) if version == 2 else number(cgroup / "memory.kmem.usage_in_bytes") for cgroup in cgroups
    ]
    findings.figures["charged_bytes"] = sum(charges)
    findings.check("all cgroups are there", len(cgroups) == CGROUPS, len(cgroups))
    # A worker may still be in the cgroup that it has filled last.
    findings.check("each cgroup has its tasks", cgroups and TASKS <= min(tasks) <= max(tasks) <= TASKS + 1,
                   f"{sum(tasks)} in all, {min(tasks)} to {max(tasks)} each")  # fmt: skip
    least = TASKS * STACK_BYTES
    findings.check("each cgroup is charged with its tasks' stacks and more", charges and min(charges) > least,
                   f"{min(charges) >> 10} to {max(charges) >> 10} KiB, {sum(charges) >> 20} MiB in all")  # fmt: skip


def _verdict(findings: Findings, record: dict[str, Any]) -> None:
    """Caches are shared since 5.9, which frees the residue; sheaves keep some, bounded per CPU, until a shrink."""
    verdict, shots = record["verdict"], record["snapshots"]
    names = ("baseline", "loaded", "settled", "shrunk", "removed")
    findings.figures["verdict"] = verdict
    findings.figures["sunreclaim_bytes"] = {name: shots[name]["meminfo"]["SUnreclaim"] for name in names}
    active = {name: _row(shots[name], "task_struct")["active_objects"] for name in names}
    findings.figures["task_struct_active"] = active
    beyond = {row["cache"]: row["retained_bytes"] for row in record["caches"] if row["verdict"] != "released"}
    stayed = {row["cache"]: row["retained_bytes"] for row in record["caches"] if row["retained_bytes"]}
    findings.figures["stayed_bytes"] = dict(sorted(stayed.items(), key=lambda item: -item[1])[:6])

    findings.check("all tasks have their task_struct", active["loaded"] >= CGROUPS * TASKS, active)
    # The seed's finding is some 13 objects a cgroup; freed ones in per-CPU slabs and sheaves still count as active.
    findings.check("task_struct went back", active["settled"] - active["baseline"] < CGROUPS / 2, active)
    findings.check("a shrink takes no task_struct in use", active["shrunk"] <= active["settled"], active)
    told = f"{verdict['class']}: {verdict['reason']}"
    growth, retained, pinned = (verdict[f"{name}_bytes"] for name in ("growth", "retained", "pinned"))
    share = f"{retained >> 10} KiB of {growth >> 10} stayed, {pinned >> 10} of them after a shrink too"
    if findings.figures["sheaves"]:
        findings.check("the verdict is retained", verdict["class"] == "retained", told)
        findings.check("several caches keep more than the tolerance", len(beyond) >= 3, beyond)
        findings.check("a shrink empties the sheaves", pinned < retained / 2, share)
    else:
        findings.check("the verdict is released", verdict["class"] == "released", told)
        findings.check("next to nothing stayed", retained < 0.05 * growth, share)


def _row(snapshot: dict[str, Any], cache: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in snapshot["caches"] if row["cache"] == cache)
    return found


def killed(findings: Findings, daemon: Daemon) -> None:
    """SIGKILL, of which no daemon can know: tasks and cgroups go all the same, and the next one starts clean."""
    storm_id = daemon.begin_storm(cgroups=60, tasks=10, hold_seconds=100, settle_seconds=0, ttl_seconds=160)
    daemon.wait_for_phase(storm_id, "hold")
    alive = len(marked(storm_id))
    findings.check("the storm is in full swing", alive >= 600, f"{alive} processes with its mark")
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    wait_for_no_task(storm_id, 30)
    findings.check("its tasks have gone", not marked(storm_id))
    parent = daemon.start().parent
    assert parent is not None
    wait_until(lambda: not cgroups_below(parent), 20, f"no cgroup is left: {cgroups_below(parent)[:3]}")
    status = daemon.ask("GET", "/v1/status")[1]["storm"]
    findings.check(
        "nothing is left for the next daemon", (status["running"], status["leftover_cgroups"]) == (None, 0), status
    )


def dying(findings: Findings, daemon: Daemon, mount: Path, version: int) -> None:
    """Cgroups that are removed while a page of a tmpfs is charged to each."""
    before = _dying(mount, version)
    storm_id = daemon.begin_storm(preset="zombie", cgroups=DYING, tasks=DYING_TASKS, settle_seconds=6, ttl_seconds=120)
    record: dict[str, Any] = {}
    for event in daemon.storm_events(storm_id):
        if event["event"] == "phase" and event["phase"] == "settle":
            wait_until(lambda: daemon.metric("slabwatch_cgroups_dying") == _dying(mount, version), 20, "both are alike")
            findings.figures["dying"] = _dying(mount, version) - before
        if event["event"] == "end":
            record = event["record"]
    findings.keep("zombie.json", record)
    findings.check("the zombie storm is completed", record["outcome"] == "completed", record["reason"])
    shots = record["snapshots"]
    told = shots["settled"]["cgroups_dying"] - shots["baseline"]["cgroups_dying"]
    counted = findings.figures["dying"]
    findings.check("the record counts the dying as the kernel does", told == counted, f"{told}, read here: {counted}")
    # From 7.x on a page goes to the parent when its cgroup is removed.
    kept = int(platform.release().split(".")[0]) < 7
    findings.check(f"dying cgroups are {'held by their page' if kept else 'let go'}",
                   counted >= 0.9 * DYING if kept else counted <= 0.1 * DYING, f"{counted} of {DYING}")  # fmt: skip
    wait_until(lambda: _dying(mount, version) <= before, 20, "none is left when the pages have gone")
    findings.check("none is left when the pages have gone", daemon.metric("slabwatch_cgroups_dying") is not None)


def _dying(mount: Path, version: int) -> int:
    if version == 2:
        return pairs(mount / "cgroup.stat")["nr_dying_descendants"]
    row = re.search(r"^memory\t\d+\t(\d+)\t", Path("/proc/cgroups").read_text(), re.MULTILINE)
    assert row
    return int(row[1]) - 1 - len(cgroups_below(mount))


def stop(findings: Findings, daemon: Daemon) -> None:
    findings.check("SIGTERM ends the daemon in good order", daemon.stop(60) == 0)
    daemon.assert_nothing_left(20)
    daemon.assert_no_defect()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
