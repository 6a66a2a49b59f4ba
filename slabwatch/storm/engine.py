"""The engine: a child process of the daemon that makes a storm's cgroups and loads them by its workers.

Orders come as JSON lines on stdin (``create``, ``load``, ``drain``, ``remove_first``, ``press_storm``,
``press_host``, ``remove``), what happens goes to stdout as JSON lines. The end of stdin means that the daemon is gone:
then everything is killed and removed, and the engine ends. Tasks live only while the engine does (see ``spawn``), so
no order of deaths leaves one behind.

Engine and workers run under ``python -I -S -E`` on the standard library alone, so that the memory map that is
forked 100,000 times is a small one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from slabwatch.storm import lifecycle, limits, pressure, spawn, worker
from slabwatch.storm.oom import oom_kills, times
from slabwatch.storm.setup import DRAIN_SECONDS, REMOVE_SECONDS, Setup

_TELL_SECONDS = 0.2
_PROGRESS = ("create", "load", "pressing")


class MemoryLimitReached(Exception):
    """The storm's own memory limit: the OOM killer has struck in its cgroups."""


@dataclass(slots=True)
class _Child:
    pid: int
    orders: int
    reports: int
    report: worker.Report = field(default_factory=worker.Report)
    unread: bytes = b""
    status: int | None = None


class Engine:
    """One storm. ``tell`` writes an event for the daemon."""

    def __init__(self, setup: Setup, tell: Callable[..., None]) -> None:
        self.setup = setup
        self.root = lifecycle.storm_root(setup.parent, setup.storm_id)
        self._pids_root = ""  # where it is not the root itself
        self._tell = tell
        self._children: list[_Child] = []
        self._life_read, self._life_write = os.pipe()
        self._loaded_told = False
        self._pin = -1
        self._last_tell = 0.0

    def create(self, interrupted: Callable[[], bool]) -> None:
        """Make the storm's root with its limits, and its cgroups."""
        setup = self.setup
        if setup.version == 2:
            limits.offer_controllers(setup.parent)
        os.mkdir(self.root)
        limited = limits.set_limits(
            self.root, self._make_pids_root(), setup.version, setup.limit_bytes, setup.limit_pids
        )
        made = 0
        for index in range(0 if setup.removal == "each" else setup.cgroups):
            os.mkdir(os.path.join(self.root, lifecycle.cgroup_name(index)))
            made += 1
            if made % 16 == 0:
                if interrupted():
                    break
                if self._due():
                    self._tell("create", cgroups=made)
        self._tell("created", cgroups=made, limits=limited)

    def _make_pids_root(self) -> str:
        """The directory whose pids.max counts; "" where there is none, which is no reason not to storm."""
        setup = self.setup
        if setup.pids_parent == setup.parent:  # v2, and v1 where both controllers share a hierarchy
            return self.root
        if setup.pids_parent:
            directory = lifecycle.storm_root(setup.pids_parent, setup.storm_id)
            try:
                os.mkdir(directory)
                self._pids_root = directory
            except OSError as error:
                print(f"engine: {directory} not made: {error.strerror}", file=sys.stderr, flush=True)
        return self._pids_root

    def load(self) -> None:
        """Fork the workers; what they report is passed on by ``attend``."""
        setup = self.setup
        paths = lifecycle.own_children(self.root)
        if setup.removal == "each":
            paths = [os.path.join(self.root, lifecycle.cgroup_name(index)) for index in range(setup.cgroups)]
        elif setup.removal == "first":
            self._pin = os.memfd_create("slabwatch-storm")
        page = 0
        workers = max(1, min(setup.workers, len(paths)))
        for index in range(workers):
            share = paths[index::workers]
            work = worker.Work(
                storm_id=setup.storm_id,
                cgroups=share,
                home=setup.home,
                tasks=setup.tasks,
                kind=setup.kind,
                # By cgroups, which workers need not have the same number of: where all may be alive, all can.
                live_tasks=max(1, setup.live_tasks * len(share) // len(paths)),
                at_once=max(1, setup.at_once // workers),
                shell=setup.shell,
                removal=setup.removal,
                pids=self._pids_root,
                pin=self._pin,
                first_page=page,
                seconds_each=workers / setup.cgroups_per_second if setup.cgroups_per_second else 0.0,
            )
            page += len(share)
            self._children.append(self._fork(work))

    def attend(self, descriptors: list[int]) -> None:
        """Read the reports that are there, wait for workers that have ended, tell the daemon now and then."""
        for child in self._children:
            if child.reports in descriptors:
                self._read(child)
            if child.status is None:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._read(child)
                    child.status = os.waitstatus_to_exitcode(status)
        if not self._children:
            return
        if self._due():
            self._tell("load", **self._totals())
        dead = [child.status for child in self._children if child.status]
        if dead:
            if kills := oom_kills(lifecycle.own_children(self.root), self.setup.version):
                raise MemoryLimitReached(
                    f"the OOM killer struck {times(kills)} in the storm's own cgroups: their memory limit of "
                    f"{self.setup.limit_bytes} bytes was reached, and a worker ended with status {dead[0]}"
                )
            raise RuntimeError(f"a worker ended with status {dead[0]}")
        if not self._loaded_told and all(child.report.loaded for child in self._children):
            self._loaded_told = True
            self._tell("loaded", **self._totals())

    def report_descriptors(self) -> list[int]:
        """To be watched for input."""
        return [child.reports for child in self._children if child.status is None]

    def drain(self) -> None:
        """End all tasks: by the workers, and after a deadline without them."""
        for child in self._children:
            with contextlib.suppress(BrokenPipeError):
                os.write(child.orders, worker.DRAIN)
        self._wait_for_workers(DRAIN_SECONDS)
        self.kill()
        self._tell("drained", **self._totals())
        self._children.clear()

    def kill(self) -> None:
        """End workers and tasks at once; they are waited for, a moment."""
        for child in self._children:
            if child.status is None:
                os.kill(child.pid, signal.SIGKILL)
        if self._life_write >= 0:
            os.close(self._life_write)
            self._life_write = -1
        self._wait_for_workers(5.0)

    def remove_first(self) -> None:
        """Remove the cgroups while a page is charged to each, and keep the root."""
        swept = lifecycle.remove_root(self.root, deadline_seconds=REMOVE_SECONDS, keep_root=True)
        self._tell("removed_first", removed=swept.removed, left=swept.left)

    def press(self, where: str, interrupted: Callable[[], bool]) -> None:
        """Use memory up in the storm's cgroup, or on the host down to the floor."""

        def told(consumed: int) -> None:
            if self._due():
                self._tell("pressing", consumed_bytes=consumed)

        floor = self.setup.pressure_floor_bytes if where == "host" else None
        pressed = pressure.press(self.root, self.setup.version, floor, interrupted, told)
        self._tell(f"pressed_{where}", **pressed.as_dict())

    def remove(self) -> None:
        """Remove the cgroups, by name and place, and let go of what held them."""
        if self._pin >= 0:
            os.close(self._pin)
            self._pin = -1
        swept = lifecycle.remove_root(self.root, deadline_seconds=REMOVE_SECONDS)
        if self._pids_root:
            swept.left |= lifecycle.remove_root(self._pids_root, deadline_seconds=REMOVE_SECONDS).left
        self._tell("removed", removed=swept.removed, left=swept.left)

    def _wait_for_workers(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            running = [child for child in self._children if child.status is None]
            if not running or time.monotonic() > until:
                return
            ready, _, _ = select.select([child.reports for child in running], [], [], 0.05)
            for child in running:
                if child.reports in ready:
                    self._read(child)
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._read(child)
                    child.status = os.waitstatus_to_exitcode(status)
            if self._due():
                self._tell("load", **self._totals())

    def _fork(self, work: worker.Work) -> _Child:
        orders_read, orders_write = os.pipe()
        reports_read, reports_write = os.pipe()
        os.set_blocking(reports_read, False)
        engine = os.getpid()
        pid = os.fork()
        if pid == 0:
            for child in self._children:
                os.close(child.orders)
                os.close(child.reports)
            for descriptor in (orders_write, reports_read, self._life_write):
                os.close(descriptor)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)  # stdout is the engine's alone
            os.close(null)
            worker.run(work, self._life_read, orders_read, reports_write, engine)
        os.close(orders_read)
        os.close(reports_write)
        return _Child(pid, orders_write, reports_read)

    def _read(self, child: _Child) -> None:
        try:
            data = os.read(child.reports, 65536)
        except BlockingIOError:
            return
        *lines, child.unread = (child.unread + data).split(b"\n")
        if lines:
            child.report = worker.Report(*(int(number) for number in lines[-1].split()))

    def _totals(self) -> dict[str, int]:
        reports = [child.report for child in self._children]
        names = ("cgroups", "started", "failed", "live", "peak")
        return {name: sum(getattr(report, name) for report in reports) for name in names}

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._last_tell < _TELL_SECONDS:
            return False
        self._last_tell = now
        return True


def serve(setup: Setup) -> int:
    """Follow the daemon's orders until they end."""
    daemon = _Daemon()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: setattr(daemon, "closed", True))
    until = time.monotonic() + (setup.ttl_seconds or math.inf)

    def interrupted() -> bool:
        return daemon.closed or bool(select.select([0], [], [], 0)[0])

    engine = Engine(setup, daemon.tell)
    obey = {
        "create": lambda: engine.create(interrupted),
        "load": engine.load,
        "drain": engine.drain,
        "remove_first": engine.remove_first,
        "press_storm": lambda: engine.press("storm", interrupted),
        "press_host": lambda: engine.press("host", interrupted),
        "remove": engine.remove,
    }
    try:
        while not daemon.closed:
            watched = [0, *engine.report_descriptors()]
            ready, _, _ = select.select(watched, [], [], 0.2)
            if time.monotonic() > until:
                raise RuntimeError(f"no order to end within {setup.ttl_seconds:g} s: does the daemon hang?")
            engine.attend(ready)
            for order in daemon.orders() if 0 in ready else ():
                obey[order]()
                if order == "remove":
                    return 0
    except Exception as error:  # the border of a process: said, cleaned up, ended
        by_limit = isinstance(error, MemoryLimitReached)
        daemon.tell("failed", reason=str(error) if by_limit else f"{type(error).__name__}: {error}", by_limit=by_limit)
    engine.kill()
    engine.remove()
    return 1


class _Daemon:
    """The other end of stdin and stdout, both unbuffered, so that select tells the truth."""

    def __init__(self) -> None:
        self.closed = False
        self._unread = b""

    def orders(self) -> list[str]:
        """Those that are there. Blocks while there is nothing."""
        data = os.read(0, 65536)
        if not data:
            self.closed = True
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [str(json.loads(line)["do"]) for line in lines]

    def tell(self, at: str, **figures: object) -> None:
        """One event."""
        # A daemon that hangs does not read: who waits for it here, lives on when the time to live is over.
        if at in _PROGRESS and not select.select([], [1], [], 0)[1]:
            return
        try:
            os.write(1, (json.dumps({"at": at, **figures}) + "\n").encode())
        except BrokenPipeError:
            self.closed = True


def main() -> None:
    """Entry point: ``python -I -S -E -c ... '<setup as JSON>'``."""
    spawn.keep_capabilities_from_programs()
    sys.exit(serve(Setup(**json.loads(sys.argv[1]))))
