"""The socket's file: rights, places that are taken, and what is left behind."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from slabwatch.control.listen import start_unix
from slabwatch.errors import ConfigError

pytestmark = pytest.mark.asyncio


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def test_rights_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.sock"
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            runner = await start_unix(web.Application(), path)
        finally:
            os.umask(before)
        assert _mode(path) == 0o660
        assert stat.S_ISSOCK(path.lstat().st_mode)
        await runner.cleanup()
        assert not path.exists()
    assert _mode(path.parent) == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="to give a file away takes root")
@pytest.mark.parametrize(("owner", "group"), [("54321", "54322"), ("", "54322"), ("root", "")])
async def test_owner_and_group(tmp_path: Path, owner: str, group: str) -> None:
    path = tmp_path / "new" / "s.sock"
    runner = await start_unix(web.Application(), path, owner, group)
    for made in (path.lstat(), path.parent.lstat()):
        assert made.st_uid == (int(owner) if owner.isdecimal() else os.geteuid())
        assert made.st_gid == (int(group) if group else os.getegid())
    await runner.cleanup()


@pytest.mark.parametrize(("owner", "group", "key"), [("no-such-user", "", "owner"), ("", "no-such-group", "group")])
async def test_unknown_owner_or_group(tmp_path: Path, owner: str, group: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"control.{key}: there is no .* 'no-such-"):
        await start_unix(web.Application(), tmp_path / "s", owner, group)
    assert not (tmp_path / "s").exists()


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    runner = await start_unix(web.Application(), path)
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://x/") as response:
        assert response.status == 404
    await runner.cleanup()


async def test_a_living_daemon_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = await start_unix(web.Application(), path)
    made = path.lstat().st_ino
    with pytest.raises(ConfigError, match=f"another daemon listens at {path}"):
        await start_unix(web.Application(), path)
    assert path.lstat().st_ino == made
    await first.cleanup()


async def test_a_daemon_that_is_too_busy_to_accept_lives_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ConfigError, match="another daemon listens"):
            await start_unix(web.Application(), path)
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
async def test_what_is_no_socket_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="exists and is not a socket"):
        await start_unix(web.Application(), path)
    assert path.is_symlink() or path.exists()


async def test_two_that_start_at_one_time(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another daemon is starting"):
            await start_unix(web.Application(), tmp_path / "s")
    finally:
        os.close(descriptor)


async def test_another_ones_socket_is_not_taken_away_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    runner = await start_unix(web.Application(), path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        await runner.cleanup()
        assert path.exists()


async def test_a_directory_in_which_others_may_replace_it(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    with pytest.raises(ConfigError, match="others could replace the socket"):
        await start_unix(web.Application(), tmp_path / "s")
    os.chmod(tmp_path, 0o1777)
    runner = await start_unix(web.Application(), tmp_path / "s")
    await runner.cleanup()


async def test_the_directory_that_stands_in_for_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "slabwatch-0"
    for module in ("listen", "sockets"):
        monkeypatch.setattr(f"slabwatch.control.{module}.temporary_runtime", lambda: runtime)
    path = runtime / "slabwatch" / "s"
    before = os.umask(0)
    try:
        runner = await start_unix(web.Application(), path)
    finally:
        os.umask(before)
    await runner.cleanup()
    assert (_mode(runtime), _mode(path.parent)) == (0o755, 0o750)

    # Writable to others, a link, and (where this can be tried) somebody else's.
    os.chmod(runtime, 0o775)
    with pytest.raises(
        ConfigError, match=r"\(drwxrwxr-x, of user \d+\) is not a directory that only you can write to: set XDG_"
    ):
        await start_unix(web.Application(), path)
    os.chmod(runtime, 0o755)
    runtime.rename(tmp_path / "elsewhere")
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"is not a directory that only you can write to"):
        await start_unix(web.Application(), path)
    if os.geteuid() == 0:
        runtime.unlink()
        runtime.mkdir()
        os.chown(runtime, 54321, -1)
        with pytest.raises(ConfigError, match=r"of user 54321\) is not a directory"):
            await start_unix(web.Application(), path)
        assert list(runtime.iterdir()) == []


async def test_paths_that_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long"):
        await start_unix(web.Application(), tmp_path / ("s" * 108))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"can not listen at .*Not a directory"):
        await start_unix(web.Application(), tmp_path / "file" / "s")
