"""``make bench``: all of it, side by side, written to docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import storms, watching
from tests.bench.measure import MEMORY, Row

TARGET = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"
PARTS: tuple[tuple[str, Callable[[], Iterator[Row]]], ...] = (
    ("Polls and scrapes", watching.scrapes),
    ("Compression", watching.compression),
    ("Cgroups", watching.many_cgroups),
    ("The event loop", watching.loops),
    ("Memory", watching.memory_over_polls),
    ("Storms", storms.loads),
    ("Tasks alive at one time", storms.most_alive),
    ("Making cgroups", storms.making_cgroups),
    ("Scrapes while a storm runs", storms.scrapes_in_a_storm),
)


def main(chosen: list[str]) -> int:
    """Run all parts, or those whose titles begin with one of ``chosen``; the others' sections stay as they are."""
    missing = [tool for tool in ("prometheus-node-exporter", "cgcreate") if not shutil.which(tool)]
    if os.geteuid() != 0 or missing or not (MEMORY / "cgroup.procs").exists():
        print(f"needs root, cgroup v1 memory at {MEMORY}, and {', '.join(missing) or 'nothing else'}", file=sys.stderr)
        return 1
    sections = _written()
    for title, part in PARTS:
        if chosen and not any(title.lower().startswith(word.lower()) for word in chosen):
            continue
        print(f"{title} ...", file=sys.stderr)
        lines = [f"## {title}\n\n{_when()}\n\n| what | slabwatch | beside it | ratio | aim |\n|---|---|---|---|---|"]
        for row in part():
            aim = "" if row.aim is None else f"{row.aim:.3g}"
            ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
            lines.append(f"| {row.what} | {row.ours} | {row.theirs} | {ratio} | {aim} |")
            print(lines[-1], file=sys.stderr)
        sections[title] = "\n".join(lines)
    TARGET.parent.mkdir(exist_ok=True)
    ordered = [sections[title] for title, _ in PARTS if title in sections]
    TARGET.write_text("\n\n".join([_HEAD, *ordered, _NOTES]))
    return 0


def _written() -> dict[str, str]:
    """Sections of the last run, by title."""
    if not TARGET.exists():
        return {}
    parts = re.split(r"^(?=## )", TARGET.read_text(), flags=re.MULTILINE)[1:]
    return {part.splitlines()[0].removeprefix("## "): part.strip() for part in parts}


def _when() -> str:
    on = f"On {time.strftime('%Y-%m-%d')}: Linux {platform.release()}"
    return f"{on}, {os.cpu_count()} CPUs, Python {platform.python_version()}."


_HEAD = """# Benchmarks

Written by `make bench`. Ratios are slabwatch / peer, each row from one run on one machine, but parts are of different
days and machines; an aim is what was to be reached. Peers: Debian's prometheus-node-exporter with its slabinfo and
meminfo collectors alone, and cgroup-tools."""


_NOTES = """## What was chosen by these figures

* **Descriptors of cgroups' files are kept, but few** (`cgroups.kept_descriptors`, 1,000). A kept one saves about 7 µs
  of CPU a poll and pins about 5 kB of unreclaimable slab: a page-sized seq_file buffer and the objects around it.
  For 1,000 cgroups with 7 files each, all of them would cost 31 MiB of the very memory that is watched, and save 0.4 %
  of one CPU at a poll every 10 s.
* **asyncio's own event loop.** At a poll every 10 s uvloop takes the same CPU time within the noise, and 2.4 MB more.
* **ISA-L compresses the page** (isal, level 1), because a scraper asks for a compressed page each time. Of a page of
  116 kB it made 14.3 kB in 0.10 ms; zlib's level 1 the same in 0.53, level 2 14.1 kB in 0.75; with 200 ms between, 0.22
  against 1.13 and 1.10. It takes 0.5 MiB. Where there is no isal for a machine, zlib does it.
* **msgspec holds the forms of what comes from outside.** With those of the configuration and of requests it takes 3.1
  MiB; pydantic with the same took 11.7. The rest of 41 MiB, as imported one after the other: Python 9, asyncio with ssl
  11, prometheus_client 5 (much of it modules that aiohttp loads too), aiohttp 9, slabwatch itself 4.
* **What the process uses is read here.** prometheus_client's ProcessCollector took 0.08 to 0.16 ms a page, and 0.47
  with 50 ms between; reading and rendering the same figures takes 0.06, and 0.33.
* **The host's history counts.** The kernel walks all partial slabs at each read of slabinfo. Twice a second, the two
  files alone took 3.5 ms with some 25,000 partial slabs, after a day of storms and builds, and 1.1 ms with 3,500: on
  such a host the ratios are worse, as the kernel's share is the same for all.
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
