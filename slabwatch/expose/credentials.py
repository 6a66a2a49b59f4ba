"""Names and passwords against bcrypt hashes, so that guessing is slow and guesses cost the daemon a bounded part.

As in Prometheus' exporter-toolkit, one hash is computed at a time, and what has been verified is remembered, because a
scraper comes with the same password again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import bcrypt

MAX_WAITING = 32
# Of one address: whoever guesses passwords must leave places for others.
MAX_WAITING_OF_ONE = 8
_MAX_VERIFIED = 256
# What bcrypt looks at; the rest of a password never counted, and newer libraries refuse to be given more.
_MAX_PASSWORD_BYTES = 72
_DEFAULT_COST = 10


class TooManyGuesses(Exception):
    """As many passwords as may be are waiting to be checked."""


class Credentials:
    """``users`` maps names to hashes and may be replaced at any time."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self.users = users
        self._secret = secrets.token_bytes(32)
        self._verified: set[bytes] = set()
        self._checks: dict[bytes, asyncio.Task[bool]] = {}
        self._waiting: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(1, "password", initializer=_behind_all_others)

    async def verify(self, user: str, password: bytes, address: str) -> bool:
        """Whether this user has this password. Raises TooManyGuesses."""
        known = self.users.get(user)
        # An unknown name takes as long as a known one, so that names can not be told by the time.
        digest = known or _nobody(self.users)
        key = self._key(user, digest, password)
        if key in self._verified:
            return known is not None
        check = self._checks.get(key)
        if check is None:
            if len(self._checks) >= MAX_WAITING or self._waiting[address] >= MAX_WAITING_OF_ONE:
                raise TooManyGuesses
            check = self._begin(key, password, digest, address)
        return await asyncio.shield(check) and known is not None

    def close(self) -> None:
        """No more checks."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _key(self, user: str, digest: str, password: bytes) -> bytes:
        # What is remembered is no use to whoever reads the daemon's memory after the password has gone from it.
        parts = (user.encode("utf-8", "surrogateescape"), digest.encode(), password)
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, message, hashlib.sha256)

    def _begin(self, key: bytes, password: bytes, digest: str, address: str) -> asyncio.Task[bool]:
        async def check() -> bool:
            loop = asyncio.get_running_loop()
            fits = await loop.run_in_executor(self._thread, _fits, password, digest)
            if fits:
                if len(self._verified) >= _MAX_VERIFIED:
                    self._verified.clear()
                self._verified.add(key)
            return fits

        def done(_: asyncio.Task[bool]) -> None:
            del self._checks[key]
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

        task = self._checks[key] = asyncio.create_task(check(), name="check a password")
        self._waiting[address] += 1
        task.add_done_callback(done)
        return task


def _fits(password: bytes, digest: str) -> bool:
    try:
        return bcrypt.checkpw(password[:_MAX_PASSWORD_BYTES], digest.encode("ascii"))
    except ValueError:
        return False


def _nobody(users: Mapping[str, str]) -> str:
    """A hash that no password has, as dear as the dearest of the users'."""
    cost = max((int(digest[4:6]) for digest in users.values()), default=_DEFAULT_COST)
    return f"$2b${cost:02}${'.' * 53}"


def _behind_all_others() -> None:
    # Of this thread alone: what is watched and served goes before what is guessed. A sandbox may not allow it.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 5)
