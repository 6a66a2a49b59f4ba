"""The daemon, at a pace of its own choosing."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

from msgspec.structs import replace

from slabwatch import config_file as configuration
from slabwatch.cli.slabwatch import keep_small
from slabwatch.config import Poll
from slabwatch.host.root import KernelRoot


def main(path: str, poll_seconds: float | None = None, loop: str = "asyncio") -> None:
    """Serve until SIGTERM."""
    config = configuration.load(Path(path))
    if poll_seconds is not None:
        config = replace(config, poll=Poll(interval_seconds=poll_seconds, max_read_ratio=1.0))

    keep_small()
    from slabwatch.daemon import Daemon

    async def serve() -> None:
        await Daemon(Path(path), config, KernelRoot("/"), lambda url, socket: None).run()

    if loop == "uvloop":
        importlib.import_module("uvloop").run(serve())  # not among our dependencies
    else:
        asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if sys.argv[2:] else None, *sys.argv[3:])
