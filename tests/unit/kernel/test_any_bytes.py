"""What holds for every parser: any bytes give a record or KernelParseError, soon, and never a wrong figure."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwatch.errors import KernelParseError
from slabwatch.kernel.slabinfo import SlabInfo
from tests.hosts import HOSTS, STATES
from tests.unit.kernel.parsers import PARSERS, Parser, facts

every_parser = pytest.mark.parametrize("parser", PARSERS, ids=[parser.name for parser in PARSERS])

# Made of the pieces that the files are made of, such bytes come further than random ones.
PIECES = st.lists(
    st.sampled_from([
        b" ", b"\n", b"\t", b":", b" : ", b"0", b"1", b"18446744073709551615", b"9" * 30, b"9" * 5000, b"-1",
        b"max", b"-", b"kB", b"slab", b"some", b"full", b"avg10=0.00", b"total=1", b"/", b"\\040", b'"', b"=",
        b"#", b"CONFIG_A=", b",", b"slabinfo - version: 2.1\n", b" : tunables 0 0 0 : slabdata 1 1 0\n", b"\xff",
        "\u0661".encode(), "\u00a0".encode(), b"\x00", b"\x1f\x8b\x08", b"\r", b"\x1c", b"processes ",
        b"populated ", b"nr_descendants 1\n", b"0::/",
    ]),
    max_size=40,
).map(b"".join)  # fmt: skip


def check(parser: Parser, data: bytes) -> Any:
    """Parse; a record must be sound. Gives the record, or the error."""
    try:
        record = parser.parse(data)
    except KernelParseError as error:
        assert error.path
        assert error.field
        assert len(error.line) <= 120
        str(error).encode()
        return error
    for fact in facts(record):
        str(fact).encode()
    if isinstance(record, SlabInfo):
        sound(record)
    return record


def sound(table: SlabInfo) -> None:
    numbers = (
        table.active_objects, table.objects, table.object_size_bytes, table.objects_per_slab, table.pages_per_slab,
        table.active_slabs, table.slabs,
    )  # fmt: skip
    assert table.names
    assert len(set(table.names)) == len(table.names)
    for column in numbers:
        assert len(column) == len(table.names)
        assert all(text.isascii() and text.isdigit() for text in column)
    assert [str(size) for size in table.size_bytes(65536)]


@every_parser
@given(data=st.binary(max_size=300) | PIECES)
def test_any_bytes_give_a_record_or_the_error(parser: Parser, data: bytes) -> None:
    check(parser, data)


@every_parser
@given(data=st.data())
def test_a_damaged_file_gives_a_record_or_the_error(parser: Parser, data: st.DataObject) -> None:
    whole = parser.sample()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(whole)))
        end = start + data.draw(st.integers(0, 200))
        piece = data.draw(st.binary(max_size=20) | PIECES | st.just(whole[start:end] * 2))
        whole = whole[:start] + piece + whole[end:]
    check(parser, whole)


@every_parser
def test_a_file_that_was_cut_off_never_gives_a_wrong_figure(parser: Parser) -> None:
    whole = parser.sample()
    known = facts(parser.parse(whole))
    step = max(1, len(whole) // 300)
    ends = set(range(0, len(whole), step)) | set(range(max(0, len(whole) - 150), len(whole)))
    for end in sorted(ends):
        record = check(parser, whole[:end])
        if not isinstance(record, KernelParseError):
            assert facts(record) <= known, whole[:end][-200:]


@every_parser
def test_an_empty_file(parser: Parser) -> None:
    if parser.empty_is_fine:
        assert facts(parser.parse(b"")) == set()
    else:
        with pytest.raises(KernelParseError):
            parser.parse(b"")


@every_parser
@pytest.mark.parametrize("data", [b"\x00" * 64, b"garbage\n", b"\n", b"<html>\n<body>404</body>\n", b"\xff\xfe\x00\n"])
def test_garbage_is_never_a_figure(parser: Parser, data: bytes) -> None:
    record = check(parser, data)
    if parser.name != "cmdline":  # any words are parameters
        assert isinstance(record, KernelParseError) or facts(record) == set()


@every_parser
@pytest.mark.parametrize(
    "unit", [b"a", b" ", b"\n", b"1 ", b'"', b'" ', b"\\040", b"\xff", b": ", b" : ", b" - ", b"x 1\n"]
)
def test_a_huge_file_takes_no_long_time(parser: Parser, unit: bytes) -> None:
    data = unit * (100_000 // len(unit))
    begin = time.process_time()
    check(parser, data)
    check(parser, b"slabinfo - version: 2.1\n" + data + b"\n")
    # Some 10 ms are usual; anything that is not linear would take minutes.
    assert time.process_time() - begin < 5


@every_parser
@pytest.mark.parametrize("host", HOSTS)
def test_every_recorded_file_is_read(parser: Parser, host: str) -> None:
    files = [data for state in STATES for data in parser.recorded(host, state)]
    assert bool(files) != (host in parser.absent)
    for data in files:
        record = check(parser, data)
        assert not isinstance(record, KernelParseError)
        assert not getattr(record, "skipped", ())
        if data:
            assert facts(record) or record is None
