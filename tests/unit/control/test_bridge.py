"""The bridge: bytes both ways, whatever they are, until either side ends."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from slabwatch.cli.ctl import main
from slabwatch.control import bridge as bridging
from slabwatch.control.bridge import bridge
from slabwatch.errors import ControlError

DEADLINE = 20


class Ends:
    """A bridge in a thread: the daemon's end, and the session's two."""

    def __init__(self, path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        source, self.stdin = os.pipe()
        self.stdout, sink = os.pipe()

        def run() -> None:
            bridge(path, source, sink)
            os.close(sink)

        self.thread = threading.Thread(target=run)
        self.thread.start()
        listener.settimeout(DEADLINE)
        self.daemon, _ = listener.accept()
        self.daemon.settimeout(DEADLINE)
        listener.close()
        self._source = source

    def ended(self) -> bool:
        self.thread.join(DEADLINE)
        return not self.thread.is_alive()

    def close(self) -> None:
        self.daemon.close()
        for descriptor in (self.stdin, self.stdout):
            with suppress(OSError):
                os.close(descriptor)
        assert self.ended()


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setattr(bridging, "GRACE_SECONDS", DEADLINE)
    made = Ends(tmp_path / "s")
    yield made
    made.close()


def read_all(descriptor: int) -> bytes:
    return b"".join(iter(lambda: os.read(descriptor, 65536), b""))


def test_bytes_go_both_ways_unchanged(ends: Ends) -> None:
    wanted = random.Random(5).randbytes(1_000_000)
    got: list[bytes] = []

    def daemon() -> None:
        read = b""
        while len(read) < len(wanted):
            read += ends.daemon.recv(65536)
        got.append(read)
        ends.daemon.sendall(wanted[::-1])
        ends.daemon.close()

    thread = threading.Thread(target=daemon)
    thread.start()
    view = memoryview(wanted)
    while view:
        view = view[os.write(ends.stdin, view) :]
    assert read_all(ends.stdout) == wanted[::-1]
    thread.join(DEADLINE)
    assert got == [wanted]
    assert ends.ended(), "the daemon has gone, and the bridge with it, although the session has not"


def test_the_session_ends(ends: Ends) -> None:
    os.write(ends.stdin, b"last words")
    os.close(ends.stdin)
    assert ends.daemon.recv(100) == b"last words"
    ends.daemon.sendall(b"an answer")
    assert os.read(ends.stdout, 100) == b"an answer"
    assert ends.daemon.recv(100) == b""
    ends.daemon.sendall(b", and the rest of it")
    ends.daemon.close()
    assert read_all(ends.stdout) == b", and the rest of it"
    assert ends.ended()


def test_the_session_ends_and_the_daemon_hangs(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridging, "GRACE_SECONDS", 0.1)
    os.write(ends.stdin, b"last words")
    os.close(ends.stdin)
    assert ends.ended()


def test_nobody_reads_any_more(ends: Ends) -> None:
    os.close(ends.stdout)
    with suppress(OSError):
        while True:
            ends.daemon.sendall(b"x" * 65536)
    assert ends.ended()


def test_a_reader_that_does_not_read_holds_the_daemon_back(ends: Ends) -> None:
    ends.daemon.settimeout(0.2)
    sent = 0
    with suppress(TimeoutError):
        while sent < 2_000_000:
            sent += ends.daemon.send(b"x" * 65536)
    assert sent < 2_000_000
    ends.daemon.close()
    assert len(read_all(ends.stdout)) == sent


def test_nobody_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    assert main(["--host", f"unix://{path}", "stdio-bridge"]) == 5
    assert f"{path}: there is no such socket" in capsys.readouterr().err
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert main(["--host", f"unix://{path}", "stdio-bridge"]) == 5
    assert f"{path}: nobody listens there" in capsys.readouterr().err


def test_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ControlError, match=r"control\.group") as caught:
        bridge(tmp_path / "s")
    assert caught.value.code == "not_allowed"


def test_it_goes_to_this_host_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--host", "ssh://other", "stdio-bridge"]) == 1
    assert "the bridge goes to a socket" in capsys.readouterr().err
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("slabwatch.control.sockets.default_socket", lambda: tmp_path / "own")
    monkeypatch.setattr("slabwatch.control.sockets.SYSTEM_SOCKET", tmp_path / "system")
    monkeypatch.setenv("SLABWATCH_HOST", "ssh://other")
    assert main(["stdio-bridge"]) == 5
    assert f"{tmp_path}/own" in capsys.readouterr().err
    monkeypatch.setenv("SLABWATCH_HOST", f"unix://{tmp_path}/env")
    assert main(["stdio-bridge"]) == 5
    assert f"{tmp_path}/env" in capsys.readouterr().err
