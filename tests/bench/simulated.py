"""Hosts that do not exist: pages that a real daemon has served, played back and forth to whoever scrapes.

Each path is a host of its own, which begins at another page than its neighbour. Also a sink for remote write.
"""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web


def make_app(pages: list[bytes]) -> web.Application:
    """``pages``: bodies, already compressed."""
    round_trip = [*pages, *pages[-2:0:-1]]
    at: dict[str, int] = {}

    async def metrics(request: web.Request) -> web.Response:
        host = request.match_info["host"]
        at[host] = at.get(host, int(host)) + 1
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=round_trip[at[host] % len(round_trip)], headers=headers)

    async def write(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes([web.get("/{host}/metrics", metrics), web.post("/write", write)])
    return app


if __name__ == "__main__":
    bodies = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.gz"))]
    web.run_app(
        make_app(bodies), host="127.0.0.1", port=int(sys.argv[2]), print=None, access_log=None, shutdown_timeout=1
    )
