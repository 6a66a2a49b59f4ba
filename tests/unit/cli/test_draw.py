"""Pages as lines: nothing is wider than the window, nothing is lost without one."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.cli import storm_tables, tables
from slabwatch.cli.draw import Column, Grid, Line, Note, Page, as_text, lay_out
from slabwatch.cli.words import duration, many, mib, printable
from slabwatch.control.views import caches_view, cgroups_view
from slabwatch.watch.derive import derive
from tests.unit.control.pretended import FINDINGS, PretendedSampler, PretendedShrink, cgroups, plan, record, sample

LONG = (
    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c3d4e_5f60_7182_93a4_b5c6d7e8f901.slice/x.scope"
)


def _text(page: Page, width: int | None) -> list[str]:
    return [as_text(line) for line in lay_out(page, width)]


def _cells(line: Line) -> int:
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in as_text(line)
        if not unicodedata.combining(char)
    )


def _caches() -> Any:
    now = sample()
    return caches_view(PretendedSampler(), now, derive(now))


def _cgroups(*paths: str) -> Any:
    readings = cgroups(paths=paths, columns={"kernel_bytes": tuple("123456789" for _ in paths)})
    return cgroups_view(sample(), readings)


def _summary(verdict: str) -> dict[str, Any]:
    return {
        "id": "20260401-120000-ab12", "outcome": "completed", "verdict": verdict, "preset": "seed-once",
        "cgroups": 1000, "tasks": 100_000, "started_at": 1_570_000_000.0, "seconds": 262.0,
        "requested_by": "somebody-with-a-long-name",
    }  # fmt: skip


PAGES = {
    "caches": tables.caches_page(_caches(), 0, "size"),
    "unexplained": tables.caches_page(_caches(), 0, "unexplained"),
    "cgroups": tables.cgroups_page(_cgroups("/", LONG, "__other__"), 0, "kernel"),
    "doctor": tables.doctor_page({"findings": FINDINGS}),
    "shrink": tables.shrink_page(PretendedShrink(["task_struct"]).as_dict(), named=True),
    "storms": storm_tables.storms_page({"storms": [_summary("inconclusive"), _summary("released")]}),
    "verdict": storm_tables.verdict_page(record("storm-1", plan(preset="full"), "aborted", "inconclusive")),
    "forecast": storm_tables.forecast_page(
        {
            "plan": plan(preset="seed").as_dict(),
            "accepted": False,
            "checks": [{"name": "pids", "ok": False, "text": "no " * 60}],
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_page_fits_the_window(name: str, width: int) -> None:
    assert max(map(_cells, lay_out(PAGES[name], width))) <= width


@pytest.mark.parametrize("name", PAGES)
def test_plain_pages_are_complete(name: str) -> None:
    text = "\n".join(_text(PAGES[name], None))
    assert "…" not in text
    for block in PAGES[name]:
        if isinstance(block, Grid):
            for row in block.rows:
                assert all(cell in text for cell in row if isinstance(cell, str))


def test_narrow_windows_leave_out_what_is_optional() -> None:
    wide, narrow = _text(PAGES["caches"], 200), _text(PAGES["caches"], 80)
    assert "expected" in wide[2]
    assert "expected" not in narrow[3]
    assert "unexplained" in narrow[3]


def test_paths_keep_their_end_and_names_their_start() -> None:
    row = next(line for line in _text(PAGES["cgroups"], 80) if "…" in line)
    assert row.startswith("…")
    assert "b5c6d7e8f901.slice/x.scope" in row
    grid = Grid((Column("name", gives="end"), Column("n", "count")), [("abcdefghijklmnopqrstuvwxyz", 1)])
    assert _text([grid], 20)[1] == "abcdefghijklmnop…  1"


def test_wrapped_cells_hang() -> None:
    grid = Grid(
        (Column("state", "state"), Column("finding", gives="wrap")), [("ok", "one two three"), ("fail", "four")]
    )
    assert _text([grid], 19) == ["state  finding", "ok     one two", "       three", "fail   four"] or _text([grid], 19)
    lines = [line.rstrip() for line in _text([grid], 19)]
    assert lines == ["state  finding", "ok     one two", "       three", "fail   four"]


def test_states_have_colours_and_names_have_none() -> None:
    grid = Grid((Column("state", "state"), Column("name")), [("ok", "ok")])
    (_, row) = lay_out([grid], 80)
    assert [style for text, style in row if text.strip() == "ok"] == ["green", ""]


def test_numbers_for_people_and_for_programs() -> None:
    kinds: list[tuple[Any, Any, str, str]] = [
        ("count", 1234567, "1,234,567", "1234567"),
        ("mib", 1234 * 2**20, "1,234.00", "1234.00"),
        ("growth", 2**20, "+1.00", "+1.00"),
        ("growth", -(2**20), "-1.00", "-1.00"),
        ("growth", 0, "0.00", "0.00"),
        ("percent", 99.6, "100", "100"),
        ("duration", 262.0, "4 min 22 s", "262.0"),
        ("count", None, "-", "-"),
        ("text", "", "-", "-"),
    ]
    for kind, value, people, programs in kinds:
        grid = Grid((Column("a title", kind),), [(value,)])
        assert _text([grid], 80)[1].strip() == people
        assert [line.strip() for line in _text([grid], None)] == ["a_title", programs]


def test_sentences_are_comments_for_programs() -> None:
    assert _text([Note("some words"), Grid((Column("x"),), [])], None) == ["# some words", "x"]
    assert _text([Note("some words"), Grid((Column("x"),), [])], 5) == ["some", "words", "", "x"]


@given(st.lists(st.tuples(st.text(), st.none() | st.integers()), max_size=4), st.none() | st.integers(40, 120))
def test_any_name_makes_one_clean_line(rows: list[tuple[str, int | None]], width: int | None) -> None:
    grid = Grid((Column("name", gives="start"), Column("n", "count", optional=True)), rows)
    lines = lay_out([grid], width)
    assert len(lines) == 1 + len(rows)
    for line in lines:
        assert as_text(line).isprintable()
        assert width is None or _cells(line) <= width


@given(st.text())
def test_printable_is_printable_and_leaves_the_harmless_alone(text: str) -> None:
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text


def test_lone_surrogates_are_harmless() -> None:
    assert printable("a\udcffb") == "a\\udcffb"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.0006, "0.6 ms"), (0.842, "842 ms"), (0.9999, "1.0 s"), (3.21, "3.2 s"), (59.97, "1 min"),
        (262, "4 min 22 s"), (900, "15 min"), (11_520, "3 h 12 min"), (86_400, "1 d"), (446_400, "5 d 4 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_words() -> None:
    assert (mib(None), mib(0), mib(1234 * 2**20)) == ("unknown", "0.0 MiB", "1,234.0 MiB")
    assert (many(1, "cgroup"), many(1000, "cgroup")) == ("1 cgroup", "1,000 cgroups")


def test_retained_without_a_shrink_says_so() -> None:
    verdict = {"class": "retained", "retained_bytes": 5, "released_by_shrink_bytes": None, "pinned_bytes": None}
    done = record("storm-1", plan()) | {"verdict": verdict | {"explained_ratio": None, "reason": "no shrink was run"}}
    text = " ".join(_text(storm_tables.verdict_page(done), None))
    assert "Not told apart from pinned: no shrink was run." in text
    assert text.count("no shrink was run") == 1
    assert "a shrink gave it back" not in text


def test_troubles_of_a_storm_are_told() -> None:
    done = record("storm-1", plan())
    done["tasks"]["failed"] = 312
    done["cgroups"] |= {"leftover": 5, "left": {f"/sys/fs/cgroup/s/c000{index}": "still busy" for index in range(5)}}
    text = "\n".join(_text(storm_tables.verdict_page(done), None))
    assert "312 tasks could not be started." in text
    assert "5 cgroups could not be removed." in text
    assert "/sys/fs/cgroup/s/c0002: still busy" in text
    assert "c0003" not in text
    assert "2 more are in the report." in text


def test_memory_pressure_is_shown_where_there_was_some() -> None:
    done = record("storm-1", plan())
    without = "\n".join(_text(storm_tables.verdict_page(done), None))
    assert "pressure" not in without
    done["verdict"]["released_by_pressure_bytes"] = 3 * 2**20
    for row in done["caches"]:
        row["released_by_pressure_bytes"] = 2 * 2**20
    lines = _text(storm_tables.verdict_page(done), None)
    assert "given back by pressure    3.0 MiB" in lines
    (heads,) = (line for line in lines if line.startswith("cache "))
    assert "until memory was needed" not in " ".join(lines)
    done["verdict"] |= {"released_by_pressure_bytes": 500_000_000, "released_by_shrink_bytes": 3}
    assert "until memory was needed" in " ".join(_text(storm_tables.verdict_page(done), None))
    assert heads.split() == ["cache", "verdict", "growth_MiB", "retained", "by_pressure", "given_back", "pinned"]
