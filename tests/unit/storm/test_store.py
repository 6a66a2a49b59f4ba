"""Records on disk: whole or not at all, bounded, and safe from ids that are paths."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from slabwatch.storm.record import FORMAT, summary
from slabwatch.storm.store import RecordStore
from tests.unit.storm.records import made_record

OLD, NEW = "20260101-000000-aaaa", "20260102-000000-bbbb"


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "state", keep=3)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "state" / "storms").iterdir())


def test_what_was_saved_is_loaded(store: RecordStore, tmp_path: Path) -> None:
    record = made_record(NEW)
    store.save(record)
    assert store.load(NEW) == record
    assert store.summaries() == [summary(record)]
    assert files(tmp_path) == [f"{NEW}.json"]
    assert (tmp_path / "state" / "storms").stat().st_mode & 0o007 == 0, "not everybody's"


def test_nothing_is_there_before_the_first_storm(store: RecordStore, tmp_path: Path) -> None:
    assert store.summaries() == []
    assert store.load(NEW) is None
    assert not (tmp_path / "state").exists(), "reading makes nothing"


def test_newest_first_and_no_more_than_the_bound(store: RecordStore, tmp_path: Path) -> None:
    ids = [f"2026010{day}-000000-aaaa" for day in (3, 1, 5, 2, 4)]
    for storm_id in ids:
        store.save(made_record(storm_id))
    assert [one["id"] for one in store.summaries()] == sorted(ids, reverse=True)[:3]
    assert files(tmp_path) == [f"{storm_id}.json" for storm_id in sorted(ids)[2:]]
    assert store.load("20260101-000000-aaaa") is None


def test_the_same_storm_is_written_over(store: RecordStore, tmp_path: Path) -> None:
    store.save(made_record(NEW))
    store.save(made_record(NEW, outcome="stopped"))
    loaded = store.load(NEW)
    assert loaded is not None
    assert loaded["outcome"] == "stopped"
    assert files(tmp_path) == [f"{NEW}.json"]


def full(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_keeps_what_was_there(
    store: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for storm_id in (OLD, NEW):
        store.save(made_record(storm_id))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            store.save(made_record("20260103-000000-cccc"))
        with pytest.raises(OSError, match="No space left"):
            store.save(made_record(NEW, outcome="stopped"))
    assert files(tmp_path) == [f"{OLD}.json", f"{NEW}.json"], "nothing half-written, nothing dropped"
    assert store.load(NEW) == made_record(NEW)
    store.save(made_record("20260103-000000-cccc"))
    assert len(store.summaries()) == 3


def test_a_directory_that_can_not_be_made(store: RecordStore, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in its place")
    with pytest.raises(OSError, match="state"):
        store.save(made_record(NEW))
    assert store.summaries() == []


def test_the_record_is_on_disk_before_it_takes_its_name(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        calls.append(f"replace {target.name}")
        assert json.loads(source.read_text())["id"] == NEW
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    store.save(made_record(NEW))
    assert calls == ["fsync", f"replace {NEW}.json"]


UNREADABLE: dict[str, str | bytes] = {
    "empty": "",
    "cut": json.dumps(made_record(OLD))[:200],
    "no-json": "storm",
    "no-utf-8": b"\xff\xfe",
    "a-list": "[]",
    "a-number": "1",
    "nested": "[" * 100_000,
    "no-format": '{"id": "x"}',
    "newer": json.dumps(made_record(OLD, format=FORMAT + 1)),
    "format-of-words": json.dumps(made_record(OLD, format="two")),
    "no-plan": json.dumps({key: value for key, value in made_record(OLD).items() if key != "plan"}),
    "plan-of-words": json.dumps(made_record(OLD, plan="full")),
    "verdict-of-words": json.dumps(made_record(OLD, verdict="retained")),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_can_not_be_read_is_logged_and_left_alone(
    store: RecordStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    store.save(made_record(NEW))
    content = UNREADABLE[kind]
    path = tmp_path / "state" / "storms" / f"{OLD}.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert [one["id"] for one in store.summaries()] == [NEW]
    assert store.load(OLD) is None
    assert path.exists()
    assert {record.message for record in caplog.records} == {"record_unreadable"}
    assert caplog.records[0].__dict__["fields"]["path"] == str(path)


def test_a_directory_in_a_records_place(store: RecordStore, tmp_path: Path) -> None:
    store.save(made_record(NEW))
    (tmp_path / "state" / "storms" / f"{OLD}.json").mkdir()
    assert [one["id"] for one in store.summaries()] == [NEW]


def test_other_files_are_neither_read_nor_counted_nor_removed(
    store: RecordStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(made_record(NEW))
    directory = tmp_path / "state" / "storms"
    foreign = {"Notes.json", "a b.json", "zzz.txt", "0000.json.bak", ".hidden.json"}
    for name in foreign:
        (directory / name).write_text("{}")
    for day in range(3, 8):
        store.save(made_record(f"2026010{day}-000000-aaaa"))
    assert foreign <= set(files(tmp_path))
    assert len(store.summaries()) == 3
    assert caplog.records == []


@pytest.mark.parametrize(
    "storm_id",
    [
        "",
        ".",
        "..",
        "../secret",
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a.b",
        "a\0b",
        f"{NEW}\n",
        f"{NEW}.json",
        "UPPER",
        "ünï",
        "\u0661",
        "a" * 65,
        "%2e%2e",
    ],
)
def test_an_id_that_is_none_finds_nothing(store: RecordStore, tmp_path: Path, storm_id: str) -> None:
    store.save(made_record(NEW))
    (tmp_path / "state" / "secret.json").write_text(json.dumps(made_record(NEW)))
    assert store.load(storm_id) is None
