"""What the answers of many hosts look like to a person. Pure: answers in, page out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slabwatch.cli.contexts import Host
from slabwatch.cli.draw import Column, Grid, Note, Page, Value
from slabwatch.cli.exit_codes import Exit, exit_for
from slabwatch.cli.storm_tables import plan_words
from slabwatch.cli.words import many
from slabwatch.errors import ControlError

if TYPE_CHECKING:
    from slabwatch.storm.fleet import Group

Row = Sequence[Value]
Order = Callable[[Row], Any]

HOST = Column("host", gives="end")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one host said: a value (and its rows), or an error."""

    host: Host
    value: Any = None
    grid: Grid | None = None
    error: ControlError | None = None

    @property
    def exit(self) -> Exit:
        """As if this host had been asked alone."""
        return exit_for(self.error) if self.error else Exit.DONE

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {"answer": self.value} if self.error is None else {"error": error_dict(self.error)}
        return {"host": self.host.name, "target": self.host.target, "ok": self.error is None, **found}


def error_dict(error: ControlError) -> dict[str, Any]:
    """For JSON."""
    return {"code": error.code, "message": str(error), "exit": int(exit_for(error))}


def _largest_first(place: int) -> Order:
    def order(row: Row) -> tuple[bool, float]:
        value = row[place]
        return (False, -value) if isinstance(value, int | float) else (True, 0)

    return order


def _dying_first(row: Row) -> Any:
    return row[-1] != "no", _largest_first(1)(row)


# By the columns of ``tables.caches_grid`` and ``tables.cgroups_grid``.
CACHE_ORDERS: Mapping[str, Order] = {
    sort: _largest_first(place) for sort, place in (("size", 1), ("growth", 2), ("active", 3), ("unexplained", 8))
}
CGROUP_ORDERS: Mapping[str, Order] = {
    "kernel": _largest_first(1),
    "slab": _largest_first(2),
    "dying": _dying_first,
}


def merged_page(
    answers: Sequence[Answer],
    order: Order | None = None,
    limit: int = 0,
    failed: Callable[[ControlError], Row] | None = None,
) -> Page:
    """The rows of all hosts in one table, each with its host; ``failed`` makes a row of an error, else it is a note."""
    rows: list[tuple[str, Row]] = []
    columns: tuple[Column, ...] = ()
    for answer in answers:
        if answer.grid is not None:
            columns = answer.grid.columns
            rows += [(answer.host.name, row) for row in answer.grid.rows]
        elif failed and answer.error:
            rows.append((answer.host.name, failed(answer.error)))
    if order:
        rows.sort(key=lambda row: order(row[1]))
    shown = rows[: limit or None]
    page: list[Grid | Note | str] = []
    if columns and shown:
        page.append(Grid((HOST, *columns), [(host, *row) for host, row in shown]))
    if len(shown) < len(rows):
        page.append(Note(f"{len(shown):,} of {many(len(rows), 'row')}; --limit 0 shows all.", "dim"))
    return (*page, *failures(answers, told=bool(failed and columns)))


def failures(answers: Sequence[Answer], *, told: bool = False) -> list[Note]:
    """A sentence for each host that did not answer, unless that has been told, and how many these were."""
    bad = [answer for answer in answers if answer.error]
    notes = [] if told else [Note(f"{answer.host.name}: {answer.error}", "red") for answer in bad]
    return [*notes, Note(f"{len(answers) - len(bad):,} of {many(len(answers), 'host')} answered.", "dim")]


def status_grid(status: Mapping[str, Any]) -> Grid:
    """One line."""
    kernel, storm, running = status["kernel"], status["storm"], status["storm"]["running"]
    troubles = [f"{run['name']}: {run['error']}" for run in status["collectors"] if not run["success"]]
    if storm["leftover_cgroups"]:
        troubles.append(f"{many(storm['leftover_cgroups'], 'cgroup')} left over by storms")
    doing = f"{running['id']} {running['phase'] or 'starting'}" if running else "-"
    columns = (
        Column("state", "state"),
        Column("kernel"),
        Column("allocator", optional=True),
        Column("cgroup", optional=True),
        Column("accounting", optional=True),
        Column("storms", optional=True),
        Column("running"),
        Column("you", optional=True),
        Column("trouble", gives="wrap"),
    )
    row = (
        status["state"],
        kernel["release"],
        kernel["allocator"],
        kernel["cgroup_mode"],
        kernel["kmem_accounting"],
        "allowed" if storm["enabled"] else "off",
        doing,
        status["you"]["role"],
        "; ".join(troubles),
    )
    return Grid(columns, [row])


def status_failed(error: ControlError) -> Row:
    """The line of a host that did not answer."""
    return (error.code, *(None,) * 7, str(error))


def stop_grid(answer: Mapping[str, Any]) -> Grid:
    """One line."""
    said = "is stopping" if answer["stopping"] else f"has already ended: {answer['outcome']}" if answer["id"] else None
    return Grid((Column("storm"), Column("state")), [(answer["id"], said or "none is running")])


def forecast_grid(answer: Mapping[str, Any]) -> Grid:
    """One line."""
    refused = "; ".join(f"{check['name']}: {check['text']}" for check in answer["checks"] if not check["ok"])
    columns = (Column("state", "state"), Column("storm"), Column("why not", gives="wrap"))
    return Grid(columns, [("ok" if answer["accepted"] else "fail", plan_words(answer["plan"]), refused)])


def comparison_page(groups: Sequence[Group], failed: Sequence[Answer]) -> Page:
    """Releases side by side, for each plan."""
    page: list[Grid | Note | str] = []
    if len(groups) > 1:
        page.append(Note("These storms are not the same: those of each plan stand apart.", "yellow"))
    columns = (
        Column("kernel"),
        Column("hosts", "count"),
        Column("verdicts"),
        Column("stayed MiB median", "mib"),
        Column("min", "mib"),
        Column("max", "mib"),
        Column("which", gives="end", optional=True),
    )
    for group in groups:
        rows: list[Row] = []
        for release in group.releases:
            verdicts = ", ".join(f"{verdict} {count}" for verdict, count in release.verdicts.items())
            spread = release.retained_bytes
            sizes = (spread.median, spread.least, spread.most) if spread else (None,) * 3
            rows.append((release.release, len(release.hosts), verdicts, *sizes, ", ".join(release.hosts)))
        page += [_deciding_words(group.plan), Grid(columns, rows)]
    page += [Note(f"{answer.host.name}: {answer.error}", "red") for answer in failed]
    return page


def _deciding_words(plan: Mapping[str, Any]) -> str:
    size = f"{many(plan['cgroups'], 'cgroup')} x {plan['tasks']:,} of kind {plan['kind']}"
    rest = [
        f"{key.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in plan.items()
        if key not in ("cgroups", "tasks", "kind")
    ]
    return ", ".join((size, *rest))
