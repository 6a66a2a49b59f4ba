"""The metrics listener: the web app at its address, with the web configuration, if there is one, kept up to date."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from slabwatch.config import Metrics
from slabwatch.door import Door, bound_sockets, connections_of, http_log, shown_address
from slabwatch.errors import ConfigError
from slabwatch.expose.own import OwnMetrics

# YAML and bcrypt come with these: 1.3 MiB that a daemon without a web configuration has no use for.
if TYPE_CHECKING:
    from slabwatch.expose.guard import Guard
    from slabwatch.expose.web_config import WebConfig
    from slabwatch.expose.web_config_file import Loaded, WebConfigFile

# How soon a changed file or certificate is taken: a look costs a stat for each of them.
LOOK_SECONDS = 2.0
SHUTDOWN_SECONDS = 2.0
# In TLS, asyncio keeps 256 KiB for each connection, and OpenSSL as much again.
MOST_CONNECTIONS = 128
MOST_TLS_CONNECTIONS = 64

log = logging.getLogger(__name__)


class MetricsServer:
    """``start`` once, ``watch`` as a task, ``cleanup`` in the end."""

    def __init__(self, settings: Metrics, app: web.Application, own: OwnMetrics) -> None:
        self._settings = settings
        self._app = app
        self._own = own
        self._file: WebConfigFile | None = None
        self._guard: Guard | None = None
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None
        self._address = ""
        self._reloading = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where /metrics is, by the port that it really has."""
        return f"{'https' if self._context() else 'http'}://{self._address}/metrics"

    async def start(self) -> None:
        """Serve. Raises ConfigError: an address that can not be had, a web configuration that can not be used."""
        if self._settings.web_config_file:
            from slabwatch.expose.guard import Guard
            from slabwatch.expose.web_config_file import WebConfigFile

            self._file = WebConfigFile(Path(self._settings.web_config_file))
            self._guard = Guard(await asyncio.to_thread(self._file.load))
            self._guard.install(self._app)
            self._apply(self._guard.loaded)
            self._own.set_web_config(True)
        host, port = self._settings.address()
        try:
            sockets = await asyncio.to_thread(bound_sockets, host, port)
        except OSError as error:
            raise self._can_not_listen(error) from error
        connections_of(self._app)
        self._runner = web.AppRunner(self._app, access_log=None, logger=http_log, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        self._door = Door(self._runner, sockets, self._context)
        try:
            self._door.open()
        except OSError as error:
            await self.cleanup()
            raise self._can_not_listen(error) from error
        self._address = shown_address(sockets[0].getsockname())

    async def watch(self) -> None:
        """Take the web configuration anew whenever it has changed; one that can not be used changes nothing."""
        while self._file is not None:
            await asyncio.sleep(LOOK_SECONDS)
            if await asyncio.to_thread(self._file.changed):
                try:
                    await self.reload()
                except ConfigError as error:
                    fields = {"error": str(error), "kept": "the old web configuration"}
                    log.error("web_config_reload_failed", extra={"fields": fields})

    async def reload(self) -> None:
        """Take the web configuration anew. Raises ConfigError; then the old one stays whole."""
        if self._file is None or self._guard is None:
            return
        async with self._reloading:
            try:
                new = await asyncio.to_thread(self._file.load)
                _no_weaker(self._guard.loaded.config, new.config, self._file.path)
            except ConfigError:
                self._own.set_web_config(False)
                raise
            self._own.set_web_config(True)
            old = self._guard.loaded
            if new.digest == old.digest:
                new = dataclasses.replace(new, context=old.context)
            if (new.config, new.digest) == (old.config, old.digest):
                return
            self._guard.replace(new)
            self._apply(new)
            if new.context is not old.context:
                connections_of(self._app).dismiss()

    async def cleanup(self) -> None:
        """Stop listening, and end all connections."""
        if self._door is not None:
            await self._door.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def publish_counts(self) -> None:
        """Put what happened at the door since the last call into the metrics."""
        connections = connections_of(self._app)
        self._own.set_connections("metrics", connections.open, connections.closed)
        if self._guard is not None:
            self._own.set_refused(self._guard.refused)

    def _context(self) -> ssl.SSLContext | None:
        return self._guard.loaded.context if self._guard is not None else None

    def _apply(self, loaded: Loaded) -> None:
        tls, users = loaded.config.tls_server_config, loaded.config.basic_auth_users
        connections_of(self._app).most = MOST_TLS_CONNECTIONS if tls.enabled else MOST_CONNECTIONS
        fields = {
            "file": self._settings.web_config_file,
            "tls": tls.enabled,
            "client_certificates": tls.demands,
            "users": len(users),
            "rate_limit": loaded.config.rate_limit.interval > 0,
        }
        log.info("web_config_loaded", extra={"fields": fields})
        if tls.client_auth_type == "RequestClientCert":
            said = "RequestClientCert keeps nobody out, with a certificate or without: none is asked for"
            log.warning("web_config_protects_nothing", extra={"fields": {"client_auth_type": said}})
        if users and not tls.enabled:
            log.warning("web_config_sends_passwords_in_clear", extra={"fields": {"tls_server_config": "missing"}})

    def _can_not_listen(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"metrics.listen: can not listen on {self._settings.listen}: {error.strerror}. "
            "Is another daemon running? Else choose another port"
        )


def _no_weaker(old: WebConfig, new: WebConfig, path: Path) -> None:
    """Raise ConfigError when a whole layer of protection is gone: more often that is an accident than meant."""
    layers = ("TLS", "client_auth_type", "basic_auth_users")
    for layer, before, after in zip(layers, _layers(old), _layers(new), strict=True):
        if after < before:
            raise ConfigError(f"{path}: {layer} protects less than before: restart the daemon if that is meant")


def _layers(config: WebConfig) -> tuple[int, int, int]:
    tls = config.tls_server_config
    return tls.enabled, ("nothing", "optional", "required").index(tls.demands), bool(config.basic_auth_users)
