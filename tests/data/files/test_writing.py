from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from kd_edge.data.readers.files.rows import Row, read_manifest
from kd_edge.data.readers.files.writing import write_manifest
from kd_edge.errors import DataError
from tests.data.files.conftest import Folder

STRANGE = (
    "plain.npy",
    " blank before.npy",
    "a,b;c.npy",
    'he said "x".npy',
    "line\nbreak.npy",
    "return\r.npy",
    "\u202eright to left.npy",
    "Grüße 你好 🤖.npy",
    "#1 =1+1.npy",
    "-dash.npy",
    os.fsdecode(b"latin \xe9.npy"),
)


def written(folder: Folder, rows: list[Row]) -> list[Row]:
    path = folder.root / "manifest.csv"
    write_manifest(rows, path)
    return [replace(row, line=0) for row in read_manifest(path).rows]


def test_a_table_reads_back_as_it_was(folder: Folder) -> None:
    for name in ("1.npy", "2.npy", "sub/2.npy"):
        folder.clip(name)
    rows = [
        Row(
            "one", "wave, twice", {"ir": PurePosixPath("1.npy")}, "anna", "left", "3", "val", 0.1 + 0.2, 1e6 + 1 / 3,
            {"ir": -0.25}, {"mood": "good;bad", "who knows": "#"},
        ),
        Row("two", "", {"rgb": PurePosixPath("sub/2.npy"), "ir": PurePosixPath("2.npy")}, end_s=2.0),
        Row("three", "sit", {"ir": PurePosixPath("2.npy")}, start_s=2.0, offsets_s={"ir": 0.0}),
    ]  # fmt: skip
    assert written(folder, rows) == rows
    assert (folder.root / "manifest.csv").read_text() == (
        "id,label,subject,view,trial,split,start_s,end_s,ir,rgb,ir_offset_s,mood,who knows\n"
        'one,"wave, twice",anna,left,3,val,0.30000000000000004,1000000.3333333334,1.npy,,-0.25,good;bad,#\n'
        "two,,,,,,0,2,2.npy,sub/2.npy,,,\n"
        "three,sit,,,,,2,,2.npy,,0,,\n"
    )


@pytest.mark.parametrize("names", [(name,) for name in STRANGE] + [STRANGE], ids=lambda names: ascii(names[0])[:12])
def test_file_names_may_hold_anything(folder: Folder, names: tuple[str, ...]) -> None:
    for name in names:
        np.save(folder.root / name, np.zeros((2, 40, 48), np.uint8))
    rows = [Row(str(k), "x", {"ir": PurePosixPath(name)}) for k, name in enumerate(names)]
    assert written(folder, rows) == rows


def test_a_folder_of_images_may_end_in_a_blank(folder: Folder) -> None:
    (folder.root / "images ").mkdir()
    rows = [Row("1", "x", {"ir": PurePosixPath("images ")})]
    assert written(folder, rows) == rows


def test_unknown_columns_are_named_and_kept(folder: Folder) -> None:
    folder.clip("1.npy")
    folder.clip("2.npy")
    folder.manifest("id,label,mood,ir,operator", "0,x,good,1.npy,", "1,x,,2.npy,me")
    path = folder.root / "manifest.csv"
    table = read_manifest(path)
    assert table.remarks[0] == "columns that are not read: mood, operator"
    write_manifest(table.rows, path, force=True)
    assert path.read_text() == (
        "id,label,subject,view,trial,split,start_s,end_s,ir,mood,operator\n0,x,,,,,,,1.npy,good,\n1,x,,,,,,,2.npy,,me\n"
    )


def test_nothing_is_overwritten_unasked(folder: Folder) -> None:
    folder.clip("1.npy")
    path, rows = folder.root / "manifest.csv", [Row("1", "x", {"ir": PurePosixPath("1.npy")})]
    folder.manifest("mine")
    with pytest.raises(DataError, match=r"manifest\.csv exists already.*--force"):
        write_manifest(rows, path)
    assert path.read_text() == "mine\n"
    write_manifest(rows, path, force=True)
    assert path.read_text().startswith("id,label")
    path.unlink()
    folder.text("manifest.jsonl", "{}")
    with pytest.raises(DataError, match=r"manifest\.jsonl exists already"):
        write_manifest(rows, path, force=True)
    assert sorted(p.name for p in folder.root.iterdir()) == ["1.npy", "manifest.jsonl"]


@pytest.mark.parametrize("name", ["view", "mood", "ir_offset_s"])
def test_a_modality_is_called_like_no_other_column(folder: Folder, name: str) -> None:
    files = {"ir": PurePosixPath("1.npy"), name: PurePosixPath("1.npy")}
    with pytest.raises(DataError, match=f"modality '{name}' has the name of another column"):
        write_manifest([Row("1", "x", files, offsets_s={"ir": 1.0}, notes={"mood": "x"})], folder.root / "manifest.csv")
    assert not list(Path(folder.root).iterdir())


def test_half_a_character_is_refused(folder: Folder) -> None:
    rows = [Row("1", "x", {"ir": PurePosixPath("1.npy")}, notes={"mood": "\ud800"})]
    with pytest.raises(DataError, match=r"'\\ud800' in a row of .*manifest\.csv"):
        write_manifest(rows, folder.root / "manifest.csv")
    assert not list(folder.root.iterdir())
