"""Logs: one event is one line, JSON that any reader takes, or a line for people."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch import logs

log = logging.getLogger("slabwatch.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(
    monkeypatch: pytest.MonkeyPatch, form: str, level: str = "info", stream: io.StringIO | None = None
) -> io.StringIO:
    stream = stream or io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.set_up(level, form)
    return stream


def only_json(line: str) -> Any:
    """By the letter of the standard: Python alone takes NaN and Infinity."""
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_line_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, "json")
    log.info("storm_started", extra={"fields": {"storm": "x", "plan": {"cgroups": 20}, "by": None, "path": Path("/a")}})
    line = only_json(out.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "event": "storm_started",
        "logger": "slabwatch.test",
        "storm": "x",
        "plan": {"cgroups": 20},
        "by": None,
        "path": "/a",
    }


def test_a_line_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, "human")
    log.warning("collector_failed", extra={"fields": {"collector": "slabinfo", "lines": 2, "left": {"/a": "busy"}}})
    clock, _, rest = out.getvalue().partition(" ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock)
    assert rest == 'warning collector_failed  collector=slabinfo  lines=2  left={"/a": "busy"}\n'


def test_an_event_without_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, "human")
    log.info("stopping")
    log.info("stopping", extra={"fields": "none at all"})
    assert [line.partition(" ")[2] for line in out.getvalue().splitlines()] == ["info    stopping"] * 2


@pytest.mark.parametrize("form", ["human", "json"])
def test_the_level_holds(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    out = written(monkeypatch, form, level="warning")
    log.info("not_this")
    log.warning("this")
    logging.getLogger("asyncio").info("nor_this")
    assert "not_this" not in out.getvalue()
    assert len(out.getvalue().splitlines()) == 1


def test_asyncio_says_warnings_only_even_at_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, "json", level="debug")
    logging.getLogger("asyncio").debug("Using selector: EpollSelector")
    log.debug("this")
    assert len(out.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("stream", "form", "is_json"),
    [
        (Terminal, "auto", False),
        (io.StringIO, "auto", True),
        (Terminal, "json", True),
        (io.StringIO, "human", False),
    ],
)
def test_the_form_goes_by_the_terminal_unless_it_is_said(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], form: str, is_json: bool
) -> None:
    out = written(monkeypatch, form, stream=stream())
    log.info("ready")
    assert out.getvalue().startswith("{") == is_json


def test_set_up_again_replaces_what_was_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(monkeypatch, "human")
    second = written(monkeypatch, "json", level="error")
    log.warning("not_said")
    log.error("said_once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize(
    "text",
    ["two\nlines", "carriage\rreturn", "\x1b[31mred", "form\ffeed", "line\u2028separator", "\x85", "nul\0", "\udcff"],
)
def test_what_comes_from_outside_makes_no_second_line(monkeypatch: pytest.MonkeyPatch, form: str, text: str) -> None:
    out = written(monkeypatch, form)
    log.info("odd", extra={"fields": {"text": text, "deep": {"list": [text, {"key": text}]}}})
    log.info(f"Exception in callback\n{text}")
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "\x1b" not in line
        line.encode("utf-8")
    if form == "json":
        assert only_json(lines[0])["text"] == text


def test_numbers_that_json_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, "json")
    fields = {"nan": float("nan"), "deep": [float("inf"), {"x": float("-inf")}], "path": Path("/a"), "fine": 0.5}
    log.info("asked", extra={"fields": fields})
    line = only_json(out.getvalue())
    assert line["nan"] == "NaN"
    assert line["deep"] == ["Infinity", {"x": "-Infinity"}]
    assert (line["path"], line["fine"]) == ("/a", 0.5)


def test_an_exception_is_part_of_its_json_line_and_follows_a_human_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("json", "human"):
        out = written(monkeypatch, form)
        try:
            raise ZeroDivisionError("of our own making")
        except ZeroDivisionError:
            log.exception("collector_defect", extra={"fields": {"collector": "meminfo"}})
        text = out.getvalue()
        assert "ZeroDivisionError: of our own making" in text
        if form == "json":
            line = only_json(text)
            assert line["exception"].startswith("Traceback")
            assert line["collector"] == "meminfo"
        else:
            assert text.splitlines()[0].endswith("collector_defect  collector=meminfo")


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@given(fields=st.dictionaries(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1), JSON_VALUES, max_size=5))
@pytest.mark.parametrize("form", ["human", "json"])
def test_any_fields_make_one_line(form: str, fields: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        out = written(patch, form)
        log.info("event", extra={"fields": fields})
        text = out.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    if form == "json":
        assert set(only_json(text)) == {"time", "level", "event", "logger"} | set(fields)
