"""An event loop whose clock jumps to whatever is due next, so that no test waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class JumpingLoop(asyncio.SelectorEventLoop):
    """``advance`` is what time a piece of blocking work takes."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("nothing is due any more: the test would wait for ever")
        if not ready and timeout:
            self._loop.advance(timeout)
        return ready


class InlineExecutor(Executor):
    """Does the work at once, in the loop's own thread; stands for ThreadPoolExecutor."""

    def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
        self.threads = max_workers, thread_name_prefix

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def run(main: Callable[[JumpingLoop], Coroutine[Any, Any, Result]]) -> Result:
    """Run to the end on a loop of its own."""
    loop = JumpingLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()
