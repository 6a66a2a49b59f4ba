"""Ctrl-C in a program that must tidy up: not an exception somewhere, but a call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self


@contextmanager
def plain_sigint() -> Iterator[None]:
    """While it is entered, Ctrl-C raises KeyboardInterrupt at once."""
    # asyncio's own handler only cancels the task, and would leave Ctrl-C without effect while a question waits.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class CtrlC:
    """While it is entered, Ctrl-C interrupts nothing but calls what ``calls`` was given, once for each time.

    What came before ``calls`` is made up for: a storm that is just being started must not escape.
    """

    def __init__(self) -> None:
        self._early = 0
        self._handler: Callable[[], None] | None = None

    def calls(self, handler: Callable[[], None]) -> None:
        self._handler = handler
        for _ in range(self._early):
            handler()

    def _came(self) -> None:
        if self._handler is None:
            self._early += 1
        else:
            self._handler()

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._came)
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, self._before)
