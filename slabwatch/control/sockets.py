"""Where the local daemon listens, and what to say when it can not be reached there.

Light on purpose: the bridge of an ssh session needs this, and no HTTP.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote

from slabwatch.config import default_socket, temporary_runtime
from slabwatch.errors import ControlError

SYSTEM_SOCKET = Path("/run/slabwatch/slabwatch.sock")
UNIX = "unix://"
START_HINT = (
    "start it with `systemctl start slabwatch`, or `slabwatch` in another terminal; "
    "--host unix:///path names another socket"
)


def unix_socket(target: str) -> Path:
    """The path of ``unix:///path``. Raises ControlError ``bad_target`` when it is relative."""
    path = unquote(target.removeprefix(UNIX))
    if not path.startswith("/"):
        raise ControlError(
            f"{target}: the path must be absolute: unix:///run/slabwatch/slabwatch.sock", code="bad_target"
        )
    return Path(path)


def local_socket() -> Path:
    """This user's own daemon if its socket is there, else the system's. Raises ControlError when others made it."""
    own = default_socket()
    foreign = why_foreign(own)
    if _may_be_there(SYSTEM_SOCKET) and (foreign or not _may_be_there(own)):
        return SYSTEM_SOCKET
    if foreign:
        raise ControlError(
            f"{foreign}, so somebody else may listen there: set XDG_RUNTIME_DIR, or name a socket by --host unix:///path"
        )
    return own


def why_foreign(path: Path) -> str:
    """Why others may have put something at ``path`` in the directory that stands in for $XDG_RUNTIME_DIR; "": no."""
    directory = temporary_runtime()
    if directory not in path.parents:
        return ""
    try:
        made = directory.lstat()
    except OSError:
        return ""  # connecting will say why
    others_write = made.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if stat.S_ISDIR(made.st_mode) and made.st_uid == os.geteuid() and not others_write:
        return ""
    whose = f"{stat.filemode(made.st_mode)}, of user {made.st_uid}"
    return f"{directory} ({whose}) is not a directory that only you can write to"


def _may_be_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # it is not for us to see: connecting will say why
    return True


def denied(name: str) -> ControlError:
    """This user may not open the socket."""
    return ControlError(
        f"{name}: you may not open the control socket: ask as root, or join the group that owns it "
        "(control.group in the daemon's configuration)",
        code="not_allowed",
    )


def nobody_there(name: str, cause: BaseException, hint: str) -> ControlError:
    """No daemon listens there."""
    why = "there is no such socket" if isinstance(cause, FileNotFoundError) else "nobody listens there"
    return ControlError(f"{name}: {why}. Is the daemon running? If not, {hint}")
