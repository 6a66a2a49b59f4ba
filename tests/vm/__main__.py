"""``python -m tests.vm``: prepare the parts, run one guest, or test the whole matrix of kernels."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.vm import document, images
from tests.vm.cache import PROJECT, VmError, cache_directory, need_programs
from tests.vm.debian import Apt, find_mirror
from tests.vm.kernels import SUITES, fetch_kernel, kernel
from tests.vm.machine import Guest, boot
from tests.vm.matrix import SHORT, Cell, all_cells, record, results, run_cells
from tests.vm.matrix import outcome as read_outcome
from tests.vm.payload import build_payload

# In the cache; whatever else is there was put there by somebody else.
PARTS = ("apt", "root", "kernels", "*.cpio", "systemd.img", "site-*")
_SHORT_SUITES = tuple(dict.fromkeys(cell.suite for cell in SHORT))
PROGRAMS = ("apt-get", "dpkg-deb", "debootstrap", "mke2fs", "cpio", "zstd", "lz4", "gzip", "xz")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    arguments = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that it cleans up
    cache = cache_directory()
    try:
        match arguments.verb:
            case "prepare":
                suites = arguments.kernel or (_SHORT_SUITES if arguments.short else SUITES)
                prepare(cache, suites, systemd=not arguments.no_systemd, fresh=arguments.fresh)
                return 0
            case "run":
                return run_guest(cache, arguments)
            case _:
                return run_matrix(cache, arguments)
    except VmError as error:
        print(f"tests.vm: {error}", file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    ready = verbs.add_parser("prepare", help="download and build what is not in the cache yet")
    ready.add_argument("--kernel", action="append", choices=SUITES, help="only these (default: all)")
    ready.add_argument("--short", action="store_true", help="only those that the short matrix boots")
    ready.add_argument("--no-systemd", action="store_true", help="without the disk that systemd guests need")
    ready.add_argument("--fresh", action="store_true", help="all of it once more: newer kernels, newer packages")
    run = verbs.add_parser("run", help="boot one guest, and run a scenario or a command in it")
    run.add_argument("--kernel", choices=SUITES, default="bookworm")
    run.add_argument("--cgroup", choices=("v1", "v2"), default="v2")
    run.add_argument("--systemd", action="store_true", help="systemd as PID 1, from the disk")
    run.add_argument("--deadline", type=float, default=180, metavar="SECONDS")
    run.add_argument("--memory", type=int, default=1024, metavar="MIB")
    run.add_argument("--append", default="", metavar="OPTIONS", help="for the kernel's command line")
    run.add_argument("--with", action="append", default=[], dest="more", metavar="PLACE=PATH",
                     help="carry PATH into the guest, at /payload/PLACE")  # fmt: skip
    run.add_argument("--out", type=Path, metavar="DIR", help="keep what the guest leaves in /out")
    run.add_argument("--console", action="store_true", help="print the console too")
    run.add_argument("command", nargs="+", help="a guest of tests/vm/guests by name, with arguments; or any command")
    matrix = verbs.add_parser("matrix", help="the scenarios on all kernels; then writes docs/kernels.md")
    matrix.add_argument("--short", action="store_true", help="two kernels, one of them with systemd; writes nothing")
    matrix.add_argument("--jobs", type=int, default=2, metavar="N", help="guests at one time")
    matrix.add_argument("--settle", type=float, default=30.0, metavar="SECONDS", help="of the storms")
    matrix.add_argument("--document", action="store_true", help="boot nothing: only write the page, from the last runs")
    matrix.add_argument("cell", nargs="*", help="only these, by their names; writes nothing")
    return parser


def prepare(cache: Path, suites: Sequence[str], *, systemd: bool, fresh: bool = False) -> None:
    """Make what is missing, and say what takes long."""
    need_programs(PROGRAMS)
    cache.mkdir(parents=True, exist_ok=True)
    if fresh:
        for path in (path for pattern in PARTS for path in cache.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with ThreadPoolExecutor() as pool:  # the disk takes longer than all the others together
        making = [pool.submit(_make_kernels, cache, suites)]
        if systemd and not images.disk(cache).exists():
            making.append(pool.submit(_timed, "disk with systemd", lambda: images.build_disk(cache, find_mirror())))
        for part in making:
            part.result()
    for suite in suites:
        print(f"{suite}: {kernel(cache, suite).release} ({kernel(cache, suite).version})")


def _make_kernels(cache: Path, suites: Sequence[str]) -> None:
    missing = [suite for suite in suites if not (cache / "kernels" / suite / "kernel.json").exists()]
    if missing or not images.disk_initramfs(cache).exists():
        apt = Apt(cache / "apt", find_mirror(), tuple(missing))
        apt.update()
        if not images.disk_initramfs(cache).exists():
            _timed("initramfs", partial(images.build_initramfs, cache, apt))
        for suite in missing:
            _timed(f"kernel of {suite}", partial(fetch_kernel, cache, apt, suite))


def run_guest(cache: Path, arguments: argparse.Namespace) -> int:
    """One guest; its output and exit code are this program's."""
    guest = Guest(
        kernel(cache, arguments.kernel),
        arguments.cgroup,
        arguments.systemd,
        memory_mib=arguments.memory,
        options=arguments.append,
    )
    more = {place: Path(path) for place, _, path in (pair.partition("=") for pair in arguments.more)}
    with tempfile.TemporaryDirectory(prefix="slabwatch-vm-") as name:
        result = boot(
            cache,
            guest,
            build_payload(cache, Path(name, "payload")),
            command_of(arguments.command),
            deadline=arguments.deadline,
            out=arguments.out or Path(name, "out"),
            more=more,
        )
    if arguments.console or result.code:
        print(result.console, file=sys.stderr)
    print(result.stdout, end="")
    print(f"tests.vm: exit code {result.code} after {result.seconds:.1f} s", file=sys.stderr)
    return result.code


def run_matrix(cache: Path, arguments: argparse.Namespace) -> int:
    """Every cell, whatever becomes of the others; 1 when a check did not hold."""
    prepare(cache, _SHORT_SUITES if arguments.short else SUITES, systemd=True)
    everything = SHORT if arguments.short else tuple(all_cells(cache))
    chosen = tuple(cell for cell in everything if not arguments.cell or cell.name in arguments.cell)
    if unknown := set(arguments.cell) - {cell.name for cell in chosen}:
        raise VmError(f"no such cell: {', '.join(unknown)}. There are {', '.join(cell.name for cell in everything)}")
    bad = 0
    if not arguments.document:
        for outcome in run_cells(cache, chosen, jobs=arguments.jobs, settle_seconds=arguments.settle):
            held = f"{len(outcome.checks) - len(outcome.failed)} of {len(outcome.checks)} checks hold"
            print(f"{outcome.cell.name}: {outcome.release}, {held}, {outcome.seconds:.0f} s", flush=True)
            if outcome.failed:
                bad += 1
                print(outcome.stdout)
                print((results(cache) / outcome.cell.name / "console").read_text()[-4000:])
    if not arguments.short and not arguments.cell:
        outcomes = [read_outcome(cache, cell) for cell in everything]
        oldest, newest = (record(cache, Cell(suite, "v2")) for suite in (SUITES[0], SUITES[-1]))
        document.write(outcomes, document.compare(oldest, newest))
        print(f"written: {document.TARGET}")
    return 1 if bad else 0


def command_of(words: Sequence[str]) -> list[str]:
    """A guest's name becomes the command that starts it; anything else is a command already."""
    guests = PROJECT / "tests/vm/guests"
    if (guests / f"{words[0]}.py").exists():
        return ["python3", "-m", f"tests.vm.guests.{words[0]}", *words[1:]]
    if (guests / f"{words[0]}.sh").exists():
        return ["sh", f"tests/vm/guests/{words[0]}.sh", *words[1:]]
    return list(words)


def _timed(what: str, make: Callable[[], object]) -> None:
    started = time.monotonic()
    print(f"{what} ...", file=sys.stderr, flush=True)
    make()
    print(f"{what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
