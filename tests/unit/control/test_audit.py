"""The audit log: its file, its bounds, and that nothing about it can hold up or stop the daemon."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.config import Audit
from slabwatch.control.audit import BURST, FLOOD_SECONDS, AuditLog, Floods
from slabwatch.control.audit_file import AuditFile

SMALL = Audit(max_file_bytes=65_536, keep=2)


def _file(tmp_path: Path) -> AuditFile:
    return AuditFile(tmp_path / "state", lambda: SMALL)


def _line(number: int, size: int = 0) -> bytes:
    return json.dumps({"number": number, "pad": "x" * size}).encode()


def _numbers(file: AuditFile, limit: int = 1000) -> list[int]:
    return [entry["number"] for entry in file.newest(limit)]


# The file.


def test_lines_are_appended_and_read_back_newest_first(tmp_path: Path) -> None:
    file = _file(tmp_path)
    assert file.newest(10) == []
    file.append([_line(1), _line(2)])
    file.append([_line(3)])
    assert _numbers(file) == [3, 2, 1]
    assert _numbers(file, 2) == [3, 2]
    assert file.path.read_bytes().count(b"\n") == 3


def test_others_can_not_read_it_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            file = _file(tmp_path / str(umask))
            file.append([_line(1)])
        finally:
            os.umask(before)
        assert stat.S_IMODE(file.path.stat().st_mode) & 0o137 == 0
        assert stat.S_IMODE(file.path.parent.stat().st_mode) & 0o027 == 0


def test_it_rotates_and_the_oldest_goes(tmp_path: Path) -> None:
    file = _file(tmp_path)
    for number in range(9):
        file.append([_line(number, 30_000)])
    # Two fit into a file: the current one, and two older ones.
    assert _numbers(file) == [8, 7, 6, 5, 4]
    names = sorted(path.name for path in file.path.parent.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size <= SMALL.max_file_bytes for path in file.path.parent.iterdir())


def test_fewer_are_kept_when_the_configuration_says_so(tmp_path: Path) -> None:
    bounds = Audit(max_file_bytes=65_536, keep=5)
    file = AuditFile(tmp_path, lambda: bounds)
    for number in range(8):
        file.append([_line(number, 60_000)])
    assert _numbers(file) == [7, 6, 5, 4, 3, 2]
    bounds = Audit(max_file_bytes=65_536, keep=1)
    file.append([_line(8, 60_000)])
    assert _numbers(file) == [8, 7]


def test_what_others_put_beside_it_is_left_alone(tmp_path: Path) -> None:
    file = _file(tmp_path)
    file.append([_line(1, 60_000)])
    for name in ("audit.jsonl.bak", "audit.jsonl.01", "audit.jsonl.", "audit.jsonl.1.gz"):
        (file.path.parent / name).write_text("mine", encoding="ascii")
    file.append([_line(2, 60_000)])
    assert _numbers(file) == [2, 1]
    assert sum(path.read_bytes() == b"mine" for path in file.path.parent.iterdir()) == 4


@pytest.mark.parametrize("rest", [b'{"number": 1, "cut o', b"\xff\xfe", b"\n\n[1]\nnull\n", b"[" * 100_000])
def test_a_line_that_was_cut_does_not_spoil_the_next(tmp_path: Path, rest: bytes) -> None:
    file = _file(tmp_path)
    file.path.parent.mkdir()
    file.path.write_bytes(_line(0) + b"\n" + rest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "_bounds", Audit)
        file.append([_line(2)])
    assert _numbers(file) == [2, 0]


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = AuditFile(tmp_path_factory.getbasetemp() / "any", lambda: SMALL)
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(content)
    assert all(isinstance(entry, dict) for entry in file.newest(10))
    file.append([_line(7)])
    assert file.newest(1)[0]["number"] == 7


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_it_writes_to_a_regular_file_only(tmp_path: Path, kind: str) -> None:
    file, other = _file(tmp_path), tmp_path / "other"
    file.path.parent.mkdir()
    other.write_text("", encoding="ascii")
    match kind:
        case "directory":
            file.path.mkdir()
        case "link":
            file.path.symlink_to(other)
        case _:
            os.mkfifo(file.path)
    with pytest.raises(OSError, match=r"directory|symbolic links|no regular file"):
        file.append([_line(1)])
    assert other.read_bytes() == b""


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path)
    file.append([_line(1)])
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, text: write(descriptor, text[:5]))
    with pytest.raises(OSError, match="only 5 of"):
        file.append([_line(2)])
    monkeypatch.undo()
    file.append([_line(3)])
    assert _numbers(file) == [3, 1]


# The log.


class _Slow(AuditFile):
    """A disk that hangs until it is let go."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path, Audit)
        self.go = threading.Event()
        self.entered = threading.Event()

    def append(self, lines: Any) -> None:
        self.entered.set()
        assert self.go.wait(30)
        super().append(lines)


Fields = dict[str, Any]


def _fields(number: int = 0, *, allowed: bool = True, user: str = "root") -> Fields:
    return {"command": "storm", "user": user, "door": "unix", "allowed": allowed, "outcome": "done", "number": number}


Started = Callable[..., AuditLog]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    logs: list[AuditLog] = []

    def started(file: AuditFile | None = None, **options: Any) -> AuditLog:
        logs.append(AuditLog(file or _file(tmp_path), **options))
        logs[-1].start()
        return logs[-1]

    yield started
    for log in logs:
        log.close(10)


def test_a_line_is_in_the_log_and_in_the_file(start: Started, audit_log: list[Fields]) -> None:
    log = start()
    log.write(_fields(1))
    log.write(_fields(2))
    log.close(10)
    assert [entry["number"] for entry in audit_log] == [1, 2]
    newest = log.file.newest(10)
    assert [entry["number"] for entry in newest] == [2, 1]
    assert newest[0]["time"].endswith("Z")
    assert list(newest[0])[:3] == ["time", "command", "user"]
    assert log.lost == 0


def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, start: Started, caplog: pytest.LogCaptureFixture) -> None:
    slow = _Slow(tmp_path)
    log = start(slow, most_waiting=5)
    log.write(_fields(0))
    assert slow.entered.wait(10)
    for number in range(1, 9):
        log.write(_fields(number))
    assert log.lost == 3
    lost = [record for record in caplog.records if record.message == "audit_lines_lost"]
    assert lost[0].__dict__["fields"]["error"] == "the disk does not keep up"
    log.close(0.01)  # nor the daemon's stop
    slow.go.set()
    log.close(10)
    assert [entry["number"] for entry in slow.newest(10)] == [5, 4, 3, 2, 1, 0]


def test_a_file_that_can_not_be_written_costs_lines_and_no_more(
    tmp_path: Path, start: Started, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where the directory should be", encoding="ascii")
    log = start()
    for number in range(3):
        log.write(_fields(number))
    log.close(10)
    assert log.lost == 3
    assert any(record.__dict__["fields"]["error"] for record in caplog.records if record.message == "audit_lines_lost")


def test_it_goes_on_when_the_disk_has_room_again(
    start: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, seen = True, threading.Event()
    write = os.write

    def maybe(descriptor: int, text: bytes) -> int:
        if full:
            seen.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, text)

    monkeypatch.setattr(os, "write", maybe)
    log = start()
    log.write(_fields(1))
    assert seen.wait(10)
    full = False
    log.write(_fields(2))
    log.close(10)
    assert log.lost == 1
    assert [entry["number"] for entry in log.file.newest(10)] == [2]


def test_refusals_are_bounded_for_each_caller(start: Started, audit_log: list[Fields]) -> None:
    now = 0.0
    log = start(clock=lambda: now)
    for number in range(100):
        log.write(_fields(number, allowed=False, user="mallory"))
    assert [entry["number"] for entry in audit_log] == list(range(BURST))
    # Neither others' refusals nor what was allowed is left out.
    log.write(_fields(100, allowed=False, user="bob"))
    for number in range(50):
        log.write(_fields(number, user="mallory"))
    assert len(audit_log) == BURST + 51
    now += FLOOD_SECONDS
    log.write(_fields(101, allowed=False, user="mallory"))
    assert audit_log[-1]["left_out"] == 80


def test_floods_are_forgotten_in_bounds() -> None:
    floods = Floods(lambda: 0.0)
    for number in range(10_000):
        assert floods.count(str(number)) == 0
    assert len(floods._seen) <= 256
