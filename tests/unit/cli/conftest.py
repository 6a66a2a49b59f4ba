"""slabwatchctl, called as a function, against a control server that runs in a thread."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import types
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from slabwatch.cli.ctl import main
from slabwatch.control.listen import start_unix
from slabwatch.control.server import make_app
from slabwatch.control.streams import EventStreams
from tests.unit.control.pretended import Pretended, PretendedStorm, until

R = TypeVar("R")


@dataclass
class Backstage:
    """The server's side: a pretended daemon, and the loop that it lives in."""

    daemon: Pretended
    streams: EventStreams
    path: Path
    loop: asyncio.AbstractEventLoop

    @property
    def target(self) -> str:
        return f"unix://{self.path}"

    def start(self, coroutine: Coroutine[Any, Any, R]) -> Any:
        """Run it there, and do not wait."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def follower(self) -> None:
        """Wait until somebody follows the storm."""
        await until(lambda: self.streams.open_streams)

    def play(self, act: Callable[[PretendedStorm], Coroutine[Any, Any, Any]]) -> None:
        """Once a storm has been started, let it take this course."""

        async def wait_and_act() -> None:
            await self.daemon.storms.started.wait()
            storm = self.daemon.storms.running
            assert storm
            await act(storm)

        self.start(wait_and_act())


@pytest.fixture(autouse=True)
def own_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$XDG_CONFIG_HOME: none of this machine's contexts counts."""
    directory = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory))
    monkeypatch.delenv("SLABWATCH_HOST", raising=False)
    monkeypatch.delenv("SLABWATCH_SSH", raising=False)
    return directory


@pytest.fixture
def backstage(tmp_path: Path) -> Iterator[Backstage]:
    """A server that answers while the test itself runs slabwatchctl."""
    with backstage_at(tmp_path / "s.sock") as one:
        yield one


@contextmanager
def backstage_at(path: Path) -> Iterator[Backstage]:
    """A server with a loop and a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    daemon = Pretended(state=path.parent / "state")
    streams = EventStreams(daemon.services())
    starting = start_unix(make_app(daemon.services(), streams), path)
    runner = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    yield Backstage(daemon, streams, path, loop)

    async def close() -> None:
        await runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@dataclass
class Ran:
    """What one call of slabwatchctl gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as exactly one JSON object on one line."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """stdout as NDJSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Ctl = Callable[..., Ran]


@pytest.fixture
def ctl(backstage: Backstage, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """``ctl("top", "--json")``."""

    def run(*argv: str) -> Ran:
        before = signal.getsignal(signal.SIGINT)
        code = main(["--host", backstage.target, *argv])
        assert signal.getsignal(signal.SIGINT) is before
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of one line: what they look like is not this room's business."""

    def text_report(record: Mapping[str, Any]) -> str:
        return f"text of {record['id']}\n"

    def csv_report(record: Mapping[str, Any]) -> str:
        return f"csv of {record['id']}\n"

    module = types.ModuleType("slabwatch.storm.report")
    vars(module).update(text_report=text_report, csv_report=csv_report)
    monkeypatch.setitem(sys.modules, module.__name__, module)
