"""The verbs of who looks after a host: the maintenance switch and the audit log."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from slabwatch.cli.draw import Column, Grid, Note, Page
from slabwatch.cli.exit_codes import Exit
from slabwatch.cli.screen import Screen
from slabwatch.cli.words import clock, many, printable
from slabwatch.control.client import ControlClient

# What every line of the audit log has, and the table shows in columns of its own.
_COLUMNS = ("time", "outcome", "command", "user", "door", "storm_id")
_OBVIOUS = (*_COLUMNS, "allowed")


async def lock(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    """Lock storms and shrinks until ``unlock``."""
    answer = await client.post("/v1/lock", {"reason": args.reason, "stop": args.stop})
    if screen.as_json:
        screen.json_line(answer)
        return Exit.DONE
    print("storms and shrinks are locked until `slabwatchctl unlock`" + _before(answer["before"]))
    if answer["stopping"]:
        print(f"{answer['stopping']} is stopping; `slabwatchctl follow {answer['stopping']}` shows how it ends")
    return Exit.DONE


async def unlock(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    """Allow them again. What is not locked need not be unlocked: that is no failure."""
    answer = await client.post("/v1/unlock", {})
    if screen.as_json:
        screen.json_line(answer)
    else:
        print(
            f"storms and shrinks are unlocked{_before(answer['before'])}" if answer["before"] else "nothing was locked"
        )
    return Exit.DONE


def _before(lock: Mapping[str, Any] | None) -> str:
    if lock is None:
        return ""
    when = f" since {clock(lock['since'])}" if lock["since"] is not None else ""
    return printable(f"; they were locked{when} by {lock['by'] or 'the daemon'}: {lock['reason']}")


async def audit(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    """The last commands and refusals, newest first."""
    screen.show(await client.get("/v1/audit" + (f"?limit={args.limit}" if args.limit else "")), audit_page)
    return Exit.DONE


def audit_page(answer: Mapping[str, Any]) -> Page:
    """A line for each command; what only some of them have is in the last column."""
    columns = (
        Column("time"),
        Column("outcome", "state"),
        Column("command"),
        Column("who", gives="end"),
        Column("door"),
        Column("storm", optional=True),
        Column("more", gives="wrap"),
    )
    rows = [[*(_text(entry.get(key)) for key in _COLUMNS), _more(entry)] for entry in answer["entries"]]
    page: list[Grid | Note | str] = [Grid(columns, rows), Note(f"The whole log is in {answer['path']}.", "dim")]
    if answer["lost"]:
        page.append(Note(f"{many(answer['lost'], 'line')} could not be written: look at the daemon's log.", "yellow"))
    return page


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _more(entry: Mapping[str, Any]) -> str:
    others = {key: value for key, value in entry.items() if key not in _OBVIOUS}
    return ", ".join(f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in others.items())
