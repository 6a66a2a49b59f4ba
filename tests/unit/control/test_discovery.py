"""Hosts from Prometheus: a real one (its API, one target up and one down), and answers that are none."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.control import discovery
from slabwatch.control.discovery import Scraped, scraped_by
from slabwatch.errors import ControlError
from tests.e2e.fleet import free_address, server


def target(job: str = "slabwatch", url: str = "http://db1:9934/metrics", **labels: str) -> dict[str, Any]:
    return {"labels": {"job": job, **labels}, "scrapeUrl": url, "health": "up"}


def body(*targets: dict[str, Any]) -> bytes:
    return json.dumps({"status": "success", "data": {"activeTargets": targets, "droppedTargets": []}}).encode()


@asynccontextmanager
async def answering(answer: bytes, status: int = 200) -> AsyncIterator[str]:
    async def targets(request: web.Request) -> web.Response:
        assert request.query["state"] == "active"
        return web.Response(body=answer, status=status, content_type="application/json")

    app = web.Application()
    app.router.add_get("/prefix/api/v1/targets", targets)
    async with TestServer(app) as server:
        yield str(server.make_url("/prefix/"))


@pytest.mark.asyncio
async def test_the_targets_of_a_job() -> None:
    answer = body(
        target(instance="one.example:9934"),
        target(url="http://[fe80::1]:9934/metrics", instance="[fe80::1]:9934"),
        target(job="node", instance="two"),
        target(url="https://user:secret@10.0.0.3/metrics", instance="fe80::3"),
        target(url="http://10.0.0.3/other", instance="fe80::3"),
        target(url="http://10.0.0.4/metrics"),
    )
    async with answering(answer) as url:
        assert await scraped_by(url, "slabwatch") == (
            Scraped("db1", "one.example"),
            Scraped("[fe80::1]", "[fe80::1]"),
            Scraped("10.0.0.3", "fe80::3"),
            Scraped("10.0.0.4", ""),
        )
        assert await scraped_by(url, "node") == (Scraped("db1", "two"),)
        with pytest.raises(ControlError, match="no active target of job 'x'") as caught:
            await scraped_by(url, "x")
        assert caught.value.code == "bad_target"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"", 200, "not that of Prometheus"),
        (b"<html>", 200, "not that of Prometheus"),
        (b"[]", 200, "not that of Prometheus"),
        (b'{"data": {"activeTargets": [{}]}}', 200, "not that of Prometheus"),
        (b"[" * 100_000, 200, "not that of Prometheus"),
        (body(target(url="http://[bad/")), 200, "not that of Prometheus"),
        (b"who are you?", 401, "answers 401 Unauthorized"),
    ],
)
async def test_answers_that_are_none(answer: bytes, status: int, words: str) -> None:
    async with answering(answer, status) as url:
        with pytest.raises(ControlError, match=words) as caught:
            await scraped_by(url, "slabwatch")
        assert caught.value.code == "bad_answer"


@pytest.mark.asyncio
async def test_an_answer_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_BYTES", 100)
    async with answering(body(*[target()] * 100)) as url:
        with pytest.raises(ControlError, match="not that of Prometheus"):
            await scraped_by(url, "slabwatch")


@pytest.mark.asyncio
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://", "ftp://127.0.0.1:1"])
async def test_nobody_to_ask(url: str) -> None:
    with pytest.raises(ControlError, match="can not be asked") as caught:
        await scraped_by(url, "slabwatch")
    assert caught.value.code == "unreachable"


@given(st.binary(max_size=200) | st.text('{}[]":,dataciveTrgs0 ').map(str.encode))
def test_any_bytes_give_targets_or_the_one_error(answer: bytes) -> None:
    try:
        list(discovery._targets("u", answer, "slabwatch"))
    except ControlError as error:
        assert error.code == "bad_answer"


CONFIG = """
global: {scrape_interval: 1h}
scrape_configs:
  - job_name: slabwatch
    static_configs:
      - targets: ["127.0.0.1:1", "localhost:1"]
    relabel_configs:
      - {source_labels: [__address__], regex: "localhost:.*", target_label: instance, replacement: "db1:9934"}
  - job_name: other
    static_configs:
      - targets: ["127.0.0.9:1"]
"""


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A real one; its targets are down, which is no matter here."""
    (tmp_path / "p.yml").write_text(CONFIG, encoding="ascii")
    address = free_address()
    command = ["prometheus", f"--config.file={tmp_path}/p.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with server([*command, f"--web.listen-address={address}"], tmp_path / "log", f"http://{address}/-/ready"):
        yield f"http://{address}"


@pytest.mark.e2e
@pytest.mark.asyncio
async def test_a_real_prometheus(prometheus: str) -> None:
    found: set[Scraped] = set()
    until = time.monotonic() + 30
    async with aiohttp.ClientSession() as session:
        while len(found) < 2 and time.monotonic() < until:
            try:
                async with session.get(f"{prometheus}/-/ready"):
                    found = set(await scraped_by(prometheus, "slabwatch"))
            except (aiohttp.ClientError, ControlError):
                await asyncio.sleep(0.1)
    assert found == {Scraped("127.0.0.1", "127.0.0.1"), Scraped("localhost", "db1")}
