"""The engine's loop, with a pretended storm in it: its own end, should the daemon hang."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys

# As much to say as fits once: the second time, a writer that waits is caught.
_BUSY = """
import sys
from slabwatch.storm import engine

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
sys.exit(engine.serve(engine.Setup(storm_id="s", parent="/", home="/", version=2, cgroups=1, tasks=1, kind="light",
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
