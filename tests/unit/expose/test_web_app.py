"""The web app through real HTTP on a loopback port."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer

from slabwatch import __version__
from slabwatch.expose.app import make_app
from slabwatch.expose.own import OwnMetrics
from slabwatch.expose.page import MetricsPage
from slabwatch.watch.derive import derive

pytestmark = pytest.mark.asyncio

Client = TestClient[Any, Any]
IDENTITY = {"Accept-Encoding": "identity"}


class Checks:
    health: str | None = None
    ready: str | None = None


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def page(build: Any) -> MetricsPage:
    page = MetricsPage(OwnMetrics(), clock=lambda: 1000.0)
    sample = build.whole_sample()
    page.publish(sample, derive(sample))
    return page


@pytest_asyncio.fixture
async def client(page: MetricsPage, checks: Checks) -> AsyncIterator[Client]:
    app = make_app(page, lambda: checks.health, lambda: checks.ready)
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


async def test_metrics(client: Client, families: Any) -> None:
    response = await client.get("/metrics", headers=IDENTITY)
    body = await response.read()
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Content-Encoding" not in response.headers
    assert response.headers["Vary"] == "Accept, Accept-Encoding"
    assert any(family.name == "slabwatch_slab_objects" for family in families(body, False))


async def test_openmetrics(client: Client, families: Any) -> None:
    headers = IDENTITY | {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    response = await client.get("/metrics", headers=headers)
    body = await response.read()
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert families(body, True)


@pytest.mark.parametrize(
    ("accept_encoding", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=1.0", True),
        ("br,gzip; q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, identity", False),
        ("xgzip, deflate", False),
        ("", False),
    ],
)
async def test_gzip_when_asked(client: Client, accept_encoding: str, compressed: bool) -> None:
    response = await client.get("/metrics", headers={"Accept-Encoding": accept_encoding})
    body = await response.read()
    assert (response.headers.get("Content-Encoding") == "gzip") == compressed
    plain = gzip.decompress(body) if compressed else body
    assert plain.startswith(b"# HELP slabwatch_slab_active_objects ")


@pytest.mark.parametrize("accept_encoding", ["identity", "gzip"])
@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/-/ready"])
async def test_head_is_get_without_a_body(client: Client, path: str, accept_encoding: str) -> None:
    headers = {"Accept-Encoding": accept_encoding}
    get = await client.get(path, headers=headers)
    body = await get.read()
    head = await client.head(path, headers=headers)
    assert head.status == get.status == 200
    assert await head.read() == b""
    assert int(head.headers["Content-Length"]) == len(body)
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize(("path", "check"), [("/-/healthy", "health"), ("/-/ready", "ready")])
async def test_probes(client: Client, checks: Checks, path: str, check: str) -> None:
    response = await client.get(path)
    assert (response.status, await response.text()) == (200, "ok\n")
    setattr(checks, check, "no sample yet")
    response = await client.get(path)
    assert (response.status, await response.text()) == (503, "no sample yet\n")
    assert response.content_type == "text/plain"
    other = await client.get("/-/ready" if check == "health" else "/-/healthy")
    assert other.status == 200


async def test_landing_page(client: Client) -> None:
    response = await client.get("/")
    text = await response.text()
    assert response.content_type == "text/html"
    assert __version__ in text
    for link in ("/metrics", "/-/healthy", "/-/ready"):
        assert f'href="{link}"' in text


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/-/", "/favicon.ico", "/../etc/passwd", "/v1/status"])
async def test_anything_else_is_not_found(client: Client, path: str) -> None:
    response = await client.get(path)
    assert response.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_get_and_head(client: Client, method: str) -> None:
    response = await client.request(method, "/metrics")
    assert response.status == 405
    assert response.headers["Allow"] == "GET,HEAD"


@pytest.mark.parametrize("path", ["/metrics", "/", "/nothing"])
async def test_server_header_tells_no_versions(client: Client, path: str) -> None:
    response = await client.get(path)
    assert response.headers["Server"] == "slabwatch"
