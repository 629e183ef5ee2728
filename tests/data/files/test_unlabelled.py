"""Own recordings that nobody has labelled: none of the samples, and apart from who is held out."""

from __future__ import annotations

import pytest

from kd_edge.data.check import check
from kd_edge.data.dataset import UNLABELLED, PartlyLabelled, Sample, unlabelled_of
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.errors import DataError
from tests.data.files.conftest import Folder


def labelled(folder: Folder) -> list[str]:
    """Rows of two classes by anna, ben and carl, who is tested."""
    rows = []
    for k, (label, subject) in enumerate((a, b) for a in ("sit", "wave") for b in ("anna", "ben", "carl")):
        folder.clip(f"{k}.npy")
        rows.append(f"c{k},{label},{subject},{k}.npy,{'test' if subject == 'carl' else ''}")
    return rows


def test_rows_without_a_label_are_apart_from_who_is_held_out(folder: Folder) -> None:
    more = ("u0,,anna,u0.npy,", "u1,,Carl,u1.npy,", "u2,,,u2.npy,", "u3,,dora,u3.npy,val", "u4,,,2.npy,")
    for k in range(4):
        folder.clip(f"u{k}.npy", frames=7)
    folder.manifest("id,label,subject,ir,split", *labelled(folder), *more)
    dataset = folder.open()
    assert isinstance(dataset, PartlyLabelled)
    assert dataset.labels == ("sit", "wave")
    assert [s.id for s in dataset.samples] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert unlabelled_of(dataset)[0] == Sample("u0", "anna", "", "", UNLABELLED)
    assert [s.id for s in dataset.unlabelled] == ["u0", "u1", "u2", "u3", "u4"]
    split = dataset.split("default")
    assert all(s.id.startswith("c") for s in (*split.train, *split.validation, *split.test))
    # carl is tested, however he is spelled; u3 is said to be for validation; u4 is the file of c2, which is tested
    assert [s.id for s in dataset.unlabelled_apart_from(split.test)] == ["u0", "u2"]
    anna = [s for s in dataset.samples if s.subject == "anna"]
    assert [s.id for s in dataset.unlabelled_apart_from([*split.test, *anna])] == ["u2"]
    clip = dataset.open(dataset.unlabelled[0], "ir")
    assert len(clip.frames) == 7
    assert len(dataset.content_key(dataset.unlabelled[0], "ir")) == 64
    report = check(dataset)
    assert report.samples == 6
    assert "5 of 11 rows have no label yet and are used only by dense stages" in report.remarks


def test_a_folder_of_what_nobody_has_labelled(folder: Folder) -> None:
    for label in ("sit", "wave"):
        for k in range(4):
            folder.clip(f"{label}/{k}_ir.npy")
    for k in range(3):
        folder.clip(f"Unlabelled/{k}_ir.npy")
        folder.clip(f"test/unlabelled/{k}_ir.npy")
    dataset = folder.open()
    assert dataset.labels == ("sit", "wave")
    assert len(dataset.samples) == 8
    assert len(dataset.unlabelled) == 6
    assert len(dataset.unlabelled_apart_from(())) == 3
    assert "recordings without a class, used only by dense stages: 6," in " ".join(dataset.remarks())


def test_nothing_but_unlabelled_recordings(folder: Folder) -> None:
    folder.clip("unlabelled/1_ir.npy")
    with pytest.raises(DataError, match="has no labelled recording"):
        folder.open()


def test_other_data_sets_have_none() -> None:
    assert unlabelled_of(Synthetic(clips_per_class=1, subjects=2)) == ()
