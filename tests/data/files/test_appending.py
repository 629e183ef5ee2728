"""Rows are added by the columns that a manifest has now, whoever has changed it since the last one."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from kd_edge.data.readers.files.appending import LOCK, append_rows, written_alone
from kd_edge.errors import DataError

ROW = {"id": "b", "label": "wave; both hands", "nir": "b.mkv", "reason": "low_confidence"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "manifest.csv"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("id,label,nir\na,wave,a.mkv\n", "id,label,nir\na,wave,a.mkv\nb,wave; both hands,b.mkv\n"),
        ("nir,label,id\na.mkv,wave,a", "nir,label,id\na.mkv,wave,a\nb.mkv,wave; both hands,b\n"),
        ("id;label;nir\na;wave;a.mkv\n", 'id;label;nir\na;wave;a.mkv\nb;"wave; both hands";b.mkv\n'),
        ("\ufeffid\tlabel\n", "\ufeffid\tlabel\nb\twave; both hands\n"),
    ],
    ids=["as written", "other order, no line's end", "semicolons", "tabs, a mark, no files"],
)
def test_cells_go_where_their_columns_are(manifest: Path, before: str, after: str) -> None:
    manifest.write_text(before, "utf-8")
    append_rows(manifest, [ROW])
    assert manifest.read_text("utf-8") == after


def test_wanted_columns_are_made_behind_the_owners(manifest: Path) -> None:
    manifest.write_text("id,label,mood\na,wave,good\n")
    append_rows(manifest, [ROW], ["id", "reason"])
    assert manifest.read_text() == "id,label,mood,reason\na,wave,good\nb,wave; both hands,,low_confidence\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"label,nir\n", "has no column id"),
        (b"name\n", "has no column id and no column label"),
        (b"id,label\n\xff\xfe\n", "cannot be read: "),
        (b'id,label\na,"wave\n', "cannot be read: line"),
    ],
)
def test_what_is_no_manifest_is_left_alone(manifest: Path, content: bytes, found: str) -> None:
    manifest.write_bytes(content)
    with pytest.raises(DataError, match=found):
        append_rows(manifest, [ROW])
    assert manifest.read_bytes() == content


def test_a_row_that_does_not_fit_leaves_the_manifest_as_it_was(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest.write_text("id,label\na,wave\n")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        append_rows(manifest, [ROW])
    assert manifest.read_text() == "id,label\na,wave\n"


def test_a_link_is_not_followed(manifest: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("id,label\n")
    manifest.symlink_to(other)
    for wanted in ([], ["reason"]):
        with pytest.raises(OSError, match=r"symbolic links|Not a regular file|no regular file"):
            append_rows(manifest, [ROW], wanted)
    assert manifest.is_symlink()
    assert other.read_text() == "id,label\n"


def test_rights_and_the_mark_of_utf8_stay(manifest: Path) -> None:
    manifest.write_text("\ufeffid,label\n", "utf-8")
    manifest.chmod(0o600)
    append_rows(manifest, [ROW], ["reason"])
    assert manifest.read_text("utf-8") == "\ufeffid,label,reason\nb,wave; both hands,low_confidence\n"
    assert manifest.stat().st_mode & 0o777 == 0o600


def test_one_writes_at_a_time(manifest: Path) -> None:
    told = r"has been locked by another program for 0 s.*remove .*\.manifest\.lock"
    with written_alone(manifest), pytest.raises(DataError, match=told), written_alone(manifest, 0.01):
        pytest.fail("two at once")
    assert not manifest.with_name(LOCK).exists()


def test_a_writer_waits_for_the_other_one(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read inside is what is written to: an edit that was under way is seen."""

    manifest.write_text("id,label\n")
    is_waiting = threading.Event()

    def add() -> None:
        is_waiting.set()
        with written_alone(manifest, 60):
            append_rows(manifest, [ROW])

    with written_alone(manifest):
        writer = threading.Thread(target=add)
        writer.start()
        assert is_waiting.wait(60)
        manifest.write_text("label;id\nwave;a\n")
    writer.join(60)
    assert manifest.read_text() == 'label;id\nwave;a\n"wave; both hands";b\n'
