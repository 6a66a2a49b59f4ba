"""``audit.jsonl`` in the state directory: append-only, a line each, older files as ``audit.jsonl.1`` and so on.

All of it blocks: the audit log's own thread writes, and a request reads in a thread.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slabwatch.config import Audit
from slabwatch.state_file import DIRECTORY_MODE

MODE = 0o640


class AuditFile:
    """``bounds`` gives the size and number of files that hold now."""

    def __init__(self, directory: Path, bounds: Callable[[], Audit]) -> None:
        self.path = directory / "audit.jsonl"
        self._bounds = bounds

    def append(self, lines: Sequence[bytes]) -> None:
        """Write and flush lines (without their line ends). Raises OSError; what was there before stays."""
        self.path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        text = b"".join(line + b"\n" for line in lines)
        # Opened each time: whoever moves the file away, or mends the disk, need not tell the daemon.
        descriptor = self._opened()
        try:
            size = os.fstat(descriptor).st_size
            if size and size + len(text) > self._bounds().max_file_bytes:
                self._rotate()
                os.close(descriptor)
                descriptor = self._opened()
                size = 0
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                text = b"\n" + text  # a crash or a full disk has cut the last line: it shall not spoil the next
            written = os.write(descriptor, text)
            if written < len(text):
                raise OSError(f"only {written} of {len(text)} bytes could be written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.path, flags, MODE)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{self.path} is no regular file")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _rotate(self) -> None:
        keep = self._bounds().keep
        for old in self._older():
            number = int(old.suffix[1:])
            if number >= keep:
                old.unlink(missing_ok=True)
            else:
                old.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _older(self) -> list[Path]:
        """The highest number, which is the oldest, first."""
        prefix = f"{self.path.name}."
        numbers = (name.removeprefix(prefix) for name in os.listdir(self.path.parent) if name.startswith(prefix))
        return [self._numbered(number) for number in sorted(map(int, filter(_is_number, numbers)), reverse=True)]

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """The last entries, newest first; what is no entry is left out. Raises OSError."""
        entries: list[dict[str, Any]] = []
        for entry in self._backwards():
            if len(entries) >= limit:
                break
            entries.append(entry)
        return entries

    def _backwards(self) -> Iterator[dict[str, Any]]:
        if not self.path.parent.exists():
            return
        for path in (self.path, *reversed(self._older())):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            for line in reversed(lines):
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(entry, dict):
                    yield entry


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and text[0] != "0" and len(text) < 6
