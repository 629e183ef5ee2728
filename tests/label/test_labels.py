"""Whatever is done to labels: the file says what is shown, and undoing all of it brings back the start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_edge.data.readers.files.rows import Row, read_manifest
from kd_edge.errors import DataError
from kd_edge.files import held
from kd_edge.label.edits import Add, AddClass, Change, Delete, Describe, Edit
from kd_edge.label.labels import ConflictError, Labels, RefusedError

NAMES = ("wave", "kick", 'Zürich, "quoted"')
HALVES = st.integers(0, 20).map(lambda k: k / 2)


def edits() -> st.SearchStrategy[tuple[str, Any]]:
    """(what, its arguments); pieces are named by their place in the list."""
    names, numbers = st.sampled_from(NAMES), st.integers(0, 1)
    return st.one_of(
        st.tuples(st.just("add"), st.tuples(numbers, HALVES, HALVES, names)),
        st.tuples(st.just("change"), st.tuples(numbers, st.integers(0, 5), HALVES, st.none() | names)),
        st.tuples(st.just("delete"), st.tuples(numbers, st.integers(0, 5))),
        st.tuples(st.just("describe"), st.tuples(numbers, st.sampled_from(["", "anna", "ben"]))),
        st.tuples(st.just("undo"), st.just(())),
        st.tuples(st.just("redo"), st.just(())),
    )


def asked(labels: Labels, what: str, of: Any) -> Edit | None:
    """The edit that is meant; None where it is of a piece that is not there."""
    if what == "add":
        return Add(kind="add", recording=of[0], start_s=of[1], end_s=of[2], label=of[3])
    if what == "describe":
        return Describe(kind="describe", recording=of[0], subject=of[1])
    pieces = labels.recordings[of[0]].pieces
    if of[1] >= len(pieces):
        return None
    id_ = pieces[of[1]].id
    if what == "delete":
        return Delete(kind="delete", recording=of[0], id=id_)
    return Change(kind="change", recording=of[0], id=id_, end_s=of[2], label=of[3])


def told(rows: Any) -> list[tuple[Any, ...]]:
    """All that a row says, but its line."""
    return sorted(
        (row.id, row.label, row.subject, row.start_s, row.end_s or -1, str(dict(row.files)), str(dict(row.notes)))
        for row in rows
    )


def shown(labels: Labels) -> Iterator[Row]:
    for recording in labels.recordings:
        yield from recording.rows


@pytest.mark.parametrize("manifest", ["manifest.csv", "manifest.jsonl"])
def test_the_file_always_says_what_is_shown(manifest: str, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    np.save(start / "a_ir.npy", np.zeros((101, 4, 4), np.uint8))
    np.save(start / "b_ir.npy", np.zeros((101, 4, 4), np.uint8))
    (start / "dataset.toml").write_text("[modality.ir]\nfps = 10\n")
    rows = "id,label,ir,weather\na,,a_ir.npy,rain\nb,wave,b_ir.npy,sun\n"
    lines = [{"id": "a", "label": "", "ir": "a_ir.npy", "weather": "rain"}]
    lines.append({"id": "b", "label": "wave", "ir": "b_ir.npy"})
    if manifest.endswith("jsonl"):
        rows = "".join(json.dumps(line) + "\n" for line in lines)
    (start / manifest).write_text(rows)

    @settings(max_examples=40)
    @given(st.lists(edits(), max_size=15))
    def holds(steps: list[tuple[str, Any]]) -> None:
        with TemporaryDirectory(dir=tmp_path) as folder:
            root = Path(folder) / "mine"
            shutil.copytree(start, root)
            labels = Labels(root)
            before = told(shown(labels))
            for what, of in steps:
                _do(labels, what, of)
                assert told(read_manifest(root / manifest).rows) == told(shown(labels))
            while labels.undo(labels.revision):
                pass
            assert told(shown(labels)) == before
            assert told(read_manifest(root / manifest).rows) == before

    holds()


def _do(labels: Labels, what: str, of: Any) -> None:
    seen = labels.revision
    if what in ("undo", "redo"):
        is_done = getattr(labels, what)(seen) is not None
        assert labels.revision == seen + is_done
    elif (edit := asked(labels, what, of)) is not None:
        with suppress(RefusedError):
            labels.apply(edit, seen)


def test_only_so_many_changes_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_edge.label.labels.MOST_UNDONE", 3)
    np.save(tmp_path / "a_ir.npy", np.zeros((101, 4, 4), np.uint8))
    (tmp_path / "manifest.csv").write_text("id,label,ir\na,,a_ir.npy\n")
    labels = Labels(tmp_path)
    for k in range(5):
        edit = Add(kind="add", recording=0, start_s=k / 2, end_s=k / 2 + 0.5, label="wave")
        labels.apply(edit, labels.revision)
    undone = 0
    while labels.undo(labels.revision):
        undone += 1
    assert undone == 3
    assert [row.start_s for row in labels.recordings[0].pieces] == [0.0, 0.5]


def test_a_class_alone_asks_for_the_newest_labels_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a_ir.npy", np.zeros((11, 4, 4), np.uint8))
    (tmp_path / "manifest.csv").write_text("id,label,ir\na,,a_ir.npy\n")
    with pytest.raises(ConflictError):
        Labels(tmp_path).apply(AddClass(kind="class", label="wave"), 7)


def test_pieces_of_another_recording_with_the_same_file_count(tmp_path: Path) -> None:
    for name in ("a_ir", "a_rgb"):
        np.save(tmp_path / f"{name}.npy", np.zeros((301, 4, 4), np.uint8))
    (tmp_path / "manifest.csv").write_text(
        "id,label,start_s,end_s,ir,rgb\na,wave,1,2,a_ir.npy,a_rgb.npy\nb,kick,5,6,a_ir.npy,\n"
    )
    labels = Labels(tmp_path)
    assert len(labels.recordings) == 2
    with pytest.raises(RefusedError, match=r"overlaps wave \(1\.00 s to 2\.00 s\)"):
        labels.apply(Add(kind="add", recording=1, start_s=1.5, end_s=3.0, label="kick"), 1)


def test_nothing_is_changed_while_a_recorder_adds_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a_ir.npy", np.zeros((101, 4, 4), np.uint8))
    (tmp_path / "dataset.toml").write_text("[modality.ir]\nfps = 10\n")
    (tmp_path / "manifest.csv").write_text("id,label,ir\na,,a_ir.npy\n")
    (tmp_path / ".record").mkdir()
    labels = Labels(tmp_path)
    add = Add(kind="add", recording=0, start_s=1.0, end_s=2.0, label="wave")
    labels.apply(add, labels.revision)
    before = (tmp_path / "manifest.csv").read_bytes()
    other = add.model_copy(update={"start_s": 3.0, "end_s": 4.0})
    with held(tmp_path / ".record/lock") as is_held:
        assert is_held
        for change in (lambda: labels.apply(other, labels.revision), lambda: labels.undo(labels.revision)):
            with pytest.raises(RefusedError, match="kd-edge record is recording into this folder"):
                change()
    assert (tmp_path / "manifest.csv").read_bytes() == before
    labels.apply(other, labels.revision)
    assert len(labels.recordings[0].pieces) == 2
    assert list((tmp_path / ".record").iterdir()) == []


def test_two_manifests_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a_ir.npy", np.zeros((11, 4, 4), np.uint8))
    (tmp_path / "manifest.csv").write_text("id,label,ir\na,,a_ir.npy\n")
    labels = Labels(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(DataError, match="one manifest"):
        labels.apply(Add(kind="add", recording=0, start_s=0.0, end_s=0.1, label="wave"), 1)
