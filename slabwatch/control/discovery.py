"""The hosts that a Prometheus scrapes, from its HTTP API: /api/v1/targets.

https://prometheus.io/docs/prometheus/latest/querying/api/#targets; a target's last address, after all relabelling,
is that of ``scrapeUrl``; ``labels.instance`` is what dashboards call it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import msgspec

from slabwatch.errors import ControlError

ANSWER_SECONDS = 30.0
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Scraped:
    """A target's host; ``instance`` is its label of this name, without a port."""

    host: str
    instance: str


# Not Forms: what else Prometheus says is not looked at.
class _Target(msgspec.Struct):
    labels: dict[str, str]
    scrape_url: str = msgspec.field(name="scrapeUrl")


class _Data(msgspec.Struct):
    active: list[_Target] = msgspec.field(name="activeTargets")


class _Answer(msgspec.Struct):
    data: _Data


async def scraped_by(url: str, job: str) -> tuple[Scraped, ...]:
    """The active targets of a job, each host once, in Prometheus' order. Raises ControlError."""
    body = await _fetch(f"{url.rstrip('/')}/api/v1/targets")
    found = tuple(dict.fromkeys(_targets(url, body, job)))
    if not found:
        raise ControlError(
            f"{url}: no active target of job {job!r}: --prometheus-job names another one", code="bad_target"
        )
    return found


async def _fetch(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, params={"state": "active"}) as response,
        ):
            if response.status != 200:
                raise ControlError(f"{url}: answers {response.status} {response.reason}", code="bad_answer")
            body = await response.content.read(MAX_BYTES)
            while len(body) < MAX_BYTES and (more := await response.content.read(MAX_BYTES - len(body))):
                body += more
            return body
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise ControlError(f"{url}: Prometheus can not be asked: {error or 'no answer in time'}") from error


def _targets(url: str, body: bytes, job: str) -> Iterator[Scraped]:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        for target in answer.data.active:
            if target.labels.get("job") == job:
                yield Scraped(_host(target.scrape_url), _without_port(target.labels.get("instance", "")))
    except (ValueError, RecursionError) as error:
        raise ControlError(
            f"{url}: its answer is not that of Prometheus' /api/v1/targets", code="bad_answer"
        ) from error


def _host(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host


def _without_port(instance: str) -> str:
    name, colon, port = instance.rpartition(":")
    return name if colon and port.isdecimal() and (":" not in name or name.endswith("]")) else instance
