"""Finished storms on disk: one JSON file each in the state directory, written whole or not at all."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slabwatch.state_file import write_json
from slabwatch.storm.record import FORMAT, summary

_ID = re.compile(r"[0-9a-z-]{1,64}\Z")

log = logging.getLogger(__name__)


class RecordStore:
    """Keeps the newest ``keep`` records. Blocking: call it in a thread."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory / "storms"
        self._keep = keep

    def save(self, record: Mapping[str, Any]) -> None:
        """Write one, then drop the oldest beyond the bound. Raises OSError; what was there before stays."""
        write_json(self._directory / f"{record['id']}.json", record)
        for old in self._files()[self._keep :]:
            old.unlink(missing_ok=True)

    def load(self, storm_id: str) -> dict[str, Any] | None:
        """One record, None when there is none of that id."""
        if not _ID.match(storm_id):
            return None
        return self._read(self._directory / f"{storm_id}.json")

    def summaries(self) -> list[dict[str, Any]]:
        """All, newest first; a file that can not be read is logged and left alone."""
        records = (self._read(path) for path in self._files())
        return [summary(record) for record in records if record]

    def _files(self) -> list[Path]:
        # An id begins with its start time, so that names sort by age.
        return sorted((path for path in self._directory.glob("*.json") if _ID.match(path.stem)), reverse=True)

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] > FORMAT:
                raise ValueError(f"its format {record['format']} is newer than this slabwatch")
            summary(record)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("record_unreadable", extra={"fields": {"path": str(path), "error": str(error)}})
            return None
        return dict(record)
