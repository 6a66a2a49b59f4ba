"""The storm's tasks on this kernel: what they are, where they are charged, and what ends them."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import slabwatch
from slabwatch.storm import lifecycle, spawn
from tests.live import starter
from tests.live.kernel import alive, children, marked, status, wait_for_no_task, wait_until

pytestmark = pytest.mark.live

TASKS = 60
STORM_ID = "test-spawn"
READ_SYSCALL = {"x86_64": 0, "aarch64": 63}
PACKAGE_PARENT = str(Path(slabwatch.__file__).parent.parent)


@dataclass
class Started:
    """Tasks, the worker that has started them, and the engine, which alone holds the life pipe open."""

    pids: list[int]
    worker: subprocess.Popen[bytes]
    engine: subprocess.Popen[bytes]
    orders: int

    def collect_ends(self) -> dict[int, int]:
        """Have the worker wait for its tasks; their exit codes."""
        os.close(self.orders)
        self.orders = -1
        assert self.worker.stdout is not None
        return dict(json.loads(self.worker.stdout.readline()))


@contextmanager
def started(kind: str, cgroup: Path) -> Iterator[Started]:
    life_read, life_write = os.pipe()
    orders_read, orders_write = os.pipe()
    engine = subprocess.Popen(["sleep", "60"], pass_fds=[life_write])
    os.close(life_write)
    arguments = (PACKAGE_PARENT, kind, str(TASKS), str(cgroup), str(orders_read))
    worker = subprocess.Popen(
        [sys.executable, "-I", "-S", "-E", starter.__file__, *arguments],
        stdin=life_read,
        stdout=subprocess.PIPE,
        pass_fds=[orders_read],
        env={lifecycle.MARK: STORM_ID, "PATH": "/usr/bin:/bin"},
    )
    os.close(life_read)
    os.close(orders_read)
    tasks = Started([], worker, engine, orders_write)
    try:
        assert worker.stdout is not None
        tasks.pids = json.loads(worker.stdout.readline())
        yield tasks
    finally:
        engine.kill()
        engine.wait()
        if tasks.orders >= 0:
            os.close(tasks.orders)
        worker.communicate(timeout=10)
        wait_for_no_task(STORM_ID)


def kernel_bytes(cgroup: Path) -> int:
    """Kernel memory charged to a cgroup, v1 or v2."""
    v1 = cgroup / "memory.kmem.usage_in_bytes"
    if v1.exists():
        return int(v1.read_text(encoding="ascii"))
    stat = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
    return sum(int(stat.get(key, 0)) for key in ("slab", "kernel_stack", "pagetables", "percpu"))


@pytest.fixture
def cgroup(parent: Path, hierarchy: tuple[Path, int]) -> Iterator[Path]:
    if hierarchy[1] == 2:
        (parent / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    directory = parent / "c0000"
    directory.mkdir()
    yield directory
    wait_until(lambda: not (directory / "cgroup.procs").read_text(encoding="ascii"), 5, "its processes are gone")
    wait_until(lambda: removed(directory), 5, f"rmdir {directory}")


def removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", ["light", "fork", "exec"])
def test_a_task_is_a_real_process_in_its_cgroup(kind: str, cgroup: Path, hierarchy: tuple[Path, int]) -> None:
    before = kernel_bytes(cgroup)
    with started(kind, cgroup) as tasks:
        assert len(set(tasks.pids)) == TASKS
        assert set(children(tasks.worker.pid)) == set(tasks.pids)
        members = set(map(int, (cgroup / "cgroup.procs").read_text(encoding="ascii").split()))
        assert members == {*tasks.pids, tasks.worker.pid}
        for pid in tasks.pids:
            said = status(pid)
            # A process and no thread: the leader of a group of its own, with one thread.
            assert (said["Tgid"], said["Threads"], said["PPid"]) == (str(pid), "1", str(tasks.worker.pid))
            line = next(
                line
                for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
                if ":memory:" in line or (hierarchy[1] == 2 and line.startswith("0::"))
            )
            assert line.endswith(f"/{cgroup.parent.name}/{cgroup.name}")
            assert lifecycle.is_marked(pid, STORM_ID)
            assert not lifecycle.is_marked(pid, STORM_ID[:-1])
        assert set(marked(STORM_ID)) == members
        # A stack of 16 KiB and a task_struct each, less what the kernel counts late (64 pages a CPU).
        late = 64 * 4096 * (os.cpu_count() or 1)
        assert kernel_bytes(cgroup) - before > TASKS * 16 * 1024 - late


@pytest.mark.parametrize("kind", ["light", "fork", "exec"])
def test_a_task_waits_in_a_read_of_the_life_pipe(kind: str, cgroup: Path) -> None:
    with started(kind, cgroup) as tasks:
        life = os.readlink(f"/proc/{tasks.worker.pid}/fd/0")
        assert life.startswith("pipe:")
        for pid in tasks.pids:
            assert os.readlink(f"/proc/{pid}/fd/0") == life

        def reads(pid: int) -> bool:
            number, *arguments = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()
            return number == str(READ_SYSCALL.get(platform.machine())) and int(arguments[0], 16) == 0

        if platform.machine() in READ_SYSCALL:
            wait_until(lambda: all(map(reads, tasks.pids)), 5, "every task is in read(0, ...)")
        assert {status(pid)["State"][0] for pid in tasks.pids} == {"S"}
        names = {Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() for pid in tasks.pids}
        assert (names == {"cat"}) == (kind == "exec")


@pytest.mark.parametrize("kind", ["light", "fork", "exec"])
def test_tasks_end_with_the_engine_whatever_kills_it(kind: str, cgroup: Path) -> None:
    with started(kind, cgroup) as tasks:
        assert all(map(alive, tasks.pids))
        os.kill(tasks.engine.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, tasks.pids)), 5, "all tasks have ended")
        # By themselves, at the end of file: no signal was needed. fgetc's EOF is -1, of which 8 bits are left.
        expected = 0 if kind == "exec" else 255
        assert tasks.collect_ends() == dict.fromkeys(tasks.pids, expected)


@pytest.mark.parametrize("kind", ["light", "fork", "exec"])
def test_tasks_outlive_their_worker_only_as_long_as_the_engine(kind: str, cgroup: Path) -> None:
    with started(kind, cgroup) as tasks:
        os.kill(tasks.worker.pid, signal.SIGKILL)
        tasks.worker.wait()
        tasks.engine.kill()
        wait_until(lambda: not marked(STORM_ID), 5, "all tasks have ended")


def test_light_tasks_share_the_worker_s_memory_and_forked_ones_do_not(cgroup: Path) -> None:
    def memory(pid: int) -> list[str]:
        """Of a memory map: its sizes, and what page tables it has."""
        return [status(pid)[key] for key in ("VmSize", "VmData", "VmPTE", "RssAnon")]

    for kind in ("light", "fork"):
        with started(kind, cgroup) as tasks:
            worker = memory(tasks.worker.pid)
            assert [memory(pid) == worker for pid in tasks.pids] == [kind == "light"] * TASKS


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_script_tells_its_progress_and_ends(shell: str) -> None:
    read, write = os.pipe()
    pid = spawn.start_script(shell, "for i in 1 2 3; do printf . >&3; done; exit 5", write)
    os.close(write)
    try:
        said = b""
        while chunk := os.read(read, 100):
            said += chunk
        assert said == b"..."
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    finally:
        os.close(read)


def test_a_script_s_shell_dies_with_its_worker(tmp_path: Path) -> None:
    told = tmp_path / "dots"
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from slabwatch.storm import spawn; "
        "dots = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT); "
        "pid = spawn.start_script('/bin/bash', 'printf . >&3; sleep 1; printf . >&3; sleep 30', dots); "
        "os.write(1, b'%d\\n' % pid); os.waitpid(pid, 0)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-I", "-S", "-E", "-c", program, PACKAGE_PARENT, str(told)],
        stdout=subprocess.PIPE,
        env={lifecycle.MARK: STORM_ID, "PATH": "/usr/bin:/bin"},
    )
    with worker:
        assert worker.stdout is not None
        shell = int(worker.stdout.readline())
        wait_until(lambda: told.exists() and told.read_bytes() == b".", 5, "the script's first dot")
        worker.kill()
    wait_until(lambda: not alive(shell), 5, "the shell has died")
    wait_for_no_task(STORM_ID)
    assert told.read_bytes() == b"."
