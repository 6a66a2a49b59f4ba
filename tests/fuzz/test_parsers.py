"""Every target with damaged inputs: what the guided fuzzer (`make fuzz`) does for hours, here for a minute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.effort import tries
from tests.fuzz.targets import TARGETS, Target

# Pieces that have meant something to some parser.
PIECES = st.sampled_from([
    b"", b" ", b"\n", b"\r\n", b"\x00", b"\xff", b"\xf0\x9f\x92\xa9", b"\xed\xa0\x80", b"\\u0000", b"\\ud800", b"\x7f",
    b"0", b"-1", b"1e999", b"NaN", b"Infinity", b"9" * 30, b"9" * 5000, b"18446744073709551616", b"0x1", b"1_0",
    b"null", b"true", b"[]", b"{}", b"[" * 2000, b'{"a":' * 2000, b'"', b"'", b"'''", b'"""', b"\\", b"=", b":", b",",
    b"#", b"&a", b"*a", b"!!python/object:os.system", b"<<: ", b"---", b"...", b"? ", b"|", b">", b"%", b"$2b$31$",
    b"[storm]", b"[[a]]", b"inf", b"1979-05-27", "\u0661".encode(), "\u2028".encode(), b"-----BEGIN CERTIFICATE-----",
])  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed after a few cuts, copies and insertions."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 8, 64, 1000])))
        piece = draw(PIECES | st.binary(max_size=8) | st.just(data[start:end] * 2) | st.just(data[end : end + 40]))
        data = data[:start] + piece + data[end:]
    return data


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_damaged_input(target: Target) -> None:
    seeds = target.seeds()
    for seed in seeds:
        target.run(seed)

    @tries(250)
    @given(data=damaged(seeds) | st.binary(max_size=100) | PIECES)
    def run(data: bytes) -> None:
        target.run(data)

    run()
