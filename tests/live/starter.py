"""A stand-in for a storm's worker: enters a cgroup, starts tasks, tells their pids, and waits for them.

``python -I -S -E starter.py PATH-TO-IMPORT KIND COUNT CGROUP ORDERS``, with the life pipe as stdin. It prints a JSON
list of pids; when the descriptor ORDERS comes to its end it prints how each has ended: [pid, exit code or -signal].
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    parent, kind, count, cgroup, orders = sys.argv[1:]
    sys.path.insert(0, parent)
    from slabwatch.storm import lifecycle, spawn

    lifecycle.enter(cgroup)
    starter = spawn.Execer() if kind == "exec" else spawn.Cloner(share_memory=kind == "light")
    pids = [starter.start() for _ in range(int(count))]
    tell(pids)
    os.read(int(orders), 1)
    ends = []
    for pid in pids:
        ends.append([pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])])
        starter.ended(pid)
    # What has ended makes room for more.
    again = starter.start()
    os.kill(again, 9)
    os.waitpid(again, 0)
    tell(ends)


def tell(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
