"""The HTML report in a real browser. The pictures are kept with the test run's temporary files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slabwatch.storm.report_html import html_report
from tests.browser.chromium import Page, page
from tests.unit.storm.records import made_record
from tests.unit.storm_reports.records import scaled_storm
from tests.unit.storm_reports.test_report_html import HOSTILE, aborted, hostile_record

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

DESKTOP, PHONE = 1200, 360
PAPER_PIXELS = 690
RECORDS = {
    "retained": scaled_storm("4.19.40-cgroup-v1", 20),
    "released": scaled_storm("6.1.176-cgroup-v2"),
    "sheaves": scaled_storm("7.2.13-cgroup-v2", 20),
    "no shrink": scaled_storm("4.19.40-cgroup-v1", shrink=False),
    "pressure": scaled_storm("4.19.40-cgroup-v1", 20, pressure=True),
}
STATE = """({
    trouble: document.documentElement.dataset.trouble || "",
    charts: document.documentElement.dataset.charts,
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    background: getComputedStyle(document.body).backgroundColor,
    word: document.querySelector(".word").textContent,
    hidden: [...document.querySelectorAll("figure.curve")].filter(curve => !curve.offsetHeight).length,
})"""
# How much of a canvas has been painted, and in how many colours.
PAINTED = """[...document.querySelectorAll("canvas")].map(canvas => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    let painted = 0;
    for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at + 3] === 255) {
            painted++;
            colours.add(pixels[at] << 16 | pixels[at + 1] << 8 | pixels[at + 2]);
        }
    return {width: canvas.clientWidth, painted, colours: [...colours]};
})"""


def written(record: dict[str, Any], directory: Path) -> Path:
    file = directory / "storm.html"
    file.write_text(html_report(record), encoding="utf-8")
    return file


async def check(tab: Page, file: Path) -> dict[str, Any]:
    """Open it: it must need nothing but itself, and raise nothing."""
    await tab.open(file)
    assert tab.errors == []
    assert tab.requests == [file.as_uri()]
    state: dict[str, Any] = await tab.run(STATE)
    assert state["trouble"] == ""
    assert state["sideways"] <= 0, "the page itself scrolls sideways"
    return state


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_page_is_drawn(browser: str, tmp_path: Path, name: str, width: int, dark: bool) -> None:
    async with page(browser, width, dark=dark) as tab:
        state = await check(tab, written(RECORDS[name], tmp_path))
        assert state["charts"] == "2"
        assert state["hidden"] == 0
        assert state["word"] == RECORDS[name]["verdict"]["class"]
        assert state["background"] == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
        charts = await tab.run(PAINTED)
        assert len(charts) == 2
        lines = ((0xFF8C42, 0x56B4E9), (0xE08CC5, 0x3FC79A)) if dark else ((0xC24E00, 0x0072B2), (0x8F3B76, 0x00795A))
        for chart, colours in zip(charts, lines, strict=True):
            assert width / 2 < chart["width"] <= width
            assert chart["painted"] > 1000
            assert set(colours) <= set(chart["colours"]), "a line is missing"
        bars = await tab.run("[...document.querySelectorAll('.bars .bar')].map(bar => bar.clientWidth)")
        assert min(bars) > width / 3
        await tab.picture(tmp_path / f"{name}.png")


async def test_pointing_at_a_curve_tells_its_figures(browser: str, tmp_path: Path) -> None:
    async with page(browser, DESKTOP) as tab:
        await check(tab, written(RECORDS["retained"], tmp_path))
        legend = "[...document.querySelectorAll('.u-legend')].map(legend => legend.innerText)"
        memory, tasks = await tab.run(legend)
        assert "highest +402.7 MiB" in memory
        assert "highest 20,000" in tasks
        box = await tab.run("(() => { const {x, y, width, height} = document.querySelector('.u-over')"
                            ".getBoundingClientRect(); return [x + width / 2, y + height / 2]; })()")  # fmt: skip
        await tab.ask("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
        await tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        memory, tasks = await tab.run(legend)
        assert "s, settle" in memory
        assert "+329.0 MiB (333.7 in all)" in memory
        assert "17,906" in tasks, "both curves show the same moment"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_paper_is_white_and_narrow(browser: str, tmp_path: Path, dark: bool) -> None:
    async with page(browser, DESKTOP, dark=dark) as tab:
        await check(tab, written(RECORDS["retained"], tmp_path))
        await tab.paper(tmp_path / "storm.pdf")
        assert (tmp_path / "storm.pdf").read_bytes().startswith(b"%PDF")
        assert tab.errors == []
        # As the print began, and once it is over.
        await tab.run("dispatchEvent(new Event('beforeprint'))")
        charts = await tab.run(PAINTED)
        assert {chart["width"] for chart in charts} == {PAPER_PIXELS}
        assert 0xC24E00 in charts[0]["colours"]
        await tab.run("dispatchEvent(new Event('afterprint'))")
        charts = await tab.run(PAINTED)
        assert charts[0]["width"] > PAPER_PIXELS
        assert (0xFF8C42 in charts[0]["colours"]) == dark


async def test_the_curves_follow_the_window(browser: str, tmp_path: Path) -> None:
    async with page(browser, DESKTOP) as tab:
        await check(tab, written(RECORDS["retained"], tmp_path))
        await tab.look(PHONE, 740)
        await tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert (await tab.run(STATE))["sideways"] <= 0
        assert max(chart["width"] for chart in await tab.run(PAINTED)) <= PHONE


async def test_without_scripts_the_tables_tell_it(browser: str, tmp_path: Path) -> None:
    async with page(browser, PHONE, scripts=False) as tab:
        state = await check(tab, written(RECORDS["retained"], tmp_path))
        assert state["hidden"] == 2, "no empty frames"
        text = await tab.run("document.body.innerText")
        assert "The curves need JavaScript. The tables below tell the same." in text
        assert "After a shrink" in text
        assert await tab.run("document.querySelectorAll('.bars .bar rect').length") > 20


@pytest.mark.parametrize("record", [made_record(), aborted()], ids=["gaps", "aborted"])
async def test_records_with_gaps(browser: str, tmp_path: Path, record: dict[str, Any]) -> None:
    async with page(browser, DESKTOP) as tab:
        state = await check(tab, written(record, tmp_path))
        assert state["charts"] == ("2" if record["series"] else "0")


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_runs_nothing(browser: str, tmp_path: Path, text: str) -> None:
    async with page(browser, PHONE) as tab:
        state = await check(tab, written(hostile_record(text), tmp_path))
        assert state["charts"] == "2"
        assert await tab.run("document.scripts.length") == 3
        assert await tab.run("document.querySelectorAll('img, [onerror], [onmouseover]').length") == 0


async def test_a_failure_is_told(browser: str, tmp_path: Path) -> None:
    file = written(RECORDS["retained"], tmp_path)
    # A changed script is not run, by the page's own policy; its data broken is the failure of the other one.
    broken = file.read_text(encoding="utf-8").replace('id="data">{', 'id="data">{{', 1)
    file.write_text(broken, encoding="utf-8")
    async with page(browser, DESKTOP) as tab:
        await tab.open(file)
        state = await tab.run(STATE)
        assert "JSON" in state["trouble"]
        assert state["hidden"] == 2
        assert "The curves could not be drawn" in await tab.run("document.body.innerText")
