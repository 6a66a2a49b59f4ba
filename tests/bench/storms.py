"""The proving half: storms against the seed's own script, cgroups against cgcreate and cgdelete, scrapes in a storm."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from slabwatch.host.hierarchy import find_memory_hierarchy
from slabwatch.host.root import KernelRoot
from slabwatch.storm import preflight
from slabwatch.storm.engine_process import EngineProcess
from slabwatch.storm.plan import Caps, make_plan
from slabwatch.storm.setup import Setup
from tests.bench import servers
from tests.bench.measure import MEMORY, Row, Scraper

# Scaled down alike for both, from the seed's 1,000 x 100.
_CGROUPS, _TASKS = 200, 20
_SEED = """
for c in $(seq {cgroups}); do
    mkdir {base}/c$c
    bash -c 'echo $$ > {base}/c'$c'/cgroup.procs; for i in $(seq {tasks}); do sleep 1; done' &
done
wait
for c in $(seq {cgroups}); do rmdir {base}/c$c; done
"""


def loads() -> Iterator[Row]:
    """Time to start, end and clean up as many tasks in as many cgroups; the seed's way sleeps a second in each."""
    theirs, theirs_cpu = _seed_script()
    for kind, aim in (("fork", 0.1), ("light", 1 / 40)):
        ours, started = asyncio.run(_storm(kind, _CGROUPS, _TASKS))
        yield Row(
            f"{_CGROUPS} cgroups x {_TASKS} tasks, kind {kind}: seconds",
            f"{ours:.2f} ({started} tasks)",
            f"the seed's script {theirs:.1f} ({theirs_cpu:.1f} of CPU)",
            ours / theirs,
            aim,
        )
    for kind in ("fork", "light"):
        ours, started = asyncio.run(_storm(kind, 1000, 100))
        yield Row(f"1,000 cgroups x 100 tasks, kind {kind}: seconds", f"{ours:.2f} ({started} tasks)", "")


def _seed_script() -> tuple[float, float]:
    base = MEMORY / "slabwatch-bench"
    base.mkdir()
    try:
        script = _SEED.format(cgroups=_CGROUPS, tasks=_TASKS, base=base)
        before, started = _children_cpu(), time.monotonic()
        subprocess.run(["bash", "-c", script], check=True)
        return time.monotonic() - started, _children_cpu() - before
    finally:
        for path in base.glob("c*/"):
            path.rmdir()
        base.rmdir()


def _children_cpu() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _storm(kind: str, cgroups: int, tasks: int, live: int = 2000) -> tuple[float, int]:
    """The engine alone, without baseline, hold and settle: seconds, and tasks started."""
    root = KernelRoot("/")
    caps = Caps(60_000, 10_000_000, 1_000_000, 86_400, shrink_enabled=False)
    wishes = {
        "cgroups": cgroups,
        "tasks": tasks,
        "kind": kind,
        "live_tasks": min(live, cgroups * tasks),
        "shrink": False,
    }
    plan = make_plan(wishes, caps)
    forecast = preflight.examine(root, plan, "/", 0.1)
    forecast.refuse()
    setup = Setup(
        storm_id="bench", parent=forecast.parent, home=forecast.home, version=find_memory_hierarchy(root).version,
        cgroups=cgroups, tasks=tasks, kind=kind, workers=preflight.workers_of(plan), live_tasks=plan.live_tasks,
        at_once=cgroups, shell="/bin/bash", limit_bytes=0, limit_pids=0,
    )  # fmt: skip
    started = time.monotonic()
    engine = await EngineProcess.start(setup)
    try:
        for order, reached in (("create", "created"), ("load", "loaded"), ("drain", "drained"), ("remove", "removed")):
            await engine.order(order, until=reached)
        return time.monotonic() - started, engine.counts["started"]
    finally:
        await engine.end(30)


def most_alive() -> Iterator[Row]:
    """As many tasks alive at one time as issue and machine ask for."""
    for kind in ("light", "fork"):
        seconds, _ = asyncio.run(_storm(kind, 200, 100, live=20_000))
        yield Row(
            f"20,000 tasks of kind {kind} alive at one time: seconds from first to all gone", f"{seconds:.2f}", ""
        )


def making_cgroups(count: int = 1000) -> Iterator[Row]:
    """Creating and removing, against Debian's cgroup-tools, one command each as scripts use them."""
    names = [f"slabwatch-bench-{index}" for index in range(count)]
    started = time.monotonic()
    for name in names:
        subprocess.run(["cgcreate", "-g", f"memory:{name}"], check=True)
    for name in names:
        subprocess.run(["cgdelete", "-g", f"memory:{name}"], check=True)
    theirs = time.monotonic() - started
    base = MEMORY / "slabwatch-bench"
    started = time.monotonic()
    base.mkdir()
    paths = [base / f"c{index:04d}" for index in range(count)]
    for path in paths:
        path.mkdir()
    for path in paths:
        path.rmdir()
    base.rmdir()
    ours = time.monotonic() - started
    yield Row(
        f"{count} cgroups made and removed: seconds",
        f"{ours:.2f}",
        f"cgcreate, cgdelete {theirs:.2f}",
        ours / theirs,
        0.1,
    )


def scrapes_in_a_storm() -> Iterator[Row]:
    """Latency while `storm --preset full` runs, ours and node_exporter's beside it in the same storm."""
    settings = "[storm]\nenabled = true\n[shrink]\nenabled = true\n"
    with servers.node_exporter(), servers.slabwatch(settings) as (_, socket):
        ctl = [sys.executable, "-m", "slabwatch.cli.ctl", "--host", f"unix://{socket}", "--json"]
        ours, theirs = Scraper(servers.OURS), Scraper(servers.NODE_EXPORTER)
        with tempfile.TemporaryFile("w+") as events:  # a pipe would fill up while we scrape
            storm = subprocess.Popen([*ctl, "storm", "--preset", "full", "--settle", "5"], stdout=events)
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            while storm.poll() is None:
                for name, scraper in (("ours", ours), ("theirs", theirs)):
                    started = time.monotonic()
                    scraper.scrape()
                    times[name].append(time.monotonic() - started)
                time.sleep(0.1)
            events.seek(0)
            record = json.loads(events.readlines()[-1])
    worst = {name: sorted(values)[int(len(values) * 0.99)] * 1000 for name, values in times.items()}
    yield Row(
        f"scrape in a full storm, 99th percentile of {len(times['ours'])}: ms ({record['tasks']['started']} tasks)",
        f"{worst['ours']:.1f}",
        f"node_exporter {worst['theirs']:.1f}",
        worst["ours"] / worst["theirs"],
        1.0,
    )


def leftovers() -> list[Path]:
    """Nothing may be left of any of it."""
    return [path for path in MEMORY.glob("slabwatch-*") if path.is_dir()]
