"""The daemon: puts the rooms together, and leads them from STARTING to READY, through RELOADING, to STOPPING."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from slabwatch import logs
from slabwatch.config import Config
from slabwatch.config_file import load
from slabwatch.control.audit import AuditLog
from slabwatch.control.audit_file import AuditFile
from slabwatch.control.listen import UnixRunner, start_unix
from slabwatch.control.lock import MaintenanceSwitch
from slabwatch.control.remote import TlsDoor
from slabwatch.control.server import make_app as make_control_app
from slabwatch.control.services import Services
from slabwatch.control.validity import expired
from slabwatch.errors import ConfigError, StormRejected
from slabwatch.expose.app import make_app as make_metrics_app
from slabwatch.expose.cache_selection import CacheSelection
from slabwatch.expose.own import OwnMetrics
from slabwatch.expose.page import MetricsPage
from slabwatch.expose.server import MetricsServer
from slabwatch.host.facts import read_facts
from slabwatch.host.root import KernelRoot
from slabwatch.host.shrink import ShrinkResult, shrink
from slabwatch.sdnotify import Notifier, ServiceManager
from slabwatch.storm.doctor import config_file, examine
from slabwatch.storm.registry import StormRegistry
from slabwatch.watch.collect import Collectors
from slabwatch.watch.derive import Derived
from slabwatch.watch.sample import Sample
from slabwatch.watch.sampler import Sampler

# The engine's own deadlines for draining and removing are inside this one.
STORM_STOP_SECONDS = 60.0
SERVERS_STOP_SECONDS = 5.0
AUDIT_STOP_SECONDS = 1.0
# From when on the status line tells of it.
LATE_SECONDS = 5.0
# What a reload can not change, and says so: the key's section and name. Their descriptions say it too.
FIXED = (
    ("metrics", "listen"),
    ("metrics", "web_config_file"),
    ("control", "socket"),
    ("control", "owner"),
    ("control", "group"),
    ("state", "directory"),
)

log = logging.getLogger(__name__)


class Daemon:
    """One daemon. ``announce`` is called once, when it serves, with the metrics' URL and the socket."""

    def __init__(
        self, config_path: Path | None, config: Config, root: KernelRoot, announce: Callable[[str, Path], None]
    ) -> None:
        self.state = "STARTING"
        self.config = config
        self._config_path = config_path
        self._root = root
        self._announce = announce
        self._started_at = time.time()
        self._stops = 0
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._hang_up = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._overruns_told = 0
        self._facts = read_facts(root)
        self._own = OwnMetrics()
        self._own.set_kernel(**self._facts.as_dict())
        self._own.set_interval(config.poll.interval_seconds)
        self._collectors = Collectors(root, config)
        self._sampler = Sampler(self._collectors.collect, self._publish, config.poll.interval_seconds)
        self._page = MetricsPage(
            self._own, selection=CacheSelection.from_config(config.caches), catch_up=self._sampler.catch_up
        )
        state = config.state_directory()
        self._audit = AuditLog(AuditFile(state, lambda: self.config.audit))
        self._switch = MaintenanceSwitch(state, self._own.set_locked)
        self._switch.read()
        self._tls: TlsDoor | None = None
        self._storms = StormRegistry(
            root, lambda: self.config, self._sampler.measure, self._shrink_all, self._own, self._why_locked
        )
        self._manager = ServiceManager(
            Notifier.from_environment(),
            sampled=lambda: self._sampler.latest is not None,
            behind_seconds=self._sampler.behind_seconds,
            status=self._status_line,
        )
        self._metrics = MetricsServer(
            config.metrics, make_metrics_app(self._page, self._unhealthy, self._not_ready), self._own
        )
        self._control: UnixRunner | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises ConfigError when an address or the socket can not be used."""
        self._watch_signals()
        self._audit.start()
        for finding in self._config_findings():
            log.warning("config_not_safe", extra={"fields": finding})
        servers: list[MetricsServer | UnixRunner | TlsDoor] = [self._metrics]
        try:
            await self._metrics.start()
            self._control = await self._serve_control()
            servers.append(self._control)
            servers.append(await self._serve_remote(self._control))
            async with asyncio.TaskGroup() as group:
                tasks = [
                    _named(group, "sampler", self._sampler.run()),
                    _named(group, "storm recovery", self._storms.recover()),
                    _named(group, "reload on SIGHUP", self._reload_on_signal()),
                    _named(group, "service manager", self._manager.run()),
                    _named(group, "watch the web configuration", self._metrics.watch()),
                ]
                self.state = "READY"
                self._announce(self._metrics.url, self.config.socket_path())
                await self._stop.wait()
                self.state = "STOPPING"
                self._manager.stopping()
                log.info("stopping")
                await self._stage("storm", self._storms.close(STORM_STOP_SECONDS), STORM_STOP_SECONDS)
                for task in tasks:
                    task.cancel()
        finally:
            for server in reversed(servers):
                await self._stage("servers", server.cleanup(), SERVERS_STOP_SECONDS)
            await asyncio.to_thread(self._audit.close, AUDIT_STOP_SECONDS)
            log.info("stopped")

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up.set)

    def _on_stop_signal(self) -> None:
        self._stops += 1
        (self._stop if self._stops == 1 else self._stop_now).set()

    async def _stage(self, name: str, work: Coroutine[Any, Any, None], seconds: float) -> None:
        """One stage of the stop, up to its deadline or a second signal. A storm's engine then ends by itself."""
        working = asyncio.create_task(work, name=f"stop {name}")
        hurry = asyncio.create_task(self._stop_now.wait(), name=f"hurry {name}")
        await asyncio.wait((working, hurry), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not working.done():
            why = "told to stop now" if self._stop_now.is_set() else "deadline"
            log.warning("stop_stage_given_up", extra={"fields": {"stage": name, "why": why}})
            working.cancel()
        elif working.exception() is not None:
            log.error("stop_stage_failed", exc_info=working.exception(), extra={"fields": {"stage": name}})

    async def _serve_control(self) -> UnixRunner:
        services = Services(
            config=lambda: self.config,
            sampler=self._sampler,
            storms=self._storms,
            shrinker=self,
            examine=self.examine,
            reload=self._reload_and_tell,
            facts=self._describe,
            audit=self._audit,
            switch=self._switch,
        )
        control = self.config.control
        return await start_unix(make_control_app(services), self.config.socket_path(), control.owner, control.group)

    async def _serve_remote(self, control: UnixRunner) -> TlsDoor:
        self._tls = TlsDoor(control, self._audit.refused_at_tls_door)
        await self._tls.apply(self.config.remote)
        return self._tls

    def examine(self) -> list[dict[str, Any]]:
        """All that `doctor` tells. Blocking."""
        remote = map(asdict, expired(self.config.remote))
        return [*self._config_findings(), *examine(self._root, self.config), *remote]

    def _config_findings(self) -> list[dict[str, Any]]:
        """What is wrong with who may change the configuration. Blocking."""
        return config_file(self._config_path) if self._config_path and os.geteuid() == 0 else []

    def _why_locked(self) -> str | None:
        return str(self._switch.held) if self._switch.held else None

    def _describe(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "started_at": self._started_at,
            "metrics_url": self._metrics.url,
            "socket": str(self.config.socket_path()),
            "remote_url": self._tls.url if self._tls else "",
            "kernel": self._facts.as_dict(),
        }

    def _status_line(self) -> str:
        """For `systemctl status`."""
        if self._sampler.behind_seconds() > LATE_SECONDS:
            return f"{self.state}: {self._metrics.url}, the sampler makes no progress"
        run = self._storms.running
        storm = f"storm {run.id} in phase {run.phase}" if run else "no storm"
        return f"{self.state}: {self._metrics.url}, {self._sampler.polls} polls, {storm}"

    def _publish(self, sample: Sample, derived: Derived) -> None:
        overruns = self._sampler.overruns
        self._own.polled(overruns - self._overruns_told)
        self._own.audit_lost(self._audit.lost)
        self._overruns_told = overruns
        self._metrics.publish_counts()
        if self._control is not None:
            connections = self._control.connections
            self._own.set_connections("control", connections.open, connections.closed)
        if self._tls is not None and self._tls.url:
            connections = self._tls.connections
            self._own.set_connections("remote", connections.open, connections.closed)
        self._page.publish(sample, derived)

    def _unhealthy(self) -> str | None:
        if self._sampler.latest is None and time.time() - self._started_at < 30:
            return None
        if self._page.fresh(time.monotonic()):
            return None
        return "the sampler makes no progress: a read of a kernel file has not come back"

    def _not_ready(self) -> str | None:
        if self.state == "STOPPING":
            return "stopping"
        return None if self._sampler.latest is not None else "no sample has been taken yet"

    async def shrink(self, caches: Sequence[str] = ()) -> ShrinkResult:
        """Shrink caches (none: all). Raises StormRejected (not allowed), SourceUnavailable, SourceDenied."""
        if not self.config.shrink.enabled:
            raise StormRejected(
                "shrink_disabled", "shrinking is off: set shrink.enabled = true in the daemon's configuration"
            )
        return await asyncio.to_thread(shrink, self._root, caches)

    async def _shrink_all(self) -> ShrinkResult:
        return await self.shrink()

    async def _reload_on_signal(self) -> None:
        while True:
            await self._hang_up.wait()
            self._hang_up.clear()
            try:
                await self._reload_and_tell()
            except ConfigError as error:
                log.error("reload_failed", extra={"fields": {"error": str(error), "kept": "the old configuration"}})

    async def _reload_and_tell(self) -> list[str]:
        with self._manager.reloading():
            return await self.reload()

    async def reload(self) -> list[str]:
        """Take the file's new content, but for the keys that are returned; on ConfigError the old one stays whole."""
        # One at a time: what has been read later must not be put back by one that was asked for earlier.
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> list[str]:
        if self.state == "READY":  # a daemon that stops still reloads, but stays one that stops
            self.state = "RELOADING"
        try:
            new = await asyncio.to_thread(load, self._config_path)
            await self._metrics.reload()
            # Last of what may fail, and no await from its end to the new roles: nobody whom the new CAs let in has the
            # rights of the old configuration.
            if self._tls is not None:
                await self._tls.apply(new.remote)
        except ConfigError:
            self._own.set_reload(False)
            raise
        finally:
            if self.state == "RELOADING":
                self.state = "READY"
        old = self.config
        changed = [f"{section}.{key}" for section, key in FIXED if _get(old, section, key) != _get(new, section, key)]
        if changed:
            log.warning("reload_needs_restart", extra={"fields": {"keys": changed}})
        # The sockets stay what they are until a restart, and so does what is said about them.
        kept = {key: _get(old, section, key) for section, key in FIXED if section == "control"}
        self.config = replace(new, metrics=old.metrics, control=replace(new.control, **kept), state=old.state)
        logs.set_up(new.log.level, new.log.format)
        old_collectors, self._collectors = self._collectors, Collectors(self._root, self.config)
        self._page.select(CacheSelection.from_config(new.caches))
        await self._sampler.replace_collect(self._collectors.collect, new.poll.interval_seconds)
        old_collectors.close()
        self._own.set_interval(new.poll.interval_seconds)
        self._own.set_reload(True)
        log.info("reloaded", extra={"fields": {"config": str(self._config_path or "built-in defaults")}})
        return changed


def _get(config: Config, section: str, key: str) -> object:
    return getattr(getattr(config, section), key)


def _named(group: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task of the daemon: when it fails, the group ends the daemon rather than leave it half alive."""
    return group.create_task(work, name=name)
