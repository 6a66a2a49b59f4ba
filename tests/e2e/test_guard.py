"""The guard on the running kernel: each of its reasons is brought about, ends the storm, and leaves nothing behind.

What only the host as a whole could suffer from is brought about for the daemon alone: a file of its own lies over
/proc/pressure/memory in its mount namespace. They come one after the other: the OOM killer ends any other storm too.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.test_pressure import MIB, ratio_that_leaves
from tests.live.kernel import wait_until
from tests.requirements import need

pytestmark = [pytest.mark.e2e, pytest.mark.system]

MakeDaemon = Callable[..., Daemon]


class Client:
    """``slabwatchctl storm`` beside the test, without a shrink; it ends with the storm."""

    def __init__(self, daemon: Daemon, *wishes: str) -> None:
        self._daemon = daemon
        command = daemon.ctl_command("--json", "storm", "--settle", "0", "--no-shrink", "--yes", *wishes)
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: daemon.storm_ids() or self.process.poll() is not None, 15, "the storm has begun")
        assert daemon.storm_ids(), self.process.communicate()
        self.storm_id = daemon.storm_ids()[-1]

    def ended(self) -> bool:
        """Whether the storm has; the process waits for somebody to read its record."""
        return self._daemon.ask("GET", "/v1/status")[1]["storm"]["running"] is None

    def record(self) -> dict[str, Any]:
        """Wait for the end, which must be an abort, with its exit code."""
        output, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 7, said
        record: dict[str, Any] = json.loads(output.splitlines()[-1])
        assert record["outcome"] == "aborted", record["reason"]
        assert record["verdict"]["class"] == "inconclusive"
        assert record["verdict"]["reason"].endswith((record["reason"], "it was aborted"))
        assert (record["cgroups"]["leftover"], record["cgroups"]["left"]) == (0, {})
        assert self._daemon.metric('slabwatch_storms_total{outcome="aborted"}') == 1
        self._daemon.assert_nothing_left()
        assert self._daemon.ctl("report").stdout.startswith(f"Storm {self.storm_id}: aborted (")
        return record


@contextmanager
def begun(daemon: Daemon, phase: str, *wishes: str) -> Iterator[Client]:
    client = Client(daemon, *wishes)
    try:
        daemon.wait_for_phase(client.storm_id, phase)
        yield client
    finally:
        client.process.kill()
        client.process.communicate()


def test_a_host_that_runs_out_of_memory(make_daemon: MakeDaemon) -> None:
    """Not the storm takes it but this test, and no more than it must: until the floor is reached."""
    daemon = make_daemon(storm={"min_available_ratio": ratio_that_leaves(512 * MIB)}).start()
    held: list[mmap.mmap] = []
    with begun(daemon, "hold", "--cgroups", "5", "--tasks", "5", "--hold", "60") as client:

        def over() -> bool:
            if len(held) < 64:
                held.append(mmap.mmap(-1, 32 * MIB))
                for page in range(0, 32 * MIB, mmap.PAGESIZE):
                    held[-1][page] = 1
            return client.ended()

        wait_until(over, 30, "the guard has ended it")
        record = client.record()
    assert "MemAvailable fell to " in record["reason"]
    assert "below the floor of " in record["reason"]
    assert "storm.min_available_ratio" in record["reason"]


def test_tasks_that_can_not_be_started(daemon: Daemon) -> None:
    """Somebody takes the storm's pids away while it starts tasks."""
    need(daemon.pids_root("x").parent.joinpath("pids.max").exists(), "a cgroup hierarchy with the pids controller")
    with begun(daemon, "load", "--kind", "exec", "--cgroups", "4", "--tasks", "1000", "--hold", "60") as client:
        (daemon.pids_root(client.storm_id) / "pids.max").write_text("0", encoding="ascii")
        record = client.record()
    failed = record["tasks"]["failed"]
    assert failed > 200
    assert record["reason"].endswith(" tasks could not be started; 200 are tolerated")
    assert record["tasks"]["started"] + failed <= 4000


CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
STALLED = "some avg10=90.00 avg60=9.00 avg300=1.00 total=1\nfull avg10=35.60 avg60=3.00 avg300=0.50 total=1\n"


def told_of_pressure(daemon: Daemon) -> Path:
    """The file that this daemon, not started yet, will read for /proc/pressure/memory."""
    pressure = Path("/proc/pressure/memory")
    need(pressure.exists(), "/proc/pressure (CONFIG_PSI)")
    told = daemon.directory / "pressure"
    told.write_text(CALM, encoding="ascii")
    bind = f'mount --bind {told} {pressure} && exec "$@"'
    daemon.prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", bind, "sh")
    return told


def test_a_host_that_stands_still_for_memory(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    told = told_of_pressure(daemon)
    daemon.start()
    with begun(daemon, "hold", "--cgroups", "5", "--tasks", "5", "--hold", "60") as client:
        told.write_text(STALLED, encoding="ascii")
        record = client.record()
    assert record["reason"] == "all tasks of the host stood still for memory 36 % of the last 10 s (PSI full)"


def test_a_storm_that_makes_itself_stand_still(make_daemon: MakeDaemon) -> None:
    """Memory pressure in its own cgroup is meant to: the guard waits until it is over, and goes on guarding."""
    daemon = make_daemon()
    told = told_of_pressure(daemon)
    daemon.start()
    small = {"cgroups": 3, "tasks": 3, "hold_seconds": 0, "settle_seconds": 0, "pressure": True}
    storm_id = daemon.begin_storm(**small)
    daemon.wait_for_phase(storm_id, "pressure")
    told.write_text(STALLED, encoding="ascii")
    samples = 0
    for event in daemon.storm_events(storm_id):
        samples += event["event"] == "progress" and event["phase"] == "pressure"
        if samples == 3:  # the kernel's mean goes down when it is over
            told.write_text(CALM, encoding="ascii")
    assert samples >= 3
    assert (event["event"], event["outcome"], event["reason"]) == ("end", "completed", "")
    # Not so when it is not over.
    told.write_text(CALM, encoding="ascii")
    storm_id = daemon.begin_storm(**small | {"settle_seconds": 60})
    daemon.wait_for_phase(storm_id, "settle")
    told.write_text(STALLED, encoding="ascii")
    record = daemon.record(storm_id)
    assert (record["outcome"], "PSI full" in record["reason"]) == ("aborted", True)


def test_a_daemon_that_gets_no_time(daemon: Daemon) -> None:
    """Meanwhile nobody has guarded the host."""
    with begun(daemon, "hold", "--cgroups", "5", "--tasks", "5", "--hold", "60") as client:
        daemon.signal(signal.SIGSTOP)
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                client.process.wait(17)
        finally:
            daemon.signal(signal.SIGCONT)
        record = client.record()
    assert "s late: the kernel has no time for it" in record["reason"]


def test_somebody_else_whom_the_oom_killer_takes(daemon: Daemon) -> None:
    """In a cgroup of this test's, with a limit of its own."""
    assert daemon.parent is not None
    group = daemon.parent / "x-other"
    group.mkdir()
    v1 = (group / "memory.limit_in_bytes").exists()
    eater = (
        f"open('{group}/cgroup.procs', 'w').write('0'); open('/proc/self/oom_score_adj', 'w').write('1000'); "
        "held = bytearray(256 << 20)"
    )
    try:
        with begun(daemon, "hold", "--cgroups", "5", "--tasks", "5", "--hold", "60") as client:
            (group / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(16 * MIB), encoding="ascii")
            eaten = subprocess.run(
                [sys.executable, "-I", "-c", eater], stdin=subprocess.DEVNULL, timeout=30, check=False
            )
            assert eaten.returncode == -signal.SIGKILL
            wait_until(client.ended, 30, "the guard has ended it")
            group.rmdir()
            record = client.record()
    finally:
        with suppress(FileNotFoundError):
            group.rmdir()
    assert record["reason"] == "the OOM killer struck once outside of the storm since it began"


@pytest.mark.parametrize("kind", ["fork", "exec", "light"])
def test_a_storm_that_reaches_its_own_memory_limit(daemon: Daemon, kind: str) -> None:
    """Its limit is lowered from outside while it starts tasks: the OOM killer takes some of them, or a worker."""
    wishes = ("--kind", kind, "--cgroups", "20", "--tasks", "200", "--hold", "60")
    with begun(daemon, "load", *wishes) as client:
        root = daemon.root(client.storm_id)
        limit = root / ("memory.limit_in_bytes" if (root / "memory.limit_in_bytes").exists() else "memory.max")
        usage = root / ("memory.usage_in_bytes" if limit.name.endswith("bytes") else "memory.current")
        while not client.ended():  # v1 refuses a limit below what is used already
            with suppress(OSError):
                limit.write_text(str(int(usage.read_text(encoding="ascii")) + MIB), encoding="ascii")
                break
        record = client.record()
    assert "the OOM killer struck " in record["reason"]
    assert "in the storm's own cgroups" in record["reason"]
    assert "memory limit" in record["reason"]
    assert os.path.exists(daemon.state / "storms" / f"{client.storm_id}.json")
