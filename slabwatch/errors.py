"""Every error that slabwatch raises on purpose, with what to do about it in the message."""

from __future__ import annotations


class SlabwatchError(Exception):
    """Base of all of them. The message says what went wrong, where, and what to do."""


class ConfigError(SlabwatchError):
    """The configuration can not be used. The message names file and key. Handled: exit 1."""


class SourceUnavailable(SlabwatchError):
    """A kernel file is not there (or its kernel part is off). Handled at the collector's border."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class SourceDenied(SourceUnavailable):
    """A kernel file is there, but this process may not read or write it."""


class KernelParseError(SlabwatchError):
    """A kernel file, or one line of it, does not have the documented form.

    ``line_no`` counts from 1 (0: the file as a whole); ``line`` is cut to 120 characters.
    """

    def __init__(self, path: str, line_no: int, line: str, field: str) -> None:
        self.path = path
        self.line_no = line_no
        self.line = line[:120]
        self.field = field
        where = f"{path}:{line_no}" if line_no else path
        super().__init__(f"{where}: bad {field}: {self.line!r}")


class StormRejected(SlabwatchError):
    """A storm was refused before anything was created.

    ``code`` is stable: ``storm_disabled``, ``storm_running``, ``recovering``, ``over_cap``, ``bad_plan``,
    ``lack_of_...``, ``kernel_can_not``, ``not_permitted``. ``figures`` holds the number asked for and the limit.
    """

    def __init__(self, code: str, message: str, **figures: object) -> None:
        super().__init__(message)
        self.code = code
        self.figures = figures


class StormAborted(SlabwatchError):
    """A running storm was ended before its plan was done: by a limit, a failure or a stop."""


class ControlError(SlabwatchError):
    """The daemon could not be asked, or said no. ``status`` is HTTP's, 0 when there was no answer."""

    def __init__(self, message: str, *, status: int = 0, code: str = "unreachable") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
