"""The verbs about storms: start, follow, stop, and what came of them."""

from __future__ import annotations

import asyncio
import re
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slabwatch.cli import storm_tables
from slabwatch.cli.ctrl_c import CtrlC, plain_sigint
from slabwatch.cli.exit_codes import Exit
from slabwatch.cli.follow import progress_for
from slabwatch.cli.screen import Screen
from slabwatch.cli.steer import (
    accepted,
    ask_to_stop,
    forecast,
    judge,
    running_id,
    start,
    stopped,
    to_the_end,
    wishes_of,
)
from slabwatch.cli.words import many, printable
from slabwatch.control.client import ControlClient
from slabwatch.errors import ControlError

# A storm up to this size is not worth a question.
ASK_ABOVE_TASKS = 1000

_LAST = re.compile(r"last(?:-([0-9]{1,6}))?\Z")


async def storm(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    """Start a storm and follow it. The terminal holds a lease: if it dies, the daemon stops the storm."""
    wishes = wishes_of(args)
    if args.dry_run:
        answer = await forecast(client, wishes)
        screen.show(answer, storm_tables.forecast_page)
        return accepted(answer)
    if not args.yes and sys.stdin.isatty() and not await _agreed(client, wishes, screen):
        screen.say("Nothing was started.")
        return Exit.USAGE
    with CtrlC() as ctrl_c:
        started = await start(client, wishes, lease=not args.detach)
        if args.detach:
            if screen.as_json:
                screen.json_line(started)
            else:
                print(started["id"])
            return Exit.DONE
        screen.say(f"Storm {started['id']}: {storm_tables.plan_words(started['plan'])}. Ctrl-C stops it.")
        record = await _followed(client, screen, started["id"], started["plan"], ctrl_c, lease=True)
    if record is None:
        screen.say(f"Storm {started['id']} is being stopped: `slabwatchctl follow {started['id']}` shows how it ends.")
        return Exit.INTERRUPTED
    return _end(record, args.expect, screen)


async def _agreed(client: ControlClient, wishes: Mapping[str, Any], screen: Screen) -> bool:
    plan = (await forecast(client, wishes))["plan"]
    if plan["cgroups"] * plan["tasks"] <= ASK_ABOVE_TASKS:
        return True
    with plain_sigint():
        screen.say(f"{storm_tables.plan_words(plan)}, by the daemon at {client.name}.")
        print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")


async def follow(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    """Follow a storm that somebody else started. Ctrl-C leaves it running."""
    storm_id = args.id or await running_id(client)
    if storm_id is None:
        raise ControlError(
            "no storm is running: `slabwatchctl storms` lists those that have ended", code="none_running"
        )
    plan = (await client.get(f"/v1/storms/{storm_id}"))["plan"]
    with CtrlC() as ctrl_c:
        record = await _followed(client, screen, storm_id, plan, ctrl_c, lease=False)
    if record is None:
        screen.say(
            f"Storm {storm_id} goes on without this terminal: `slabwatchctl follow {storm_id}` shows how it ends."
        )
        return Exit.INTERRUPTED
    return _end(record, None, screen)


async def stop(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    """Ask a storm to stop. What does not run need not be stopped: that is no failure."""
    answer = await stopped(client, args.id)
    if screen.as_json:
        screen.json_line(answer)
    elif answer["stopping"]:
        print(f"{answer['id']} is stopping; `slabwatchctl follow {answer['id']}` shows how it ends")
    else:
        print(f"{answer['id']} has already ended: {answer['outcome']}" if answer["id"] else "no storm is running")
    return Exit.DONE


async def storms(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    screen.show(await client.get("/v1/storms"), storm_tables.storms_page)
    return Exit.DONE


async def report(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    chosen = args.format or ("json" if screen.as_json else "text")
    if chosen == "html" and screen.is_window:
        screen.say("HTML is for a browser: slabwatchctl report --format html > storm.html")
        return Exit.USAGE
    try:
        record = await _record(client, args.id)
    except _UnusableFile as error:
        return _unusable(error, screen)
    if chosen == "json":
        screen.json_line(record)
    elif chosen == "html":
        from slabwatch.storm.report_html import html_report

        print(html_report(record), end="")
    else:
        from slabwatch.storm.report import csv_report, text_report

        text = (text_report if chosen == "text" else csv_report)(record).rstrip("\n")
        print("\n".join(map(printable, text.split("\n"))))
    return Exit.DONE


async def compare(client: ControlClient, args: Namespace, screen: Screen) -> Exit:
    """Two records side by side; without a daemon when both are files."""
    from slabwatch.storm.compare import compare as compared

    try:
        comparison = compared(await _record(client, args.a), await _record(client, args.b))
    except _UnusableFile as error:
        return _unusable(error, screen)
    if screen.as_json:
        screen.json_line(comparison.as_dict())
    else:
        screen.page(storm_tables.comparison_page(comparison))
    return Exit.DONE


class _UnusableFile(Exception):
    """It was named as a record's file, and is none."""


def _unusable(error: _UnusableFile, screen: Screen) -> Exit:
    screen.say(f"slabwatchctl: {printable(str(error))}")
    return Exit.USAGE


async def _record(client: ControlClient, name: str) -> dict[str, Any]:
    """The record that ``name`` stands for. Raises ControlError and _UnusableFile."""
    if "/" in name or "." in name:  # no id has these
        return await asyncio.to_thread(_record_in, name)
    back = _LAST.match(name)
    storm_id = await _finished_id(client, int(back[1] or 0)) if back else name
    record: dict[str, Any] = await client.get(f"/v1/storms/{storm_id}")
    if "verdict" not in record:
        raise ControlError(
            f"storm {storm_id} has not ended yet: `slabwatchctl follow {storm_id}`", code="storm_running"
        )
    return record


def _record_in(path: str) -> dict[str, Any]:
    from slabwatch.storm.record_form import record_of

    try:
        return record_of(Path(path).read_bytes())
    except OSError as error:
        raise _UnusableFile(f"{path}: {error.strerror}") from error
    except ValueError as error:
        text = f"{path}: not a storm's record: {error}. `slabwatchctl report ID --format json` writes one"
        raise _UnusableFile(text) from error


async def _finished_id(client: ControlClient, back: int) -> str:
    ended = [known["id"] for known in (await client.get("/v1/storms"))["storms"] if known["outcome"] != "running"]
    if not ended:
        raise ControlError("no storm has ended yet: `slabwatchctl storm` runs a small one", code="unknown_storm")
    if back >= len(ended):
        raise ControlError(f"last-{back}: only {many(len(ended), 'storm')} can be found here", code="unknown_storm")
    return str(ended[back])


async def _followed(
    client: ControlClient, screen: Screen, storm_id: str, plan: Mapping[str, Any], ctrl_c: CtrlC, *, lease: bool
) -> dict[str, Any] | None:
    """Show events until the end, and return the record; None after Ctrl-C (with a lease, after the second)."""
    progress = progress_for(screen, plan)
    following = asyncio.create_task(to_the_end(client, storm_id, progress, lease=lease))
    stopping: list[asyncio.Task[None]] = []

    def interrupted() -> None:
        if lease and not stopping:
            progress.say("Stopping, and cleaning up. Ctrl-C once more leaves that to the daemon.")
            stopping.append(asyncio.create_task(ask_to_stop(client, storm_id, progress)))
        else:
            following.cancel()

    ctrl_c.calls(interrupted)
    try:
        return await following
    except asyncio.CancelledError:
        if not following.cancelled():
            raise  # it is this task that is being cancelled
        return None
    finally:
        # Whether its answer has come or not: the storm has ended, or the lease that ends here stops it.
        for task in stopping:
            task.cancel()
        await asyncio.gather(*stopping, return_exceptions=True)
        progress.close()


def _end(record: Mapping[str, Any], expect: str | None, screen: Screen) -> Exit:
    if not screen.as_json:
        screen.page(storm_tables.verdict_page(record))
    if left := record["cgroups"]["leftover"]:
        named = ", ".join(list(record["cgroups"].get("left", {}))[:3])
        screen.say(f"The storm has left {many(left, 'cgroup')} behind: {named or 'see the report'}.")
    code, verdict = judge(record, expect), record["verdict"]
    if code == Exit.UNEXPECTED:
        screen.say(f"Expected {expect}, but the verdict is {verdict['class']}.")
    return code
