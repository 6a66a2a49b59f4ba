"""slabwatchctl in a real terminal: windows, the bar, questions, Ctrl-C, and a pipe that closes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import slabwatch
from tests.unit.cli.conftest import Backstage
from tests.unit.control.pretended import PretendedStorm, until

ROOT = Path(slabwatch.__file__).parents[1]
COMMAND = [sys.executable, "-m", "slabwatch.cli.ctl"]


class Window:
    """A terminal of 80 columns with one program in it."""

    def __init__(self, target: str, *argv: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": "xterm", "SLABWATCH_HOST": target}
        environment.pop("COLUMNS", None)
        environment.pop("NO_COLOR", None)
        # The shell, being the leader of a new session, gets the terminal as its own by opening it: so Ctrl-C works.
        self._program = subprocess.Popen(
            ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(theirs), *COMMAND, *argv],
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        self._theirs = theirs
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until this text has been shown."""
        ends = time.monotonic() + 20
        while text not in self.text:
            assert time.monotonic() < ends, f"{text!r} is not in {self.text!r}"
            self._read(0.2)

    @property
    def text(self) -> str:
        """What was shown, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def code(self) -> int:
        """Wait for the end."""
        ends = time.monotonic() + 20
        while self._program.poll() is None:
            assert time.monotonic() < ends, self.text
            self._read(0.1)
        while self._read(0):
            pass
        return self._program.returncode

    def _read(self, seconds: float) -> bool:
        ready = select.poll()  # select() takes no descriptor from 1,024 on
        ready.register(self._ours, select.POLLIN)
        if not ready.poll(seconds * 1000):
            return False
        with contextlib.suppress(OSError):  # the other end is closed
            chunk = os.read(self._ours, 65536).decode(errors="replace")
            self.seen += chunk
            return bool(chunk)
        return False

    def hang_up(self) -> None:
        """As when an ssh connection breaks: the kernel sends SIGHUP."""
        os.close(self._ours)
        os.close(self._theirs)
        self._ours = -1
        self._program.wait(20)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._ours >= 0:
            self._program.kill()
            self.hang_up()


@pytest.fixture
def open_window(backstage: Backstage) -> Iterator[type]:
    windows: list[Window] = []

    def open_one(*argv: str) -> Window:
        windows.append(Window(backstage.target, *argv))
        return windows[-1]

    # Under nohup it is ignored, by all programs that are started too.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield open_one  # type: ignore[misc]
    signal.signal(signal.SIGHUP, before)
    for window in windows:
        window.close()


def test_top_in_a_window(open_window: type) -> None:
    window = open_window("top", "--limit", "1")
    assert window.code() == 0
    header, row = (line for line in window.text.splitlines() if line.startswith(("cache ", "task_struct")))
    assert "size MiB" in header
    assert "11,404" in row
    assert max(len(line) for line in window.text.splitlines()) <= 80
    assert "\x1b[1m" in window.seen, "the header is bold"


def test_watch_ends_with_ctrl_c(open_window: type) -> None:
    window = open_window("top", "--watch")
    window.until("task_struct")
    window.type("\x03")
    assert window.code() == 0
    assert "\x1b[?1049l" in window.seen, "the window is given back as it was"


def test_a_storm_in_a_window(open_window: type, backstage: Backstage) -> None:
    async def act(storm: PretendedStorm) -> None:
        await storm.enter("load", 3.0)
        await storm.progress(12.0, tasks_started=50_000, live_tasks=20_000, sunreclaim_bytes=400 * 2**20)
        await storm.progress(13.0, tasks_started=60_000, live_tasks=20_000)
        await until(lambda: storm.stop_reasons)
        await storm.end("stopped", "inconclusive")

    window = open_window("storm", "--preset", "full")
    window.until("Go on? [y/N]")
    assert "1,000 cgroups x 100 = 100,000 tasks" in window.text
    backstage.play(act)
    window.type("y\n")
    window.until("60,000 / 100,000 tasks")
    assert "━" in window.text
    window.until("20,000 live")
    window.until("█▁  SUnreclaim")  # 400 MiB, then 300
    window.type("\x03")
    assert window.code() == 7
    assert "Stopping, and cleaning up." in window.text
    assert "Verdict: inconclusive" in window.text


def test_ctrl_c_at_the_question(open_window: type, backstage: Backstage) -> None:
    window = open_window("storm", "--preset", "full")
    window.until("Go on? [y/N]")
    window.type("\x03")
    assert window.code() == 130
    assert "Traceback" not in window.text
    assert backstage.daemon.storms.running is None


def test_a_terminal_that_dies_stops_its_storm(open_window: type, backstage: Backstage) -> None:
    async def act(storm: PretendedStorm) -> None:
        await storm.enter("load", 3.0)

    backstage.play(act)
    window = open_window("storm")
    window.until("load")
    window.hang_up()
    storm = backstage.daemon.storms.running
    assert storm
    backstage.start(until(lambda: storm.stop_reasons)).result(15)
    assert "went away" in storm.stop_reasons[0]


def test_a_pipe_that_closes_is_no_traceback(backstage: Backstage) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "--host", backstage.target, "top"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_locale_that_can_not_write_a_name(backstage: Backstage) -> None:
    from tests.unit.control.pretended import cgroups, sample

    backstage.daemon.sampler.latest = sample(cgroups=cgroups(paths=("/", "/日本", "/b", "/c")))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*COMMAND, "--host", backstage.target, "cgroups"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/\\u65e5\\u672c" in done.stdout
