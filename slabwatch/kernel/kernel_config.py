"""/proc/config.gz or /boot/config-<release>: the options that this kernel was built with.

Kernel document: Documentation/kbuild/kconfig.rst; init/Kconfig (IKCONFIG_PROC). A sample, once decompressed::

    CONFIG_MEMCG=y
    CONFIG_LOCALVERSION="-cloud"
    # CONFIG_SLUB_DEBUG_ON is not set
"""

from __future__ import annotations

import re
import zlib

from slabwatch.errors import KernelParseError
from slabwatch.kernel.text import whole_lines

PATH = "/proc/config.gz"

_GZIP = b"\x1f\x8b"
# A distribution's configuration has about 300 kB. Beyond the bound it is something else, or a bomb.
_MOST_BYTES = 4 * 1024 * 1024
_SET = re.compile(r"(CONFIG_[0-9A-Za-z_]+)=(.+)")
_NOT_SET = re.compile(r"# (CONFIG_[0-9A-Za-z_]+) is not set")
_BACKSLASHED = re.compile(r"\\(.)")


def parse_kernel_config(data: bytes, path: str = PATH) -> dict[str, str]:
    """The options by full name: ``y``, ``m``, ``n`` for one that is not set, or the value without quotes.

    Takes gzip and plain text. An option that is not listed depends on something that is off: it has no key.
    Raises KernelParseError.
    """
    options: dict[str, str] = {}
    for line_no, line in enumerate(whole_lines(_plain(data, path), path), 1):
        if found := _SET.fullmatch(line):
            options[found[1]] = _unquote(found[2])
        elif found := _NOT_SET.fullmatch(line):
            options[found[1]] = "n"
        elif line and not line.startswith("#"):
            raise KernelParseError(path, line_no, line, "line (neither an option nor a comment)")
    if not options:
        raise KernelParseError(path, 0, "", "file (no option in it)")
    return options


def _plain(data: bytes, path: str) -> bytes:
    if data.startswith(_GZIP):
        inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            data = inflate.decompress(data, _MOST_BYTES + 1)
        except zlib.error as error:
            raise KernelParseError(path, 0, str(error), "gzip data") from error
        if not inflate.eof and len(data) <= _MOST_BYTES:
            raise KernelParseError(path, 0, "", "end of gzip data (cut off)")
    if len(data) > _MOST_BYTES:
        raise KernelParseError(path, 0, "", f"size (more than {_MOST_BYTES} bytes)")
    return data


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return _BACKSLASHED.sub(r"\1", value[1:-1])
    return value
