"""Write the dashboards into a directory: ``python -m deploy.grafana.source DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

from . import fleet, host, storms
from .panels import as_json


def main(directory: str) -> None:
    """One JSON file a dashboard, named by its uid."""
    for board in (fleet.make(), host.make(), storms.make()):
        uid = board.build().uid
        (Path(directory) / f"{uid}.json").write_text(as_json(board), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
