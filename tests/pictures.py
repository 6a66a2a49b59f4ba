"""Draws the dashboards into docs/dashboards: ``python -m tests.pictures``, as root on a host with a real kernel.

The fleet: this host with two real storms, and the recorded hosts as they were before, during and after theirs.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from deploy.grafana.source.draw import Prometheus, draw
from tests.e2e.conftest import daemons
from tests.e2e.daemon import Daemon, open_directory
from tests.e2e.fleet import prometheus
from tests.hosts import HOSTS, host_root
from tests.live.kernel import need_kernel

_DEPLOYED = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
_PICTURES = Path(__file__).parents[1] / "docs" / "dashboards"
_STATES = ("idle", "idle", "storm", "after", "after", "after", "shrunk")


def main() -> int:
    """About five minutes."""
    began = time.time()
    with ExitStack() as stack:
        make = stack.enter_context(daemons(need_kernel()))
        directory = stack.enter_context(open_directory())
        live = make(poll={"interval_seconds": 1.0}, cgroups={"include": ["/", "/slabwatch-*"]}).start()
        hosts: dict[str, Daemon] = {"this-host": live}
        for name in HOSTS:
            _switch(directory, name, "idle")
            recorded = make(storms=False, poll={"interval_seconds": 1.0})
            recorded.arguments = ("--root", str(directory / name))
            hosts[name] = recorded.start()
        targets = [
            {"targets": [daemon.url.removeprefix("http://")], "labels": {"instance": name}}
            for name, daemon in hosts.items()
        ]
        url = stack.enter_context(prometheus(directory, *targets)).url
        for moment, state in enumerate(_STATES):
            for name in HOSTS:
                _switch(directory, name, state)
            if moment in (2, 4):
                done = live.ctl("storm", "--preset", "full", "--cgroups", "400", "--settle", "15", "--yes", seconds=240)
                if done.returncode:  # a picture of a storm that was broken off would be of no use
                    sys.exit(done.stderr)
            else:
                time.sleep(25)
        _PICTURES.mkdir(exist_ok=True)
        for path in sorted(_DEPLOYED.glob("*.json")):
            one_host = path.stem == "slabwatch-host"
            variables = {"$job": "slabwatch", "$instance": "this-host" if one_host else ".*", "$__rate_interval": "5s"}
            draw(path, Prometheus(url, began + 10, time.time(), variables), _PICTURES / f"{path.stem}.png")
    return 0


def _switch(directory: Path, name: str, state: str) -> None:
    """The daemon reads below a name that leads to the state which the host is in now."""
    made = directory / f".{name}"
    made.symlink_to(host_root(name, state))
    os.replace(made, directory / name)


if __name__ == "__main__":
    sys.exit(main())
