"""A storm on each of many hosts: the first is the canary, and the first that goes wrong is the last one begun."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from slabwatch.cli.contexts import Host
from slabwatch.cli.ctrl_c import CtrlC, plain_sigint
from slabwatch.cli.draw import Column, Grid, Note, Page
from slabwatch.cli.exit_codes import Exit, exit_for
from slabwatch.cli.fleet_board import Board, HostProgress, Turn, board_for
from slabwatch.cli.fleet_tables import HOST, error_dict
from slabwatch.cli.follow import Course
from slabwatch.cli.rollout import Rollout
from slabwatch.cli.screen import Screen
from slabwatch.cli.steer import ask_to_stop, forecast, judge, start, to_the_end, wishes_of
from slabwatch.cli.storm_tables import plan_words
from slabwatch.cli.words import many
from slabwatch.control.client import ControlClient
from slabwatch.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMES_SHOWN = 20


async def storm(hosts: Sequence[Host], args: Namespace, screen: Screen) -> Exit:
    """Run it everywhere, and show a row a host. Ctrl-C stops what runs, and begins no more."""
    wishes, parallel = wishes_of(args), args.parallel or 1
    if not args.yes and not await _agreed(hosts, wishes, parallel, screen):
        screen.say("Nothing was started.")
        return Exit.USAGE
    turns = [Turn(host) for host in hosts]
    board = board_for(turns, as_json=screen.as_json)
    fleet = FleetStorm(wishes, args.expect, board, screen)
    rollout = Rollout(turns, parallel)
    with CtrlC() as ctrl_c:
        rolling = asyncio.create_task(rollout.run(fleet.turn), name="storms")

        def interrupted() -> None:
            if fleet.interrupted.is_set():
                rolling.cancel()
                return
            board.say("Stopping what runs, and cleaning up. Ctrl-C once more leaves that to the daemons.")
            rollout.halt()
            fleet.interrupted.set()

        ctrl_c.calls(interrupted)
        try:
            await asyncio.wait({rolling})
        finally:
            rolling.cancel()  # it has ended, or it is this task that is being cancelled
            await asyncio.gather(rolling, return_exceptions=True)
            board.close()
    if not rolling.cancelled():
        rolling.result()  # raises what no host is to blame for
    for turn in turns:
        if turn.exit is None:
            turn.state = "not_run" if turn.state == "waiting" else "left"
            fleet.tell(turn)
    if not screen.as_json:
        screen.page(turns_page(turns))
    worst = max(turn.exit or Exit.DONE for turn in turns)
    return Exit.INTERRUPTED if fleet.interrupted.is_set() else worst


async def _agreed(hosts: Sequence[Host], wishes: Mapping[str, Any], parallel: int, screen: Screen) -> bool:
    number = many(len(hosts), "host")
    if not sys.stdin.isatty():
        screen.say(f"A storm on {number}: nobody can be asked here whether that is meant; --yes says that it is.")
        return False
    canary = hosts[0]
    async with ControlClient(canary.target, canary.settings) as client:
        plan = (await forecast(client, wishes))["plan"]
    more = [f"and {len(hosts) - NAMES_SHOWN:,} more"] if len(hosts) > NAMES_SHOWN else []
    names = ", ".join([host.name for host in hosts[:NAMES_SHOWN]] + more)
    with plain_sigint():
        screen.say(f"{plan_words(plan)}, on each of {number}: {canary.name} alone, then {parallel} at a time.")
        screen.say(names)
        print(f"Type the number of hosts ({len(hosts)}) to go on: ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip() == str(len(hosts))


class FleetStorm:
    """What is done at each host. ``interrupted`` stops the storms that run."""

    def __init__(self, wishes: Mapping[str, Any], expect: str | None, board: Board, screen: Screen) -> None:
        self._wishes = wishes
        self._expect = expect
        self._board = board
        self._screen = screen
        self.interrupted = asyncio.Event()

    async def turn(self, turn: Turn) -> bool:
        """One host's storm, from its start to its verdict; whether others may follow.

        Other load that makes the figures useless is a reason to look, not to stop, unless a verdict is expected. What
        was left behind is.
        """
        turn.state = "starting"
        try:
            async with ControlClient(turn.host.target, turn.host.settings) as client:
                await self._storm(client, turn)
        except ControlError as error:
            turn.error, turn.exit = error, exit_for(error)
            unreachable = "unreachable" if turn.exit == Exit.UNREACHABLE else "refused"
            turn.state = "lost" if turn.storm_id else unreachable
        self.tell(turn)
        left = turn.record["cgroups"]["leftover"] if turn.record else 0
        return turn.state == "completed" and not left and self._expect in (None, turn.verdict)

    async def _storm(self, client: ControlClient, turn: Turn) -> None:
        started = await start(client, self._wishes, lease=True)
        turn.storm_id, turn.course, turn.state = started["id"], Course(started["plan"]), "running"
        progress = HostProgress(turn, self._board)
        self._board.tell(turn, f"storm {turn.storm_id}: {plan_words(started['plan'])}")
        async with self._stopped_at_ctrl_c(client, started["id"], progress):
            record = await to_the_end(client, started["id"], progress, lease=True)
        turn.record, turn.state, turn.exit = record, record["outcome"], judge(record, self._expect)

    @asynccontextmanager
    async def _stopped_at_ctrl_c(
        self, client: ControlClient, storm_id: str, progress: HostProgress
    ) -> AsyncIterator[None]:
        async def stop() -> None:
            await self.interrupted.wait()
            await ask_to_stop(client, storm_id, progress)

        stopping = asyncio.create_task(stop(), name=f"stop {storm_id}")
        try:
            yield
        finally:
            # Whether its answer has come or not: the storm has ended, or the lease that ends here stops it.
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)

    def tell(self, turn: Turn) -> None:
        """A host's turn is over."""
        if self._screen.as_json:
            self._screen.json_line(turn_dict(turn))
        self._board.tell(turn, f"{turn.state}{f', {turn.verdict}' if turn.verdict else ''}{_because(turn)}")


def _because(turn: Turn) -> str:
    return f": {remark}" if (remark := _remark(turn)) else ""


def _remark(turn: Turn) -> str:
    if turn.error:
        return str(turn.error)
    if turn.exit == Exit.UNEXPECTED:
        return "not the expected verdict"
    record = turn.record or {}
    return str(record.get("reason") or (record.get("verdict") or {}).get("reason") or "") if turn.exit else ""


def turn_dict(turn: Turn) -> dict[str, Any]:
    """For JSON. ``exit`` is null where nothing was begun, or where Ctrl-C left it."""
    return {
        "host": turn.host.name,
        "target": turn.host.target,
        "ok": turn.exit == Exit.DONE,
        "state": turn.state,
        "exit": None if turn.exit is None else int(turn.exit),
        "storm_id": turn.storm_id,
        "verdict": turn.verdict,
        "error": error_dict(turn.error) if turn.error else None,
        "record": turn.record,
    }


def turns_page(turns: Sequence[Turn]) -> Page:
    """A row a host, and how many were not run."""
    columns = (
        HOST,
        Column("state", "state"),
        Column("verdict", "state"),
        Column("kernel"),
        Column("growth MiB", "growth", optional=True),
        Column("stayed MiB", "mib"),
        Column("given back MiB", "mib", optional=True),
        Column("took", "duration", optional=True),
        Column("storm", optional=True),
        Column("remark", gives="wrap"),
    )
    rows = []
    for turn in turns:
        record = turn.record or {}
        verdict = record.get("verdict") or {}
        sizes = [verdict.get(key) for key in ("growth_bytes", "retained_bytes", "released_by_shrink_bytes")]
        kernel = (record.get("host") or {}).get("release")
        rows.append(
            (turn.host.name, turn.state, turn.verdict, kernel, *sizes, record.get("seconds"), turn.storm_id,
             _remark(turn))
        )  # fmt: skip
    missed = sum(turn.state == "not_run" for turn in turns)
    note = [Note(f"{many(missed, 'host')} of {len(turns):,} not run.", "yellow")] if missed else []
    return (Grid(columns, rows), *note)
