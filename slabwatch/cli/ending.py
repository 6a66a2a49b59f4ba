"""How both programs end: what cuts them off is an exit code and at most one line, not a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from slabwatch.cli.exit_codes import Exit

# What a file system, or a device, has against a write to stdout.
_CAN_NOT_BE_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def ended(program: str, run: Callable[[], int]) -> int:
    """Run it; its exit code, once stdout has taken all that was printed."""
    _open_what_is_closed()
    try:
        try:
            code = run()
        except SystemExit as leave:  # argparse's, after help and wrong usage
            code = int(leave.code or 0)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the terminal has written ^C
        return Exit.INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has seen enough
        _forget_stdout()
        return Exit.BROKEN_PIPE
    except OSError as error:
        if error.errno not in _CAN_NOT_BE_WRITTEN or error.filename is not None:
            raise
        _forget_stdout()
        print(f"{program}: the output can not be written: {error.strerror}", file=sys.stderr)
        return Exit.LACK
    return code


def _open_what_is_closed() -> None:
    """Started with ``>&-``, Python has None for it. In this order each gets the descriptor that it should have."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _forget_stdout() -> None:
    # Python would complain once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
