"""What a guest found out: checks that hold or do not, figures and records. All of it goes to /out, for the host."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Findings:
    """Collected while a scenario runs. ``directory`` is where its files go."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._checks: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}

    def check(self, what: str, holds: object, detail: object = "") -> None:
        """Note whether something is as it should be, with the figures to judge it by."""
        self._checks.append({"what": what, "holds": bool(holds), "detail": str(detail)})
        print(f"{'ok    ' if holds else 'FAILED'}  {what}{f': {detail}' if detail != '' else ''}", flush=True)

    def keep(self, name: str, value: Mapping[str, Any] | str) -> None:
        """A file for the host: JSON, or a text as it is."""
        text = value if isinstance(value, str) else json.dumps(value)
        (self._directory / name).write_text(text, encoding="utf-8")

    def part(self, name: str, work: Callable[[], None]) -> None:
        """Run a part of the scenario. One that breaks off has failed, and the next one runs all the same."""
        started = time.monotonic()
        try:
            work()
        except Exception as error:  # whatever it was, the host must learn of it
            traceback.print_exc(file=sys.stdout)
            self.check(f"{name} runs to its end", False, f"{type(error).__name__}: {error}")
        self.figures[f"{name}_seconds"] = round(time.monotonic() - started, 1)

    def end(self) -> int:
        """Write all of it; the scenario's exit code."""
        self.keep("findings.json", {"checks": self._checks, "figures": self.figures})
        failed = [check["what"] for check in self._checks if not check["holds"]]
        print(f"{len(self._checks) - len(failed)} of {len(self._checks)} checks hold", flush=True)
        return 1 if failed or not self._checks else 0
