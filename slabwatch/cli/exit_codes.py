"""slabwatchctl's exit codes: one meaning each, so that scripts need not read messages."""

from __future__ import annotations

from enum import IntEnum

from slabwatch.errors import ControlError


class Exit(IntEnum):
    DONE = 0
    USAGE = 1
    REFUSED = 2
    LACK = 3
    KERNEL_CAN_NOT = 4
    UNREACHABLE = 5
    NOT_ALLOWED = 6
    UNTRUSTED = 7
    UNEXPECTED = 8
    # As shells report a program that ended by a signal: SIGINT and SIGPIPE.
    INTERRUPTED = 130
    BROKEN_PIPE = 141


# For the help text.
MEANINGS = {
    Exit.DONE: "done",
    Exit.USAGE: "usage or configuration",
    Exit.REFUSED: "the daemon refused, with its reason",
    Exit.LACK: "lack of a resource",
    Exit.KERNEL_CAN_NOT: "this kernel can not",
    Exit.UNREACHABLE: "can not connect",
    Exit.NOT_ALLOWED: "not allowed",
    Exit.UNTRUSTED: "the storm was aborted, its figures can not be trusted, or it has left something behind",
    Exit.UNEXPECTED: "--expect was not met",
    Exit.INTERRUPTED: "left, or over many hosts stopped, by Ctrl-C",
}

_OF_CODE = {
    "bad_target": Exit.USAGE,
    "bad_context": Exit.USAGE,
    "unreachable": Exit.UNREACHABLE,
    "bad_answer": Exit.UNREACHABLE,
    "not_allowed": Exit.NOT_ALLOWED,
    "not_permitted": Exit.NOT_ALLOWED,
    "kernel_can_not": Exit.KERNEL_CAN_NOT,
    "no_record": Exit.UNTRUSTED,
}


def exit_for_code(code: str) -> Exit:
    """What a refusal's stable code means to the shell."""
    return Exit.LACK if code.startswith("lack_of_") else _OF_CODE.get(code, Exit.REFUSED)


def exit_for(error: ControlError) -> Exit:
    """The exit code of a verb that ended with this error."""
    return exit_for_code(error.code)
