"""docs/kernels.md, from what the guests brought back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slabwatch import __version__
from tests.e2e.daemon import Daemon
from tests.vm.cache import PROJECT, VmError
from tests.vm.matrix import MEMORY_MIB, Outcome

TARGET = PROJECT / "docs" / "kernels.md"
STATES = ("baseline", "loaded", "settled", "shrunk", "removed")


def write(outcomes: Sequence[Outcome], comparison: str) -> None:
    TARGET.write_text("\n\n".join(sections(outcomes, comparison)) + "\n", encoding="utf-8")


def sections(outcomes: Sequence[Outcome], comparison: str) -> Iterator[str]:
    """The page's parts, each a Markdown block."""
    dates = sorted({outcome.date for outcome in outcomes})
    yield (
        "# Kernels\n\n"
        f"Written by `make vm` on {' to '.join(dict.fromkeys((dates[0], dates[-1])))} with slabwatch {__version__}: "
        "Debian's kernels in virtual machines, "
        f"QEMU's software emulation, 2 CPUs, {MEMORY_MIB} MiB of memory. What is done on each is in "
        "`tests/vm/guests`; every figure of slabwatch is held against a reading of the kernel's files beside it."
    )
    yield "## What was run\n\n" + _table(
        ("kernel", "memory cgroups", "PID 1", "scenario", "checks that hold", "seconds"), map(_run_row, outcomes)
    )
    for outcome in outcomes:
        if outcome.failed:
            lines = [f"* {check['what']}: {check['detail']}" for check in outcome.failed]
            yield f"**{outcome.cell.name} failed:**\n\n" + "\n".join(lines)
    stormed = [outcome for outcome in outcomes if "verdict" in outcome.figures]
    yield (
        "## A storm of 200 cgroups with 25 tasks each\n\n"
        "Kind fork, all 5,000 tasks alive at one time. SUnreclaim in MiB and active task_struct objects: before / at "
        "the peak / after the settle time / after a shrink / after the cgroups' removal. Grew, stayed, by shrink and "
        "pinned are the verdict's figures in MiB, charged what the cgroups' memory.stat or memory.kmem.usage_in_bytes "
        "had at the peak.\n\n"
        + _table(
            ("kernel", "cgroups", "verdict", "SUnreclaim", "task_struct", "grew", "stayed", "by shrink", "pinned",
             "charged", "dying"),
            map(_storm_row, stormed),
        )
    )  # fmt: skip
    yield (
        "Dying: of 50 cgroups (preset `zombie`), removed while a page is charged to each, those that the kernel still "
        "counts 4 s later; 0 is left once the pages are gone."
    )
    yield "### What stayed after the settle time, in KiB\n\n" + _table(
        ("kernel", "cgroups", "caches"), map(_stayed_row, stormed)
    )
    yield "## What `slabwatchctl doctor` says\n\n" + "\n\n".join(_doctor(stormed))
    for outcome in outcomes:
        if outcome.steps and not outcome.findings:
            lines = [f"* {name}: {said}" for name, said in outcome.steps]
            yield f"## Scenario {outcome.cell.scenario} on {_kernel(outcome)}\n\n" + "\n".join(lines)
    yield f"## The oldest and the newest side by side\n\n`slabwatchctl compare`:\n\n```\n{comparison.rstrip()}\n```"
    yield NOTES.strip()


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _kernel(outcome: Outcome) -> str:
    return outcome.package.partition("-")[0]


def _run_row(outcome: Outcome) -> Sequence[object]:
    checks = outcome.checks
    held = f"{len(checks) - len(outcome.failed)} of {len(checks)}"
    pid_1 = "systemd" if outcome.cell.systemd else "a script"
    kernel = f"{outcome.release} ({outcome.package}, {outcome.cell.suite})"
    return kernel, outcome.cell.cgroup, pid_1, outcome.cell.scenario, held, f"{outcome.seconds:.0f}"


def _storm_row(outcome: Outcome) -> Sequence[object]:
    figures = outcome.figures
    verdict, unreclaimable = figures["verdict"], figures["sunreclaim_bytes"]
    sizes = [_mib(verdict[f"{name}_bytes"]) for name in ("growth", "retained", "released_by_shrink", "pinned")]
    return (
        _kernel(outcome),
        f"{outcome.cell.cgroup}{', systemd' if outcome.cell.systemd else ''}",
        f"`{verdict['class']}`",
        " / ".join(_mib(unreclaimable[state]) for state in STATES),
        " / ".join(str(figures["task_struct_active"][state]) for state in STATES),
        *sizes,
        _mib(figures["charged_bytes"]),
        figures.get("dying", "?"),
    )


def _stayed_row(outcome: Outcome) -> Sequence[object]:
    stayed = ", ".join(f"{cache} {size // 1024:,}" for cache, size in outcome.figures["stayed_bytes"].items())
    return _kernel(outcome), outcome.cell.cgroup + (", systemd" if outcome.cell.systemd else ""), stayed


def _doctor(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Each finding once, with the kernels of which it is so; first those that all have in common."""
    said: dict[str, dict[str, list[str]]] = {}
    for outcome in outcomes:
        where = f"{_kernel(outcome)} {outcome.cell.cgroup}{' systemd' if outcome.cell.systemd else ''}"
        for name, text in outcome.figures.get("doctor", {}).items():
            said.setdefault(name, {}).setdefault(text, []).append(where)
    common = [f"* {name}: {next(iter(texts))}" for name, texts in said.items() if len(texts) == 1]
    yield "Everywhere:\n\n" + "\n".join(common)
    for name, texts in said.items():
        if len(texts) == 1:
            continue
        rows = [(", ".join(where), text) for text, where in texts.items()]
        yield f"**{name}**\n\n" + _table(("kernel", "finding"), rows)


def _mib(size: int) -> str:
    return f"{size / (1024 * 1024):.1f}"


def compare(older: Mapping[str, Any], newer: Mapping[str, Any]) -> str:
    """By the program itself: a daemon with both records, and its client."""
    with tempfile.TemporaryDirectory(prefix="slabwatch-vm-") as name:
        daemon = Daemon(Path(name), None)
        storms = daemon.state / "storms"
        storms.mkdir(parents=True)
        for record in (older, newer):
            (storms / f"{record['id']}.json").write_text(json.dumps(record))
        try:
            done = daemon.start().ctl("compare", older["id"], newer["id"])
        finally:
            daemon.close()
    if done.returncode:
        raise VmError(f"slabwatchctl compare: exit code {done.returncode}: {done.stderr}")
    return done.stdout


NOTES = """
## What to know of these kernels

* **5.10 to 6.12 give the memory back by themselves** when the tasks have gone: the finding of 2019 (some 13
  `task_struct` a cgroup, kept as long as the cgroup is there) is not to be seen on any of them. What a shrink still
  frees are the slabs on per-CPU partial lists.
* **7.3 keeps what its per-CPU sheaves hold until a shrink**: unreclaimable slab is at twice to three times its value
  before. It is in the caches of which each task takes one or a few objects, mm_struct and files_cache first; it is
  bounded per CPU, and does not grow with the number of cgroups or tasks. Sheaves have taken the place of
  CONFIG_SLUB_CPU_PARTIAL, which this kernel's configuration has no more.
* **Of 7.3 an idle task_struct counts as active** while it is in a sheaf: active and allocated objects are the same
  number there until memory is taken back.
* **Removed cgroups are held by a page that is charged to them up to 6.12, and no more on 7.3**, where pages go to the
  parent when their cgroup is removed: preset `zombie` finds nothing there, and that is the kernel's answer.
* **5.10 with cgroup v2 charges less than half of what v1 says** for the same storm. Its memory.stat has neither
  `kernel` nor `pagetables`; what is there is summed. The page tables are charged (memory.current has them), but no
  file tells them apart.
* **Some hundred KiB of vmap_area, and on 6.1 and 6.12 of kmalloc-64, go with no shrink.** They are within a cache's
  tolerance, or just beyond it.
* **Memory cgroups v1** are in Debian's 5.10 and 6.1. Its 6.12 and 7.3 are built without (CONFIG_MEMCG_V1).
* A cgroup costs some 20 KiB of unreclaimable slab (2 CPUs) before it holds a task.
"""
