"""Headless Chromium, driven over its own DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
START_SECONDS = 30.0
ANSWER_SECONDS = 20.0
# Whatever happens to the tests, the browser does not outlive this.
LIFE_SECONDS = 120
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-port=0",
)  # fmt: skip


@contextlib.contextmanager
def running(directory: Path) -> Iterator[str]:
    """A browser with an empty profile in ``directory``: the address of its DevTools."""
    assert PROGRAM
    command = ["timeout", "--kill-after=5", str(LIFE_SECONDS), PROGRAM, *FLAGS, f"--user-data-dir={directory}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            address = _address(process, directory / "DevToolsActivePort")
            yield address
            asyncio.run(_close(address))
            process.wait(ANSWER_SECONDS)
        finally:
            process.terminate()  # `timeout` passes it on


async def _close(address: str) -> None:
    """Its own way out, in which it waits for its child processes."""
    async with aiohttp.ClientSession() as client, client.ws_connect(address) as socket:
        await Page(socket).ask("Browser.close")


def _address(process: subprocess.Popen[bytes], written: Path) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            lines = written.read_text(encoding="ascii").splitlines()
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise AssertionError(f"chromium did not start within {START_SECONDS:g} s (exit code {process.poll()})")


@dataclass
class Page:
    """One tab; its own scripts run when ``scripts`` is set.

    ``errors``: uncaught exceptions and what the console says. ``requests``: every address asked for.
    """

    socket: aiohttp.ClientWebSocketResponse
    scripts: bool = True
    session: str = ""
    width: int = 0
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _loaded: bool = False

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        await self.socket.send_json(message | ({"sessionId": self.session} if self.session else {}))
        async with asyncio.timeout(ANSWER_SECONDS):
            while (answer := await self._next()).get("id") != number:
                pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]  # type: ignore[no-any-return]

    async def _next(self) -> dict[str, Any]:
        told: dict[str, Any] = await self.socket.receive_json()
        params = told.get("params", {})
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Log.entryAdded":
                self.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Page.loadEventFired":
                self._loaded = True
        return told

    async def open(self, file: Path) -> None:
        """Load a local file, and wait until it is drawn."""
        self._loaded = False
        await self.ask("Page.navigate", url=file.as_uri())
        async with asyncio.timeout(ANSWER_SECONDS):
            while not self._loaded:
                await self._next()
        if self.scripts:
            await self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, also where the page's own scripts may not run."""
        answer = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def look(self, width: int, height: int) -> None:
        """Make the window this large; narrower than 600 pixels it is a phone's."""
        self.width, phone = width, width < 600
        scale = 2 if phone else 1
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    async def picture(self, file: Path) -> None:
        """The whole page, as long as it is."""
        height = await self.run("document.documentElement.scrollHeight")
        await self.look(self.width, height)
        answer = await self.ask("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(answer["data"]))

    async def paper(self, file: Path) -> None:
        """The page as it is printed."""
        answer = await self.ask("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(answer["data"]))


@contextlib.asynccontextmanager
async def page(address: str, width: int, *, dark: bool = False, scripts: bool = True) -> AsyncIterator[Page]:
    """A new tab of the browser at ``address``."""
    async with aiohttp.ClientSession() as client, client.ws_connect(address, max_msg_size=0) as socket:
        tab = Page(socket, scripts)
        target = (await tab.ask("Target.createTarget", url="about:blank"))["targetId"]
        tab.session = (await tab.ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.ask(f"{domain}.enable")
        await tab.look(width, 740 if width < 600 else 900)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tab.ask("Emulation.setEmulatedMedia", features=[scheme])
        await tab.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        yield tab
        tab.session = ""
        await tab.ask("Target.closeTarget", targetId=target)
