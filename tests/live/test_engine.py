"""The storm's engine on this kernel: in whichever phase it or a worker is killed, no task and no cgroup stays."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from slabwatch.errors import StormAborted
from slabwatch.storm import lifecycle
from slabwatch.storm.engine_process import EngineProcess
from slabwatch.storm.setup import Setup
from tests.live.kernel import (
    alive,
    cgroups_below,
    children,
    marked,
    own_pids_directory,
    status,
    wait_for_no_task,
)

pytestmark = pytest.mark.live

CGROUPS, TASKS = 40, 20
PHASES = ("create", "load", "hold", "drain")


class Storm:
    """An engine in a cgroup of the test's, driven to a phase."""

    def __init__(self, engine: EngineProcess, root: Path, pids_parent: Path) -> None:
        self.engine = engine
        self.root = root
        self.id = root.name.removeprefix(lifecycle.PREFIX)
        self.pids_root = pids_parent / root.name
        self.pid = engine._process.pid
        self._order: asyncio.Task[None] | None = None

    async def reach(self, phase: str) -> None:
        """Go on until ``phase`` has begun and is, most likely, not yet over."""
        self._begin("create", "created")
        if phase == "create":
            return await until(self.root.is_dir)
        await self._done()
        self._begin("load", "loaded")
        if phase == "load":
            return await until(lambda: self.tasks() > TASKS)
        await self._done()
        if phase == "hold":
            return None
        full = self.tasks()
        self._begin("drain", "drained")
        return await until(lambda: self.tasks() < full)

    def _begin(self, do: str, until_event: str) -> None:
        self._order = asyncio.create_task(self.engine.order(do, until=until_event))

    async def _done(self) -> None:
        assert self._order is not None
        await asyncio.wait_for(self._order, 30)

    async def outcome(self) -> str:
        """How the order that was given last has ended: "" or the reason why not."""
        assert self._order is not None
        try:
            await asyncio.wait_for(self._order, 10)
        except StormAborted as error:
            return str(error)
        return ""

    async def forget(self) -> None:
        """However the last order has ended."""
        if self._order is not None:
            await asyncio.gather(self._order, return_exceptions=True)

    def tasks(self) -> int:
        """Processes in the storm's cgroups."""
        return sum(len(lifecycle.processes(str(path))) for path in cgroups_below(self.root))

    def workers(self) -> list[int]:
        return children(self.pid)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


@asynccontextmanager
async def storm(
    parent: Path,
    hierarchy: tuple[Path, int],
    kind: str = "exec",
    tasks: int = TASKS,
    cgroups: int = CGROUPS,
    live_tasks: int | None = None,
    limit_bytes: int = 4 << 30,
) -> AsyncIterator[Storm]:
    with own_pids_directory(parent) as pids_parent:
        storm_id = f"live-{os.getpid()}"
        setup = Setup(
            storm_id=storm_id,
            parent=str(parent),
            home=str(hierarchy[0]),
            version=hierarchy[1],
            cgroups=cgroups,
            tasks=tasks,
            kind=kind,
            workers=2,
            live_tasks=live_tasks or cgroups * tasks,
            at_once=cgroups,
            shell="/bin/bash",
            limit_bytes=limit_bytes,
            pressure_floor_bytes=1 << 50,
            limit_pids=2000,
            pids_parent=str(pids_parent or parent),
        )
        engine = await EngineProcess.start(setup)
        run = Storm(engine, Path(lifecycle.storm_root(str(parent), storm_id)), pids_parent or parent)
        try:
            yield run
        finally:
            await engine.end(20)
            await run.forget()
            for pid in marked(storm_id):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for directory in (run.root, run.pids_root):
                lifecycle.remove_root(str(directory), deadline_seconds=5)


def oom_score_adj(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))


def assert_removable(root: Path) -> None:
    """What a daemon does when it comes back."""
    assert lifecycle.remove_root(str(root), deadline_seconds=5).left == {}
    assert not root.exists()


async def gone(storm_id: str) -> None:
    await asyncio.to_thread(wait_for_no_task, storm_id, 5.0)


@pytest.mark.parametrize("kind", ["light", "fork", "exec"])
@pytest.mark.asyncio
async def test_a_storm_from_beginning_to_end(parent: Path, hierarchy: tuple[Path, int], kind: str) -> None:
    total = CGROUPS * TASKS
    async with storm(parent, hierarchy, kind) as run:
        await run.engine.order("create", until="created")
        assert run.engine.created == CGROUPS
        assert [path.name for path in sorted(cgroups_below(run.root))] == [f"c{index:04d}" for index in range(CGROUPS)]
        await run.engine.order("load", until="loaded")
        assert run.engine.counts == {"cgroups": CGROUPS, "started": total, "failed": 0, "live": total, "peak": total}
        # Each cgroup has its tasks and nothing else: the workers have gone home.
        assert {len(lifecycle.processes(str(path))) for path in cgroups_below(run.root)} == {TASKS}
        assert len(marked(run.id)) == total + 1 + len(run.workers())
        assert {oom_score_adj(pid) for pid in run.workers()} == {1000}
        await run.engine.order("drain", until="drained")
        assert run.engine.counts["live"] == 0
        assert run.tasks() == 0
        assert run.workers() == []
        await run.engine.order("remove", until="removed")
        assert (run.engine.removed, run.engine.left) == (CGROUPS + 1, {})
        assert not run.root.exists()
        await gone(run.id)


@pytest.mark.asyncio
async def test_the_kernel_s_own_limits(parent: Path, hierarchy: tuple[Path, int]) -> None:
    async with storm(parent, hierarchy, "light") as run:
        await run.engine.order("create", until="created")
        limited = (run.pids_root / "pids.max").exists()
        assert run.engine.limits == {"memory_bytes": 4 << 30, "pids": 2000 if limited else None}
        limit = run.root / ("memory.max" if hierarchy[1] == 2 else "memory.limit_in_bytes")
        assert int(limit.read_text(encoding="ascii")) == 4 << 30
        await run.engine.order("load", until="loaded")
        if limited:
            assert (run.pids_root / "pids.max").read_text(encoding="ascii") == "2000\n"
            counted = int((run.pids_root / "pids.current").read_text(encoding="ascii"))
            assert counted == CGROUPS * TASKS + (0 if hierarchy[1] == 2 else len(run.workers()))
        await run.engine.order("drain", until="drained")
        await run.engine.order("remove", until="removed")
        assert (run.root.exists(), run.pids_root.exists()) == (False, False)


@pytest.mark.asyncio
async def test_a_storm_that_reaches_its_memory_limit_says_so(parent: Path, hierarchy: tuple[Path, int]) -> None:
    """8 MiB for 800 tasks with memory maps of their own: the OOM killer takes a worker sooner or later."""
    async with storm(parent, hierarchy, "fork", limit_bytes=8 << 20) as run:
        await run.engine.order("create", until="created")
        with pytest.raises(StormAborted) as said:
            await asyncio.wait_for(run.engine.order("load", until="loaded"), 60)
        assert run.engine.by_limit
        assert re.match(
            r"the OOM killer struck (once|\d+ times) in the storm's own cgroups: their memory limit of 8388608 bytes "
            r"was reached, and a worker ended with status -9",
            str(said.value),
        )
        await run.engine.end(20)
        assert not run.root.exists()


@pytest.mark.asyncio
async def test_memory_is_used_up_until_the_kernel_gives_no_more(parent: Path, hierarchy: tuple[Path, int]) -> None:
    async with storm(parent, hierarchy, "light", tasks=2) as run:
        for do, done in (("create", "created"), ("load", "loaded"), ("drain", "drained")):
            await run.engine.order(do, until=done)
        used = (run.root / ("memory.current" if hierarchy[1] == 2 else "memory.usage_in_bytes")).read_text("ascii")
        await asyncio.wait_for(run.engine.order("press_storm", until="pressed_storm"), 30)
        pressed = run.engine.pressed["storm"]
        assert (pressed["ended"], pressed["oom_kills"], pressed["where"]) == ("limit", 1, "storm")
        assert pressed["limit_bytes"] == pytest.approx(int(used) + (64 << 20), abs=4 << 20)
        assert 60 << 20 <= pressed["consumed_bytes"] <= pressed["limit_bytes"]
        assert pressed["limit_hits"] > 0
        assert [path.name for path in cgroups_below(run.root)].count("pressure") == 1
        assert lifecycle.processes(str(run.root / "pressure")) == []
        # On the host, above a floor that is higher than what there is: nothing.
        await asyncio.wait_for(run.engine.order("press_host", until="pressed_host"), 30)
        pressed = run.engine.pressed["host"]
        assert (pressed["ended"], pressed["consumed_bytes"], pressed["oom_kills"]) == ("floor", 0, 0)
        await run.engine.order("remove", until="removed")
        assert not run.root.exists()


@pytest.mark.parametrize(("live_tasks", "least"), [(9, 9), (8, 7), (4, 2), (1, 1)])
@pytest.mark.asyncio
async def test_as_many_live_at_one_time_as_may(
    parent: Path, hierarchy: tuple[Path, int], live_tasks: int, least: int
) -> None:
    """Three cgroups for two workers: their shares differ."""
    async with storm(parent, hierarchy, "fork", tasks=3, cgroups=3, live_tasks=live_tasks) as run:
        await run.engine.order("create", until="created")
        await run.engine.order("load", until="loaded")
        assert (run.engine.counts["started"], run.engine.counts["failed"]) == (9, 0)
        assert least <= run.engine.counts["peak"] <= max(2, live_tasks)  # each worker has one at least


@pytest.mark.asyncio
async def test_scripts_from_beginning_to_end(parent: Path, hierarchy: tuple[Path, int]) -> None:
    async with storm(parent, hierarchy, "shell", tasks=1) as run:
        await run.engine.order("create", until="created")
        await run.engine.order("load", until="loaded")
        counts = run.engine.counts
        assert (counts["cgroups"], counts["started"], counts["failed"], counts["live"]) == (CGROUPS, CGROUPS, 0, 0)
        await run.engine.order("drain", until="drained")
        await run.engine.order("remove", until="removed")
        assert (run.engine.removed, run.engine.left) == (CGROUPS + 1, {})


@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        *((phase, "exec") for phase in PHASES),
        ("load", "shell"),
        ("hold", "light"),
        ("hold", "fork"),
        ("drain", "fork"),
    ],
)
@pytest.mark.asyncio
async def test_nothing_lives_on_when_the_engine_is_killed(
    parent: Path, hierarchy: tuple[Path, int], phase: str, kind: str
) -> None:
    async with storm(parent, hierarchy, kind) as run:
        await run.reach(phase)
        os.kill(run.pid, signal.SIGKILL)
        await gone(run.id)
        if phase == "load":  # the others may have come to their end just then
            assert (await run.outcome()).startswith("the engine is gone before its work was done")
        with pytest.raises(StormAborted, match="the engine is gone"):
            await run.engine.order("remove", until="removed")
        assert run.root.is_dir()
        assert_removable(run.root)


@pytest.mark.parametrize(("phase", "kind"), [("load", "exec"), ("load", "shell"), ("hold", "light"), ("hold", "fork")])
@pytest.mark.asyncio
async def test_nothing_lives_on_when_a_worker_is_killed(
    parent: Path, hierarchy: tuple[Path, int], phase: str, kind: str
) -> None:
    async with storm(parent, hierarchy, kind) as run:
        await run.reach(phase)
        os.kill(run.workers()[-1], signal.SIGKILL)
        await gone(run.id)
        # The engine has noticed, has cleaned up by itself, and says why.
        await until(lambda: not alive(run.pid))
        assert not run.root.exists()
        with pytest.raises(StormAborted, match="a worker ended with status -9"):
            await run.engine.order("drain", until="drained")


@pytest.mark.asyncio
async def test_a_worker_s_death_while_draining_costs_nothing(parent: Path, hierarchy: tuple[Path, int]) -> None:
    async with storm(parent, hierarchy) as run:
        await run.reach("hold")
        for worker in run.workers():
            os.kill(worker, signal.SIGSTOP)
        draining = asyncio.create_task(run.engine.order("drain", until="drained"))
        await asyncio.sleep(0)
        for worker in run.workers():
            os.kill(worker, signal.SIGKILL)
        with suppress(StormAborted):
            await asyncio.wait_for(draining, 5)
        await until(lambda: run.tasks() == 0)
    assert not run.root.exists()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.asyncio
async def test_the_end_of_stdin_ends_and_removes_all(parent: Path, hierarchy: tuple[Path, int], phase: str) -> None:
    """So it is when the daemon dies, by whatever."""
    async with storm(parent, hierarchy) as run:
        await run.reach(phase)
        started = time.monotonic()
        await run.engine.end(20)
        assert time.monotonic() - started < 5
        assert not status(run.pid)
        assert marked(run.id) == []
        assert not run.root.exists()
        await run.outcome()


@pytest.mark.asyncio
async def test_an_engine_that_hangs_is_killed_after_its_deadline(parent: Path, hierarchy: tuple[Path, int]) -> None:
    async with storm(parent, hierarchy) as run:
        await run.reach("hold")
        os.kill(run.pid, signal.SIGSTOP)
        await run.engine.end(0.2)
        await gone(run.id)
        assert_removable(run.root)


@pytest.mark.asyncio
async def test_a_storm_that_is_at_work_is_no_orphan(parent: Path, hierarchy: tuple[Path, int]) -> None:
    async with storm(parent, hierarchy) as run:
        await run.reach("hold")
        full = run.tasks()
        swept = await asyncio.to_thread(lifecycle.remove_orphans, str(parent), deadline_seconds=0.3)
        assert (swept.removed, swept.killed) == (0, 0)
        assert list(swept.left) == [str(run.root)]
        assert str(run.pid) in swept.left[str(run.root)] or any(
            str(pid) in swept.left[str(run.root)] for pid in run.workers()
        )
        assert run.tasks() == full == CGROUPS * TASKS
        os.kill(run.pid, signal.SIGKILL)
        swept = await asyncio.to_thread(lifecycle.remove_orphans, str(parent), deadline_seconds=5)
        assert (swept.removed, swept.left) == (CGROUPS + 1, {})


@pytest.mark.asyncio
async def test_an_engine_that_can_not_begin_says_why(parent: Path, hierarchy: tuple[Path, int]) -> None:
    async with storm(parent, hierarchy) as run:
        run.root.mkdir()
        with pytest.raises(StormAborted, match=f"FileExistsError.*{run.root.name}"):
            await run.engine.order("create", until="created")
