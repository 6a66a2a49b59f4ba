"""``slabwatch``, the daemon's command line."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slabwatch import __version__, logs
from slabwatch.cli.ending import ended
from slabwatch.cli.exit_codes import Exit
from slabwatch.cli.usage import Parser
from slabwatch.errors import ConfigError

if TYPE_CHECKING:
    from slabwatch.config import Config

# How long the end waits for a read of a kernel file that does not come back.
STUCK_THREAD_SECONDS = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    return ended("slabwatch", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    arguments = make_parser().parse_args(argv)
    # Only now: what Ctrl-C could break off takes longest to import.
    from slabwatch.config import Config
    from slabwatch.config_file import load, to_toml

    if arguments.textfile and not arguments.once:
        print("slabwatch: --textfile goes with --once", file=sys.stderr)
        return Exit.USAGE
    if arguments.example_config:
        sys.stdout.write(to_toml(Config(), comments=True))
        return Exit.DONE
    try:
        config = load(arguments.config)
        if arguments.check_config:
            for warning in _check(config):
                print(f"slabwatch: warning: {warning}", file=sys.stderr)
            print(f"{arguments.config or 'built-in defaults'}: ok")
            return Exit.DONE
        if arguments.print_config:
            sys.stdout.write(to_toml(config))
            return Exit.DONE
        logs.set_up(config.log.level, config.log.format)
        if arguments.once:
            return _once(config, arguments.root, arguments.textfile)
        if arguments.clean_up:
            return _clean_up(config, arguments.root)
        return _serve(arguments.config, config, arguments.root)
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"slabwatch: {line}", file=sys.stderr)
        return Exit.USAGE


def make_parser() -> Parser:
    """The daemon's arguments."""
    parser = Parser(
        prog="slabwatch",
        description="Watches the kernel's slab memory and serves it to Prometheus.",
        epilog="SIGHUP reloads the configuration, SIGTERM stops, a second SIGTERM stops at once.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; without it the built-in defaults hold")
    parser.add_argument("--root", default="/", metavar="DIR", help="look up every kernel path below DIR (default: /)")
    parser.add_argument(
        "--textfile", type=Path, metavar="PATH", help="with --once: write to PATH atomically, not to stdout"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="take one sample, print it in the text format, and end")
    what.add_argument(
        "--clean-up", action="store_true", help="remove what dead daemons' storms have left behind, and end"
    )
    what.add_argument("--check-config", action="store_true", help="check the configuration, and end")
    what.add_argument("--print-config", action="store_true", help="print the configuration in effect, and end")
    what.add_argument("--example-config", action="store_true", help="print the defaults with comments, and end")
    parser.add_argument("--version", action="version", version=f"slabwatch {__version__}")
    return parser


def _check(config: Config) -> Iterator[str]:
    """What the configuration names must be there too. Raises ConfigError; gives what the daemon would start with."""
    from slabwatch.control.access import unknown_names
    from slabwatch.control.listen import owner_ids

    owner_ids(config.control.owner, config.control.group)
    yield from unknown_names(config)
    if config.metrics.web_config_file:
        from slabwatch.expose.web_config_file import WebConfigFile

        WebConfigFile(Path(config.metrics.web_config_file)).load()
    if config.remote.listen:
        from slabwatch.control.tls import server_context
        from slabwatch.control.validity import expired

        server_context(config.remote)
        yield from (f"{one.name}: {one.finding}: {one.remedy}" for one in expired(config.remote))


def _once(config: Config, root: str, textfile: Path | None) -> int:
    from msgspec.structs import replace

    from slabwatch.expose.cache_selection import CacheSelection
    from slabwatch.expose.own import OwnMetrics
    from slabwatch.expose.render import KernelPage
    from slabwatch.host.facts import read_facts
    from slabwatch.host.root import KernelRoot
    from slabwatch.watch.collect import Collectors
    from slabwatch.watch.derive import derive

    kernel_root = KernelRoot(root)
    own, page = OwnMetrics(), KernelPage(CacheSelection.from_config(config.caches))
    own.set_kernel(**read_facts(kernel_root).as_dict())
    # There is no next poll that a kept descriptor could serve.
    cgroups = replace(config.cgroups, kept_descriptors=0)
    sample = Collectors(kernel_root, replace(config, cgroups=cgroups)).collect()
    page.observe(sample)
    text = page.render(sample, derive(sample), openmetrics=False) + own.render_facts()
    if textfile is None:
        sys.stdout.buffer.write(text)
    else:
        if textfile.exists() and not textfile.is_file():  # as root, /dev/null would be replaced by a file
            raise ConfigError(f"--textfile: {textfile} is no regular file: leave --textfile out to write to stdout")
        try:
            _write_atomically(textfile, text)
        except OSError as error:
            raise ConfigError(f"--textfile: {textfile} can not be written: {error.strerror}") from error
    return Exit.DONE


def _clean_up(config: Config, root: str) -> int:
    """What the daemon does at its start, for a service manager that wants it done after the daemon's death."""
    from slabwatch.errors import KernelParseError, SourceUnavailable
    from slabwatch.host.root import KernelRoot
    from slabwatch.storm import lifecycle, preflight

    kernel_root = KernelRoot(root)
    if not kernel_root.live:
        raise ConfigError(f"--clean-up: {kernel_root.root} is not the running kernel's root: leave --root out")
    try:
        parents = preflight.storm_parents(kernel_root, config.storm.parent)
        swept = lifecycle.remove_orphans(*parents, deadline_seconds=lifecycle.ORPHANS_SECONDS)
    except (SourceUnavailable, KernelParseError, OSError) as error:
        print(f"slabwatch: --clean-up: can not look for storms: {error}", file=sys.stderr)
        return Exit.KERNEL_CAN_NOT
    done = f"{swept.removed} cgroups removed, {swept.killed} tasks killed, {len(swept.left)} cgroups left"
    print(f"{', '.join(parents)}: {done}")
    for path, reason in swept.left.items():
        print(f"slabwatch: {path}: {reason}", file=sys.stderr)
    return Exit.REFUSED if swept.left else Exit.DONE


def _write_atomically(path: Path, text: bytes) -> None:
    """A reader sees the old file or the new one, whole."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise


def _serve(path: Path | None, config: Config, root: str) -> int:
    import asyncio

    keep_small()
    from slabwatch.daemon import Daemon
    from slabwatch.host.root import KernelRoot

    async def serve() -> None:
        code = Exit.USAGE
        try:
            await Daemon(path, config, KernelRoot(root), _announce).run()
            code = Exit.DONE
        finally:
            _leave_soon(code)

    try:
        asyncio.run(serve())  # uvloop measured no better, and takes 2.4 MB: docs/benchmarks.md
    except* ConfigError as group:
        raise group.exceptions[0] from None
    return Exit.DONE


def keep_small() -> None:
    """What a daemon has no use for stays out of its memory: to be called before aiohttp is imported."""
    # aiohttp makes a TLS context for its client when it is imported, with all of the system's authorities in it: 2 MB
    # in a process that never is a client. What the daemon's own listeners trust is named by the configuration.
    os.environ["SSL_CERT_FILE"] = os.devnull
    # The compiled form of this small class is the only thing here that loads libstdc++: 1.1 MB for a few short lists.
    os.environ["FROZENLIST_NO_EXTENSIONS"] = "1"


def _leave_soon(code: int) -> None:
    """The interpreter waits for its threads at its end. One that waits for the kernel can not be ended: go without."""
    import threading

    last_word = threading.Timer(STUCK_THREAD_SECONDS, os._exit, (code,))
    last_word.daemon = True
    last_word.start()


def _announce(metrics_url: str, socket: Path) -> None:
    """For whoever started it by hand: where it serves, and what to try. Under a service manager the log tells."""
    import logging
    from urllib.parse import quote

    from slabwatch.config import default_socket

    logging.getLogger(__name__).info("ready", extra={"fields": {"metrics_url": metrics_url, "socket": str(socket)}})
    if "INVOCATION_ID" in os.environ:
        return
    beside = Path(sys.argv[0]).resolve().parent / "slabwatchctl"
    command = "slabwatchctl" if shutil.which("slabwatchctl") or not beside.exists() else os.path.relpath(beside)
    if socket != default_socket():
        command += f" --host unix://{quote(str(socket.absolute()))}"
    banner = (
        f"slabwatch {__version__} is running. Ctrl-C stops it.\n"
        f"  metrics  {metrics_url}\n"
        f"  socket   {socket}\n"
        "Try in a second terminal:\n"
        f"  {command} top\n"
        f"  {command} storm --preset smoke\n"
        f"  {command} report"
    )
    try:
        print(banner, flush=True)
    except OSError:  # a full disk, a reader that has gone: no reason not to serve, nor to complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
