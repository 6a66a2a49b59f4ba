"""The engine's loop, with a pretended storm in it; and how its children end when it is gone."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# As much to say as fits once: the second time, a writer that waits is caught.
_BUSY = """
import sys
from slabwatch.storm import engine, setup

class Busy:
    load = drain = remove_first = None
    def __init__(self, setup, tell):
        self.tell = tell
    def report_descriptors(self):
        return []
    def attend(self, ready):
        self.tell("load", text="x" * 150)
    def kill(self):
        print("killed", file=sys.stderr)
    def remove(self):
        print("removed", file=sys.stderr)

engine.Engine = Busy
sys.exit(engine.serve(setup.Setup(storm_id="s", parent="/", home="/", version=2, cgroups=1, tasks=1, kind="light",
    workers=1, live_tasks=1, at_once=1, shell="", limit_bytes=0, limit_pids=0, ttl_seconds=0.3)))
"""


def test_its_time_to_live_ends_it_when_nobody_reads_what_it_tells() -> None:
    read, write = os.pipe()
    size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, b"\n" * (size - 250))
    command = [sys.executable, "-c", _BUSY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE) as engine:
        try:
            assert engine.wait(10) == 1
            assert engine.stderr is not None
            assert engine.stderr.read() == b"killed\nremoved\n"
        finally:
            engine.kill()
            os.close(write)
    with os.fdopen(read, "rb") as told:
        last = json.loads(told.read().split(b"\n")[-2])
    assert (last["at"], last["reason"]) == (
        "failed",
        "RuntimeError: no order to end within 0.3 s: does the daemon hang?",
    )


# Each is a process' whole life; the pipe of its reports has no reader any more.
_CHILDREN = {
    "worker": """
import os, sys
from slabwatch.storm import worker
work = worker.Work(storm_id="s", cgroups=[], home=sys.argv[1], tasks=1, kind="light", live_tasks=1, at_once=1, shell="")
life, orders = os.open(os.devnull, os.O_RDONLY), os.pipe()[0]
worker.run(work, life, orders, int(sys.argv[2]), os.getppid())
""",
    "pressure": """
import os, sys
from slabwatch.storm import pressure
pressure._consume(sys.argv[1], 1, 0, int(sys.argv[2]), os.getppid())
""",
}


@pytest.mark.parametrize("child", _CHILDREN)
@pytest.mark.parametrize(("cgroup", "said"), [(True, b""), (False, b"FileNotFoundError")])
def test_a_child_without_its_engine_has_nothing_to_complain_of(
    tmp_path: Path, child: str, cgroup: bool, said: bytes
) -> None:
    if cgroup:
        (tmp_path / "cgroup.procs").touch()
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", _CHILDREN[child], str(tmp_path), str(write)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False, pass_fds=(write,))
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr.startswith(b"%b: %b" % (child.encode(), said) if said else b"")
    assert bool(done.stderr) == bool(said)
