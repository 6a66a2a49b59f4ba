"""Every way in which the control API says no: one stable ``code``, its HTTP status and title (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from slabwatch.errors import ConfigError, SlabwatchError, SourceDenied, SourceUnavailable, StormRejected
from slabwatch.form import BadForm

CODES: Mapping[str, tuple[int, str]] = {
    "bad_json": (400, "The body is not JSON"),
    "not_allowed": (403, "You may not do this"),
    "not_permitted": (403, "The kernel does not let the daemon do this"),
    "storm_disabled": (403, "Storms are off in the daemon's configuration"),
    "shrink_disabled": (403, "Shrinking is off in the daemon's configuration"),
    "unknown_route": (404, "There is nothing at this path"),
    "unknown_storm": (404, "No such storm"),
    "unknown_cache": (404, "No such cache"),
    "wrong_method": (405, "This path does not take this method"),
    "too_slow": (408, "The request did not arrive in time"),
    "storm_running": (409, "A storm is running"),
    "recovering": (409, "The daemon still sees to earlier storms"),
    "shrink_running": (409, "A shrink is running"),
    "stopping": (409, "The daemon is stopping"),
    "too_large": (413, "The body is too large"),
    "bad_request": (422, "The request does not have the documented form"),
    "bad_plan": (422, "This storm makes no sense"),
    "over_cap": (422, "The configuration does not allow a storm of this size"),
    "bad_config": (422, "The configuration can not be used"),
    "locked": (423, "Locked for maintenance"),
    "failed": (500, "The daemon could not do it"),
    "kernel_can_not": (501, "This kernel can not do it"),
    "no_sample": (503, "There are no figures"),
    "too_many_streams": (503, "Too many clients follow storms"),
    "lack_of_memory": (507, "Not enough memory"),
    "lack_of_pids": (507, "Not enough process ids"),
    "lack_of_cgroup_ids": (507, "Not enough cgroup ids"),
    "lack_of_descriptors": (507, "Not enough file descriptors"),
    "lack_of_program": (507, "A program is missing"),
}

# What aiohttp refuses by itself.
_OF_STATUS = {
    404: ("unknown_route", "the control API has no such path: GET /v1/status is one"),
    405: ("wrong_method", "use a method that the Allow header names"),
    413: ("too_large", "a request may have 64 KiB"),
}


class Problem(SlabwatchError):
    """A refusal. ``detail`` is for people; ``figures`` are members of the answer of their own."""

    def __init__(self, code: str, detail: str, /, **figures: object) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.figures = figures
        self.allow = ""

    @property
    def status(self) -> int:
        """HTTP's. A code that is not in the table is a refusal like any other."""
        if self.code.startswith("lack_of_"):
            return 507
        return CODES.get(self.code, (409, ""))[0]

    def response(self) -> web.Response:
        """As application/problem+json."""
        title = CODES.get(self.code, (0, self.code.replace("_", " ").capitalize()))[1]
        body = {**self.figures, "title": title, "status": self.status, "code": self.code, "detail": self.detail}
        headers = {"Allow": self.allow} if self.allow else None
        text = json.dumps(body, default=str) + "\n"
        return web.Response(text=text, status=self.status, content_type="application/problem+json", headers=headers)


def problem_of(error: SlabwatchError | web.HTTPException) -> Problem:
    """What an error that somebody else raised means to a client."""
    match error:
        case Problem():
            return error
        case StormRejected():
            return Problem(error.code, str(error), **error.figures)
        case ConfigError():
            return Problem("bad_config", str(error))
        case SourceDenied():
            return Problem("not_permitted", str(error))
        case SourceUnavailable():
            return Problem("kernel_can_not", str(error))
        case web.HTTPException():
            problem = Problem(*_OF_STATUS.get(error.status, ("bad_request", error.reason)))
            problem.allow = error.headers.get("Allow", "")
            return problem
        case _:
            return Problem("failed", str(error))


def bad_form(error: BadForm) -> Problem:
    """``bad_request``; the detail names each field that is wrong."""
    faults = [
        {"field": fault.key, "fault": "not a field of this request" if fault.unknown_in else fault.what}
        for fault in error.faults
    ]
    detail = "; ".join(f"{fault['field']}: {fault['fault']}" if fault["field"] else fault["fault"] for fault in faults)
    return Problem("bad_request", detail, fields=faults)
