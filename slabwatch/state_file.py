"""Files of the state directory, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

DIRECTORY_MODE = 0o750


def write_json(path: Path, value: object) -> None:
    """Directories are made. Raises OSError; what was there before stays."""
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(value, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
