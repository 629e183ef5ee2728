"""Rows that a clip makes, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge.record.journal import Journal, JournalFile, Piece, read_journal, rows_of

MS = 1_000_000
FILES = {"ir": "clips/00007_ir.mkv", "rgb": "clips/00007_rgb.mkv"}
CELLS = {"label": "wave", "subject": "3", "trial": "1"}
IR = [(1000 + 40 * k) * MS for k in range(50)]  # until 2.96 s
RGB = [(1013 + 40 * k) * MS for k in range(50)]


def test_a_clip_is_one_row_and_the_later_file_says_how_late_it_begins() -> None:
    rows = rows_of(Journal("00007", FILES, CELLS), {"ir": IR, "rgb": RGB})
    assert rows == [{"id": "00007", **CELLS, **FILES, "rgb_offset_s": "0.013"}]


def test_an_offset_keeps_every_nanosecond() -> None:
    (row,) = rows_of(Journal("00007", FILES, CELLS), {"ir": [10, 20], "rgb": [123_456_799, 123_456_999]})
    assert row["rgb_offset_s"] == "0.123456789"


def test_a_camera_with_a_single_frame_is_not_there() -> None:
    rows = rows_of(Journal("00007", FILES, CELLS), {"ir": IR, "rgb": RGB[:1]})
    assert rows == [{"id": "00007", **CELLS, "ir": FILES["ir"]}]
    assert rows_of(Journal("00007", FILES, CELLS), {"ir": IR[:1], "rgb": []}) == []


def test_pieces_are_rows_of_their_own() -> None:
    pieces = [
        Piece("wave", "1", 1500 * MS, 2000 * MS),
        Piece("kick", "1", 2100 * MS, 2110 * MS),  # no two frames of each camera
        Piece("kick", "2", 2500 * MS, None),
    ]
    rows = rows_of(Journal("00007", FILES, {**CELLS, "label": ""}, pieces), {"ir": IR, "rgb": RGB})
    assert [(r["id"], r["label"], r["trial"], r["start_s"], r["end_s"]) for r in rows] == [
        ("00007-1", "wave", "1", "0.500", "1.000"),
        ("00007-2", "kick", "2", "1.500", "1.961"),  # the last frame of ir is at 1.96 s
    ]
    assert all(r["rgb_offset_s"] == "0.013" and r["ir"] == FILES["ir"] for r in rows)


def test_a_piece_ends_with_the_camera_that_ended_first() -> None:
    journal = Journal("00007", FILES, CELLS, [Piece("wave", "1", 900 * MS, 9000 * MS)])
    (row,) = rows_of(journal, {"ir": IR, "rgb": RGB[:25]})  # the last one at 1.973 s
    assert (row["start_s"], row["end_s"]) == ("0.000", "0.974")


def test_without_a_piece_that_counts_the_recording_has_a_row_without_label() -> None:
    journal = Journal("00007", {"ir": "x"}, {"label": ""}, [Piece("wave", "1", 1500 * MS, 1500 * MS)])
    assert rows_of(journal, {"ir": IR}) == [{"id": "00007", "label": "", "ir": "x"}]


def test_a_journal_reads_back_and_a_line_that_breaks_off_is_none(tmp_path: Path) -> None:
    path = tmp_path / "00007.jsonl"
    written = JournalFile(path, Journal("00007", FILES, CELLS))
    written.begin(Piece("wäve", "4", 17))
    written.end(23)
    written.begin(Piece("kick", "1", 29))
    written.close()
    found = read_journal(path)
    assert found == Journal("00007", FILES, CELLS, [Piece("wäve", "4", 17, 23), Piece("kick", "1", 29)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert read_journal(path) == Journal("00007", FILES, CELLS, [Piece("wäve", "4", 17, 23)])
    path.write_bytes(whole[:20])
    assert read_journal(path) is None


def test_a_piece_that_was_discarded_is_none(tmp_path: Path) -> None:
    path = tmp_path / "00007.jsonl"
    written = JournalFile(path, Journal("00007", FILES, CELLS))
    written.begin(Piece("wave", "4", 17))
    written.end(23)
    written.begin(Piece("kick", "1", 29))
    assert written.discard() == Piece("kick", "1", 29)
    assert written.journal.pieces == [Piece("wave", "4", 17, 23)]
    written.begin(Piece("kick", "1", 31))
    written.close()
    assert read_journal(path) == Journal("00007", FILES, CELLS, [Piece("wave", "4", 17, 23), Piece("kick", "1", 31)])
    with path.open("ab") as file:
        file.write(b'{"discarded": ""}\n' * 3)
    assert read_journal(path) == Journal("00007", FILES, CELLS)


def test_a_journal_names_no_file_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "00007.jsonl"
    for file in ("/etc/passwd", "../other/clip.mkv", "manifest.csv", "clips/../manifest.csv", "clips/00001_ir.mkv\0"):
        path.unlink(missing_ok=True)
        JournalFile(path, Journal("00007", {"ir": file}, CELLS)).close()
        assert read_journal(path) is None


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000, b'{"label": "kick", "trial": "1", "begin_ns": 1e999}', b'{"begin_ns": 1}',
        b"[1]", b"7", b"null",
        b'{"label": "kick", "trial": "1", "begin_ns": ' + b"9" * 5000 + b"}", bytes(range(128, 256)),
    ],
)  # fmt: skip
def test_a_damaged_line_ends_a_journal(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "00007.jsonl"
    written = JournalFile(path, Journal("00007", FILES, CELLS))
    written.begin(Piece("wave", "4", 17))
    written.close()
    with path.open("ab") as file:
        file.write(line + b'\n{"end_ns": 23}\n')
    assert read_journal(path) == Journal("00007", FILES, CELLS, [Piece("wave", "4", 17)])
    path.write_bytes(line + b"\n")
    assert read_journal(path) is None
