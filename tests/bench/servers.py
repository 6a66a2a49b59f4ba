"""The daemon and its peer, as servers for benchmarks."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import running

OURS = "http://127.0.0.1:19934/metrics"
NODE_EXPORTER = "http://127.0.0.1:19100/metrics"


@contextlib.contextmanager
def slabwatch(
    settings: str, *, poll_seconds: float | None = None, loop: str = "asyncio"
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The daemon with some settings on top of those that keep it to itself; and its control socket.

    ``poll_seconds``: an interval that the configuration would not allow, for benchmarks.
    """
    directory = Path(tempfile.mkdtemp(prefix="slabwatch-bench-"))
    config = directory / "slabwatch.toml"
    config.write_text(
        f'[metrics]\nlisten = "127.0.0.1:19934"\n[control]\nsocket = "{directory}/sock"\n'
        f'[state]\ndirectory = "{directory}"\n[log]\nlevel = "error"\n{settings}'
    )
    try:
        pace = [str(poll_seconds), loop] if poll_seconds else []
        with running([sys.executable, "-m", "tests.bench.paced", str(config), *pace], OURS) as process:
            yield process, directory / "sock"
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def node_exporter() -> Iterator[subprocess.Popen[bytes]]:
    """Debian's prometheus-node-exporter with the same two collectors."""
    command = [
        "prometheus-node-exporter", "--collector.disable-defaults", "--collector.slabinfo", "--collector.meminfo",
        "--web.listen-address=127.0.0.1:19100", "--log.level=error",
    ]  # fmt: skip
    with running(command, NODE_EXPORTER) as process:
        yield process
