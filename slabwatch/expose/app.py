"""The web app of the metrics listener: /metrics, the probes and a landing page. GET and HEAD only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache

from aiohttp import hdrs, web

from slabwatch import __version__
from slabwatch.door import connections_of
from slabwatch.expose.page import MetricsPage

Check = Callable[[], str | None]

_LANDING = f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>slabwatch</title></head>
<body>
<h1>slabwatch {__version__}</h1>
<p>Watches the kernel's slab memory: which cache grows, which cgroup holds it, and whether it can be given back.</p>
<ul>
<li><a href="/metrics">Metrics</a></li>
<li><a href="/-/healthy">Healthy</a></li>
<li><a href="/-/ready">Ready</a></li>
</ul>
</body>
</html>
"""


def make_app(page: MetricsPage, health: Check, ready: Check) -> web.Application:
    """The app. ``health`` and ``ready`` give None when all is well, else the reason, which is answered with 503."""

    async def metrics(request: web.Request) -> web.Response:
        gzip = _accepts_gzip(",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, [])))
        body, content_type = page.body(",".join(request.headers.getall(hdrs.ACCEPT, [])), gzip)
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.VARY: "Accept, Accept-Encoding"}
        if gzip:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, headers=headers)

    async def landing(_: web.Request) -> web.Response:
        return web.Response(text=_LANDING, content_type="text/html")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/-/healthy", _probe(health))
    app.router.add_get("/-/ready", _probe(ready))
    app.router.add_get("/", landing)
    connections = connections_of(app)

    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        # By default the Server header tells the versions of Python and aiohttp.
        response.headers[hdrs.SERVER] = "slabwatch"
        connections.touch(request.transport)

    app.on_response_prepare.append(prepare)
    return app


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        reason = check()
        if reason is None:
            return web.Response(text="ok\n")
        return web.Response(text=f"{reason}\n", status=503)

    return answer


@lru_cache(maxsize=16)
def _accepts_gzip(accept_encoding: str) -> bool:
    for offer in accept_encoding.split(","):
        coding, *parameters = (part.strip().lower() for part in offer.split(";"))
        if coding == "gzip":
            # A weight of 0 (or 0.0, 0.00, 0.000) means "not this one".
            return not any(part.startswith("q=") and not part[2:].strip("0.") for part in parameters)
    return False
