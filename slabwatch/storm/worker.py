"""A worker of the storm: enters one cgroup after another and fills each with tasks.

Forked from the engine, never a thread of it. It enters its cgroup *before* it spawns, because the kernel
charges a new task's memory to the cgroup of the one that forks. Reports go to the engine as lines of five
numbers (see ``Report``), orders come as single bytes. Standard library only: see ``engine``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from slabwatch.storm import lifecycle, spawn

DRAIN = b"d"  # end all tasks, then leave
REPORT_SECONDS = 0.1
_RETRY_SECONDS = 5.0  # how long a fork may go on failing for lack of pids before the rest counts as failed
_BUSY_SECONDS = 2.0  # how long rmdir may say EBUSY after the last task was waited for
_SCRIPT = 'i=0; while [ "$i" -lt {tasks} ]; do printf . >&3; sleep 1 || exit 1; i=$((i+1)); done'


@dataclass(frozen=True, slots=True)
class Work:
    """What one worker is to do. ``live_tasks`` is its share of those alive at one time."""

    storm_id: str
    cgroups: Sequence[str]  # directories
    home: str  # the cgroup that it goes back to when the work is done
    tasks: int
    kind: str
    live_tasks: int
    at_once: int  # kind shell: cgroups at one time
    shell: str
    removal: str = "last"
    pids: str = ""  # v1: the cgroup of the pids controller that it enters, and its tasks with it
    pin: int = -1  # removal first: the descriptor of a memfd that gets a page for each cgroup
    first_page: int = 0  # of the pages that are this worker's in it
    seconds_each: float = 0.0  # time from one cgroup to the next; 0: none


@dataclass(slots=True)
class Report:
    """Counts since the start: cgroups filled, tasks started, failed, alive now, and alive at the peak."""

    cgroups: int = 0
    started: int = 0
    failed: int = 0
    live: int = 0
    peak: int = 0
    loaded: int = 0  # 1: all that was to be started has been

    def line(self) -> bytes:
        """As sent to the engine: one line, shorter than PIPE_BUF, so written whole."""
        return b"%d %d %d %d %d %d\n" % (self.cgroups, self.started, self.failed, self.live, self.peak, self.loaded)


class Worker:
    """Runs in its own process. ``orders`` and ``reports`` are the descriptors of its two pipes."""

    def __init__(self, work: Work, orders: int, reports: int) -> None:
        self.work = work
        self.report = Report()
        self._reports = reports
        self._last_report = 0.0
        self._alive: deque[int] = deque()
        self._starter: spawn.Starter | None = None
        self._orders = select.poll()
        self._orders.register(orders, select.POLLIN)

    def run(self) -> None:
        """Load, wait for the order to drain, drain."""
        gc.disable()  # nothing here makes cycles; a collection would only touch pages
        if self.work.pids:
            lifecycle.enter(self.work.pids)
        if self.work.kind == "shell":
            self._load_scripts()
        else:
            self._load()
        lifecycle.enter(self.work.home)
        self.report.loaded = 1
        self._tell()
        while not self._ordered(1000):
            self._reap()
            self._tell()
        self._end_tasks(len(self._alive))
        self._tell()

    def _load(self) -> None:
        kind = self.work.kind
        starter = spawn.Execer() if kind == "exec" else spawn.Cloner(share_memory=kind == "light")
        self._starter = starter
        work = self.work
        started = time.monotonic()
        for number, directory in enumerate(work.cgroups):
            if work.removal == "each":
                os.mkdir(directory)
            lifecycle.enter(directory)
            if work.pin >= 0:
                # Charged to the cgroup that it is written in, and held by the engine: the cgroup stays dying.
                os.pwrite(work.pin, b"slabwatch", (work.first_page + number) * mmap.PAGESIZE)
            for index in range(work.tasks):
                if len(self._alive) >= self.work.live_tasks:
                    self._end_tasks(max(1, self.work.live_tasks // 8))
                if not self._start_one(starter):
                    self.report.failed += self.work.tasks - index
                    break
            self.report.cgroups += 1
            if work.removal == "each":
                self._remove(directory)
            self._tell_sometimes()
            wait = started + (number + 1) * work.seconds_each - time.monotonic()
            if self._ordered(max(0, int(1000 * wait)) if work.seconds_each else 0):
                return

    def _remove(self, directory: str) -> None:
        """Removal each: end the tasks, leave, remove. What is busy for longer is left to the engine's cleanup."""
        self._end_tasks(len(self._alive))
        lifecycle.enter(self.work.home)
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                os.rmdir(directory)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > until:
                    return
                time.sleep(0.005)
            else:
                return

    def _start_one(self, starter: spawn.Starter) -> bool:
        until = time.monotonic() + _RETRY_SECONDS
        while True:
            try:
                self._alive.append(starter.start())
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                    raise
                # Others use pids too: make room among our own, and try again for a while.
                self._end_tasks(max(1, len(self._alive) // 4))
                if time.monotonic() > until or self._ordered(20):
                    return False
                continue
            self.report.started += 1
            self.report.live += 1
            self.report.peak = max(self.report.peak, self.report.live)
            return True

    def _end_tasks(self, count: int) -> None:
        """End the ``count`` oldest tasks and wait for them."""
        ending = [self._alive.popleft() for _ in range(min(count, len(self._alive)))]
        for pid in ending:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for number, pid in enumerate(ending):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            self._forget(pid)
            self.report.live -= 1
            if number % 64 == 0:
                self._tell_sometimes()

    def _load_scripts(self) -> None:
        """Kind shell: ``at_once`` cgroups have a script running; each dot that it prints is a task started."""
        dots, script_end = os.pipe()
        os.set_blocking(dots, False)
        script = _SCRIPT.format(tasks=self.work.tasks)
        waiting = deque(self.work.cgroups)
        dotted = select.poll()
        dotted.register(dots, select.POLLIN)
        while waiting or self._alive:
            while waiting and len(self._alive) < self.work.at_once:
                lifecycle.enter(waiting.popleft())
                self._alive.append(spawn.start_script(self.work.shell, script, script_end))
            if self._ordered(0):
                return
            dotted.poll(100)
            self._count_dots(dots)
            self._reap()
            self.report.live = min(len(self._alive), self.report.started)
            self.report.peak = max(self.report.peak, self.report.live)
            self._tell_sometimes()
        self._count_dots(dots)
        self.report.failed = len(self.work.cgroups) * self.work.tasks - self.report.started

    def _count_dots(self, dots: int) -> None:
        try:
            while chunk := os.read(dots, 65536):
                self.report.started += len(chunk)
        except BlockingIOError:
            pass

    def _reap(self) -> None:
        """Wait for tasks that have ended by themselves."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._alive:
                self._alive.remove(pid)
                self._forget(pid)
                if self.work.kind == "shell":
                    self.report.cgroups += 1
                self.report.live = len(self._alive)

    def _forget(self, pid: int) -> None:
        if self._starter is not None:
            self._starter.ended(pid)

    def _ordered(self, timeout_milliseconds: int) -> bool:
        """Whether the engine wants an end: it said so, or it is gone."""
        return bool(self._orders.poll(timeout_milliseconds))

    def _tell_sometimes(self) -> None:
        now = time.monotonic()
        if now - self._last_report >= REPORT_SECONDS:
            self._last_report = now
            self._tell()

    def _tell(self) -> None:
        os.write(self._reports, self.report.line())


def run(work: Work, life: int, orders: int, reports: int, engine: int) -> None:
    """The forked worker's whole life; never returns.

    Lowest priority by nice, not SCHED_IDLE: a task that never gets the CPU while it holds a kernel lock (cgroup
    creation, slab_mutex) would stop the host's own work.
    """
    status = 1
    try:
        spawn.die_with_parent(engine)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.nice(19)
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
        os.dup2(life, 0)
        os.close(life)
        Worker(work, orders, reports).run()
        status = 0
    except BrokenPipeError:  # of ``reports``: the engine has gone, and says so by that
        pass
    except BaseException as error:  # the border of a process: the engine reads the reason from stderr
        os.write(2, f"worker: {type(error).__name__}: {error}\n".encode())
    finally:
        sys.stderr.flush()
        os._exit(status)
