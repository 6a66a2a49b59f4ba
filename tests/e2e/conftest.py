"""Real daemons. Each test's own must end in good order, and must leave no cgroup and no process behind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, open_directory
from tests.live.kernel import need_kernel, own_directory, own_pids_directory

_numbers = itertools.count()


@contextmanager
def daemons(mounted: tuple[Path, int]) -> Iterator[Callable[..., Daemon]]:
    """``make(storms=True, poll={...}, ...)``: a daemon, not started yet; keywords are sections of its configuration."""
    made: list[Daemon] = []
    with ExitStack() as stack:

        def make(*, storms: bool = True, **sections: Mapping[str, object]) -> Daemon:
            directory = stack.enter_context(open_directory())
            parent = stack.enter_context(own_directory(*mounted, f"e2e{next(_numbers)}")) if storms else None
            pids_parent = stack.enter_context(own_pids_directory(parent)) if parent else None
            made.append(Daemon(directory, parent, sections, pids_parent))
            return made[-1]

        try:
            yield make
        finally:
            for daemon in made:
                daemon.close()
            try:
                for daemon in made:
                    daemon.assert_nothing_left()
                    daemon.assert_no_defect()
            finally:
                for daemon in made:
                    daemon.kill_what_is_left()


@contextmanager
def side_by_side(stories: Mapping[str, Callable[[Daemon], None]]) -> Iterator[Mapping[str, Future[None]]]:
    """Each story with a daemon of its own, not started yet, and all at one time: mostly, they wait."""
    with daemons(need_kernel()) as make, ThreadPoolExecutor(len(stories)) as pool:
        yield {name: pool.submit(story, make()) for name, story in stories.items()}


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    """See ``daemons``."""
    with daemons(need_kernel()) as make:
        yield make


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that serves and may run storms."""
    return make_daemon().start()


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """One daemon for the tests of a module that only ask."""
    with daemons(need_kernel()) as make:
        yield make().start()
