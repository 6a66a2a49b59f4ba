"""``slabwatchctl stdio-bridge``: joins stdin and stdout to the local daemon's socket.

An ssh session runs it on the far host, so that nothing has to listen there. It carries bytes and reads none of them:
what the other end may do is decided by the socket's rights and by the daemon, which sees the session's user.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from slabwatch.control.sockets import START_HINT, denied, nobody_there

CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 5.0
# When the asking side has ended: how long the answer to its last words may take to begin, and then to end.
GRACE_SECONDS = 1.0


def bridge(path: Path, source: int = 0, sink: int = 1) -> None:
    """Carry bytes both ways until either side ends. Raises ControlError when the daemon can not be reached.

    Each way blocks on its own, and holds one chunk: a reader that does not read holds its writer back.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(os.fspath(path))
        except PermissionError as error:
            raise denied(str(path)) from error
        except OSError as error:
            raise nobody_there(str(path), error, START_HINT) from error
        connection.settimeout(None)
        answered = threading.Event()  # the last bytes came from the daemon, or it has gone
        # A daemon thread: what it waits for may never come, and must not keep this process.
        threading.Thread(target=_upstream, args=(source, connection, answered), name="upstream", daemon=True).start()
        with suppress(OSError):  # the reader has gone, or the daemon has reset the connection: the end either way
            while data := connection.recv(CHUNK_BYTES):
                _write_all(sink, data)
                answered.set()
        answered.set()


def _upstream(source: int, connection: socket.socket, answered: threading.Event) -> None:
    with suppress(OSError):  # it has been closed meanwhile
        while data := os.read(source, CHUNK_BYTES):
            answered.clear()
            connection.sendall(data)
        answered.wait(GRACE_SECONDS)
        # The daemon sends what it has written already, and closes; one that hangs is not waited for.
        connection.shutdown(socket.SHUT_WR)
        time.sleep(GRACE_SECONDS)
        connection.shutdown(socket.SHUT_RDWR)


def _write_all(sink: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(sink, rest) :]
