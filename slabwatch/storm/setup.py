"""What the daemon and its engine must both know. Apart from the engine, which the daemon never has to load.

Standard library only: see ``engine``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

# The engine's own deadlines, for the tasks' end and for the cgroups' removal.
DRAIN_SECONDS = 20.0
REMOVE_SECONDS = 30.0
# What memory pressure in the storm uses up, beyond what the storm's cgroups hold already.
PRESSURE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that the engine has to know, as JSON in its only argument. Paths are directories."""

    storm_id: str
    parent: str
    home: str
    version: int  # of the memory hierarchy
    cgroups: int
    tasks: int
    kind: str
    workers: int
    live_tasks: int
    at_once: int  # kind shell: cgroups at one time, over all workers
    shell: str
    limit_bytes: int  # memory limit of the storm's root; 0: none
    limit_pids: int  # pids.max of the storm; 0: none
    pids_parent: str = ""  # where the pids controller has the storm's root, on v1 one of its own; "": nowhere
    pressure_floor_bytes: int = 0  # of MemAvailable, for the order press_host
    removal: str = "last"
    cgroups_per_second: float = 0.0
    ttl_seconds: float = 0.0  # after which it ends by itself, should the daemon hang; 0: never

    def to_json(self) -> str:
        """For the engine's argument."""
        return json.dumps(asdict(self))
