"""What cuts a program off: a full disk, a reader that has gone, streams that are closed, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from slabwatch.cli.ending import ended
from slabwatch.cli.slabwatch import main
from tests.unit.cli.conftest import Backstage

DAEMON = ("slabwatch.cli.slabwatch", "--example-config")
CTL = ("slabwatch.cli.ctl", "completion", "bash")


def _run(command: tuple[str, ...], redirection: str) -> subprocess.CompletedProcess[str]:
    """With what a shell makes of ``redirection``; buffered, as users have it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("program", "command"), [("slabwatch", DAEMON), ("slabwatch", (DAEMON[0], "--help")), ("slabwatchctl", CTL)]
)
def test_a_full_disk(program: str, command: tuple[str, ...]) -> None:
    done = _run(command, ">/dev/full")
    assert (done.returncode, done.stderr) == (
        3,
        f"{program}: the output can not be written: No space left on device\n",
    )


@pytest.mark.parametrize("verb", [("status",), ("top",), ("--json", "doctor")])
def test_a_full_disk_under_an_answer(backstage: Backstage, verb: tuple[str, ...]) -> None:
    done = _run((CTL[0], "--host", backstage.target, *verb), ">/dev/full")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr


@pytest.mark.parametrize("command", [DAEMON, CTL])
def test_a_reader_that_has_gone(command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command], stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("redirection", [">&-", "<&- >&-"])
def test_streams_that_are_closed(backstage: Backstage, redirection: str) -> None:
    for command in (DAEMON, CTL, (CTL[0], "--host", backstage.target, "status")):
        done = _run(command, redirection)
        assert (done.returncode, done.stderr) == (0, ""), command
    done = _run((CTL[0], "--host", "unix:///nowhere/s.sock", "storm"), redirection)
    assert done.returncode == 5
    assert "there is no such socket" in done.stderr


def _raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


def test_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("slabwatch", _raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "\n")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "/var/lib/x"), OSError(13, "Denied")])
def test_what_is_not_of_stdout_is_a_defect_and_looks_like_one(error: OSError) -> None:
    with pytest.raises(OSError, match=str(error.strerror)):
        ended("slabwatch", _raising(error))


@pytest.mark.parametrize("argv", [["--bogus"], ["extra"], ["--once", "--check-config"], ["--textfile", "x"]])
def test_wrong_usage_of_the_daemon_is_1(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 1
    assert "slabwatch: " in capsys.readouterr().err
