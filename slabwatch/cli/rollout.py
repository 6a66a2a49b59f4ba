"""The order in which many hosts get their turn. Pure of what is done there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

H = TypeVar("H")


class Rollout(Generic[H]):
    """The first host is the canary: alone, whatever ``parallel`` says. After the first failure none is begun.

    What is under way then goes on to its end: to break it off would only spoil its figures.
    """

    def __init__(self, hosts: Sequence[H], parallel: int) -> None:
        self._waiting = deque(hosts)
        self._parallel = parallel
        self._halted = False

    def halt(self) -> None:
        """Begin no more."""
        self._halted = True

    async def run(self, act: Callable[[H], Awaitable[bool]]) -> tuple[H, ...]:
        """``act`` says whether all went well there. Returns those that were not begun."""
        if self._goes_on():
            await self._next(act)
        async with asyncio.TaskGroup() as lanes:
            for number in range(min(self._parallel, len(self._waiting))):
                lanes.create_task(self._lane(act), name=f"lane {number}")
        return tuple(self._waiting)

    def _goes_on(self) -> bool:
        return bool(self._waiting) and not self._halted

    async def _lane(self, act: Callable[[H], Awaitable[bool]]) -> None:
        while self._goes_on():
            await self._next(act)

    async def _next(self, act: Callable[[H], Awaitable[bool]]) -> None:
        if not await act(self._waiting.popleft()):
            self.halt()
