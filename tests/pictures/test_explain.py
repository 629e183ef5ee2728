"""Explaining samples of a run: which, where the pictures go, and what a mistake says."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd_edge.data import Sample, open_dataset
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.errors import ConfigError, DataError, ExportError, KdEdgeError
from kd_edge.models.saved import SavedStudent
from kd_edge.pictures.cam import draw_cam
from kd_edge.pictures.explain import _draw_curves, explain, folder_name, wrong_views
from kd_edge.pictures.view import look
from kd_edge.rundir import METRICS, Protocol
from tests.pictures.conftest import picture, view_of
from tests.pictures.runs import DATA, write_student

PICTURES = ("cam.png", "gaf.png", "curves.png")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Samples whose images were decoded, in order."""
    ids: list[str] = []
    decode = Synthetic.open

    def watched(self: Synthetic, sample: Sample, modality: str) -> Any:
        if modality == "nir":
            ids.append(sample.id)
        return decode(self, sample, modality)

    monkeypatch.setattr(Synthetic, "open", watched)
    return ids


@pytest.mark.slow
def test_one_sample_goes_where_it_is_told_and_several_into_folders(tmp_path: Path) -> None:
    run = write_student(tmp_path / "run", epochs=3)
    first, second = (sample.id for sample in open_dataset(DATA).samples[:2])
    (one,) = explain(run, [first], out=tmp_path / "one")
    assert one.folder == tmp_path / "one"
    assert one.pictures == PICTURES
    assert set(one.skipped) == {"gsdm.png", "gsdm-teachers.png"}
    assert sorted(p.name for p in one.folder.iterdir()) == sorted(PICTURES)
    for name in PICTURES:
        picture(one.folder / name)
    several = list(explain(run, [first, second, first], out=tmp_path / "two"))
    assert [each.folder for each in several] == [tmp_path / "two" / first, tmp_path / "two" / second]
    assert (picture(several[0].folder / "cam.png") == picture(one.folder / "cam.png")).all()
    assert (picture(several[1].folder / "cam.png") != picture(one.folder / "cam.png")).any()
    view = view_of(run)
    assert one.true == view.dataset.labels[view.sample.label]
    assert one.probability == pytest.approx(float(view.probabilities.max()))


@pytest.mark.slow
def test_pictures_go_into_the_run_by_default(tmp_path: Path) -> None:
    run = write_student(tmp_path / "run")
    sample = open_dataset(DATA).samples[3].id
    (one,) = explain(run, [sample])
    assert one.folder == run / "explain" / sample
    assert one.pictures == ("cam.png", "gaf.png")
    assert one.skipped["curves.png"] == "the run has no metrics.jsonl"


def test_a_sample_is_seen_as_in_an_evaluation(run: Path) -> None:
    view = view_of(run, 5)
    student = SavedStudent.load(run)
    clip = view.dataset.open(view.sample, "nir")
    inputs = student.network_input(clip)
    np.testing.assert_array_equal(view.inputs, inputs)
    with torch.no_grad():
        logits = student.model(torch.from_numpy(inputs)[None])[0].double()
    np.testing.assert_allclose(view.probabilities, (logits / 1.5).softmax(0).numpy(), rtol=1e-5)
    assert view.frames.shape == (4, 32, 32, 3)
    assert view.stamps == [f"{clip.stamps_ns[i] / 1e9:.2f} s" for i in view.at]
    split = view.dataset.split("subjects")
    assert view.side == ("training clip" if view.sample in split.train else "test clip")
    assert view.sample.id in view.title


@pytest.mark.slow
def test_mistakes_are_found_in_the_order_of_an_evaluation(run: Path, opened: list[str]) -> None:
    student = SavedStudent.load(run)
    dataset = open_dataset(DATA)
    test = sorted(dataset.split("subjects").test, key=lambda s: (s.subject, s.view, s.id))
    wrong = [sample.id for sample in test if not look(student, dataset, sample).correct]
    assert 3 < len(wrong) <= len(test)  # random weights
    opened.clear()
    seen: list[tuple[int, int]] = []
    found = [view.sample.id for view in wrong_views(student, dataset, 2, lambda *done: seen.append(done))]
    assert found == wrong[:2]
    upto = [sample.id for sample in test].index(wrong[1]) + 1
    assert opened == [sample.id for sample in test[:upto]]  # one at a time, none ahead
    assert seen == [(k, len(test)) for k in range(1, upto + 1)]
    assert [view.sample.id for view in wrong_views(student, dataset, 1000)] == wrong
    assert not list(wrong_views(student, dataset, 0))


@pytest.mark.slow
def test_mistakes_come_after_the_samples_asked_for_and_not_twice(run: Path, tmp_path: Path) -> None:
    student, dataset = SavedStudent.load(run), open_dataset(DATA)
    wrong = [view.sample.id for view in wrong_views(student, dataset, 2)]
    explained = list(explain(run, [wrong[1]], wrong=2, out=tmp_path))
    assert [one.sample for one in explained] == [wrong[1], wrong[0]]
    assert all(one.folder == tmp_path / one.sample for one in explained)
    assert all(one.predicted != one.true and one.side == "test clip" for one in explained)


def test_unreadable_test_clips_are_passed_over(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student, dataset = SavedStudent.load(run), open_dataset(DATA)
    first, second = (view.sample.id for view in wrong_views(student, dataset, 2))
    decode = Synthetic.open

    def damaged(self: Synthetic, sample: Sample, modality: str) -> Any:
        if sample.id == first:
            raise DataError(f"{sample.id}_ir.avi is damaged", "a video", "fetch it")
        return decode(self, sample, modality)

    monkeypatch.setattr(Synthetic, "open", damaged)
    assert [view.sample.id for view in wrong_views(student, dataset, 1)] == [second]
    with pytest.raises(DataError, match=r"_ir\.avi is damaged"):
        list(explain(run, [first]))


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (["a1_s1_t1", "a1_s1_t0"], DataError, r"synthetic has no sample 'a1_s1_t0' \(did you mean 'a1_s1_t1'\?\)"),
        (["a9_s9_t9"], DataError, r"sample 'a9_s9_t9' of synthetic is not here: a9_s9_t9_ir\.avi ends after 3 frames"),
        ([], ConfigError, "--sample ID or --wrong N"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_drawn(
    run: Path, tmp_path: Path, samples: list[str], error: type[KdEdgeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(explain(run, samples, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_explained(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no run"):
        list(explain(tmp_path / "gone", ["a1_s1_t1"]))
    run = write_student(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "recipe": {"kind": "tstdds"}}))
    with pytest.raises(DataError, match="is of the classical method 'tstdds', which has no network"):
        list(explain(run, ["a1_s1_t1"]))
    (run / "summary.json").write_text(json.dumps({**summary, "complete": False}))
    with pytest.raises(ExportError, match="is not finished"):
        list(explain(run, ["a1_s1_t1"]))


def test_ids_become_folder_names() -> None:
    names = [folder_name(Sample(name, "1", "v", "1", 0)) for name in ("a1_s1_t1", "cam 1/s2\\x", "../up", "..")]
    assert names == ["a1_s1_t1", "cam_1_s2_x", "_up", "_"]


@pytest.mark.parametrize("temporal", ["tsn", "trn", "tsm", "tsm_causal"])
def test_every_kind_of_student_has_maps(temporal: str, tmp_path: Path) -> None:
    view = view_of(write_student(tmp_path / "run", temporal=temporal))
    draw_cam(view, tmp_path / "last.png")
    draw_cam(view, tmp_path / "early.png", "backbone.layer2")
    assert (picture(tmp_path / "last.png") != picture(tmp_path / "early.png")).any()


@pytest.mark.slow
def test_recordings_are_let_go_one_by_one(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[weakref.ref[np.ndarray]] = []
    decode = Synthetic.open

    def watched(self: Synthetic, sample: Sample, modality: str) -> Any:
        clip = decode(self, sample, modality)
        if modality == "nir":
            decoded.append(weakref.ref(clip.frames))
        return clip

    monkeypatch.setattr(Synthetic, "open", watched)
    for number, _ in enumerate(explain(run, wrong=2, out=tmp_path), start=1):
        assert len(decoded) >= number
        assert not [ref for ref in decoded if ref() is not None]


def test_a_held_out_clip_is_a_validation_clip(run: Path) -> None:
    student, dataset = SavedStudent.load(run), open_dataset(DATA)
    split = dataset.split("subjects")
    sample, test = split.train[0], split.test[0]
    view = look(student, dataset, sample)

    def held_out(**protocol: list[str]) -> SavedStudent:
        return replace(student, summary=student.summary.model_copy(update={"protocol": Protocol(**protocol)}))

    def side(sample: Sample, **protocol: list[str]) -> str:
        return replace(view, student=held_out(**protocol), sample=sample).side

    assert side(sample, validation_subjects=[sample.subject]) == "validation clip"
    assert side(sample, validation_trials=[sample.trial]) == "validation clip"
    assert side(sample, validation_subjects=["nobody"], validation_trials=[]) == "training clip"
    assert side(test, validation_trials=[test.trial]) == "test clip", "whatever else it is"
    assert "(validation clip)" in replace(view, student=held_out(validation_subjects=[sample.subject])).title


def test_damaged_metrics_cost_their_picture_only(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text("[]\n")
    why = _draw_curves(tmp_path, tmp_path / "curves.png")
    assert why.startswith(f"line 1 of {tmp_path / METRICS} is damaged (")
    assert [path.name for path in tmp_path.iterdir()] == [METRICS]
