"""Starting the storm's tasks from a worker: one real process each, with a pid and a task_struct of its own.

Every kind waits for the end of the *life pipe*, whose only writer is the engine: when the engine ends, by
whatever signal, the kernel closes the pipe and the tasks end. They need no parent, no timer and no help.

``light`` and ``fork`` call clone(2) through libc with a libc function for a body, so that no Python runs in
the child: ``fgetc_unlocked(stdin)``, the life pipe, blocks in read(2) until the end of file. ``light`` shares the
worker's memory map (CLONE_VM), ``fork`` gets a copy of its own, as fork(2) does; like fork(2) and unlike a
thread neither shares files or signal handlers. Standard library only: see ``engine``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from typing import Protocol

CLONE_VM = 0x100  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
_IOFBF = 0
_STACK_BYTES = 16 * 1024  # of which a blocked read touches one page
_BLOCK_STACKS = 256


class Starter(Protocol):
    """Starts tasks of one kind."""

    def start(self) -> int:
        """One task; its pid. Raises OSError."""

    def ended(self, pid: int) -> None:
        """The task has been waited for."""


class Cloner:
    """Starts ``light`` and ``fork`` tasks. The life pipe must be descriptor 0.

    Pass each ended pid to ``ended``: its stack is used again.
    """

    def __init__(self, *, share_memory: bool) -> None:
        # PyDLL: no other thread is waiting for the interpreter's lock, and giving it up would cost more than the call.
        libc = ctypes.PyDLL(None, use_errno=True)
        self._share_memory = share_memory
        self._flags = signal.SIGCHLD | (CLONE_VM if share_memory else 0)
        self._blocks: list[mmap.mmap] = []
        self._free: list[int] = []
        self._stack_of: dict[int, int] = {}
        first_stacks = self._add_stacks()
        # libc's own stdin is no allocation, and with a buffer given beforehand the first read makes none: `light`
        # tasks share the heap, without its locks. Fully buffered, or libc would flush stdout before it reads.
        self._stdin = ctypes.c_void_p.in_dll(libc, "stdin")
        libc.setvbuf(self._stdin, ctypes.c_void_p(first_stacks), _IOFBF, ctypes.c_size_t(64))
        self._clone = libc.clone
        self._clone.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._body = ctypes.cast(libc.fgetc_unlocked, ctypes.c_void_p)
        if not share_memory:
            _keep_worker_data_from_children(libc, first_stacks)

    def start(self) -> int:
        """One task; its pid. Raises OSError (EAGAIN: a pids limit, ENOMEM)."""
        if not self._share_memory:
            top = self._free[-1]  # the copy of the memory map holds a copy of the stack
        else:
            if not self._free:
                self._add_stacks()
            top = self._free.pop()
        pid: int = self._clone(self._body, top, self._flags, self._stdin)
        if pid < 0:
            error = ctypes.get_errno()
            if self._share_memory:
                self._free.append(top)
            raise OSError(error, os.strerror(error))
        if self._share_memory:
            self._stack_of[pid] = top
        return pid

    def ended(self, pid: int) -> None:
        """The task has been waited for: nothing runs on its stack any more."""
        top = self._stack_of.pop(pid, None)
        if top is not None:
            self._free.append(top)

    def _add_stacks(self) -> int:
        block = mmap.mmap(-1, _STACK_BYTES * _BLOCK_STACKS, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._blocks.append(block)
        start = ctypes.addressof(ctypes.c_char.from_buffer(block))
        # The first stack's place is left for stdin's buffer.
        self._free += [start + _STACK_BYTES * (index + 1) - 64 for index in range(1, _BLOCK_STACKS)]
        return start


def _keep_worker_data_from_children(libc: ctypes.CDLL, stacks: int) -> None:
    """Exclude the interpreter's data from the memory map that `fork` tasks get (madvise MADV_DONTFORK).

    They never run Python. With its data in their map, each page that the worker writes between two forks would be
    copied for the last task's sake: most of a task's cost, and memory that no real load has. What stays: all
    code, libc's data, its thread-local block, the tasks' stacks, and the main stack with the environment by which
    our tasks are known.
    """
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    errno_location = libc["__errno_location"]
    errno_location.restype = ctypes.c_void_p
    stdin = ctypes.c_void_p.in_dll(libc, "stdin").value or 0
    needed = (errno_location(), stacks, stdin)
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        maps = [line.split(maxsplit=5) for line in lines]
    files = [fields[5].strip() if len(fields) > 5 else "" for fields in maps]
    ranges = [tuple(int(part, 16) for part in fields[0].split("-")) for fields in maps]
    libc_file = next(file for file, (start, end) in zip(files, ranges, strict=True) if start <= stdin < end)
    before = ""
    for fields, file, (start, end) in zip(maps, files, ranges, strict=True):
        bss_of_libc = file == "" and before == libc_file  # a library's .bss is an anonymous map right behind it
        writable = fields[1].startswith("rw")
        used = file in ("[stack]", libc_file) or bss_of_libc or any(start <= address < end for address in needed)
        if writable and not used:
            libc.madvise(start, end - start, mmap.MADV_DONTFORK)
        before = file


class Execer:
    """Starts ``exec`` tasks: /bin/cat, reading the life pipe from its descriptor 0."""

    def __init__(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        self._files = [(os.POSIX_SPAWN_DUP2, 0, 0), (os.POSIX_SPAWN_DUP2, null, 1)]

    def start(self) -> int:
        """One task; its pid. Raises OSError."""
        return os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=self._files)

    def ended(self, pid: int) -> None:
        """Nothing to give back."""


def start_script(shell: str, script: str, progress_fd: int) -> int:
    """Start a shell that runs ``script`` with the pipe ``progress_fd`` as its descriptor 3; its pid.

    The shell dies with the worker; what it has started itself must end soon by its own (`sleep 1`).
    """
    worker = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with_parent(worker)
        os.dup2(progress_fd, 3)
        os.set_inheritable(3, True)  # dup2 does nothing at all when it is 3 already
        os.execve(shell, [shell, "-c", script], os.environ)
    finally:
        os._exit(127)


def keep_capabilities_from_programs() -> None:
    """Let programs that this process starts have none of its ambient capabilities, which a service may have."""
    ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends (prctl PR_SET_PDEATHSIG).

    For a child right after fork; it ends at once if the parent has gone meanwhile.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
