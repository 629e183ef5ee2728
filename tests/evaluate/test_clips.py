"""Figures against answers worked out by hand; the whole way is in test_cli."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kd_edge import artifact, metrics
from kd_edge.data import Sample, Split, SyntheticData, open_dataset
from kd_edge.engines import open_engine
from kd_edge.errors import ArtifactError, DataError
from kd_edge.evaluate import clips as evaluate
from kd_edge.evaluate.clips import different_labels
from kd_edge.models import ModelConfig
from kd_edge.models.saved import SavedStudent
from kd_edge.types import Clip
from tests.runs import write_run


def test_the_figures_of_answers_are_those_worked_out_by_hand() -> None:
    """Four clips of three classes; probabilities 0.8, 0.1, 0.1 and the like at temperature 1."""
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    logits, truth = np.log(probabilities).astype(np.float32), np.array([0, 1, 1, 2])
    score = evaluate.clip_score(logits, truth, 1.0)
    assert (score.clips, score.accuracy, score.top5) == (4, 0.75, 1.0)
    assert score.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert score.map == pytest.approx(1.0)  # class by class the right clips rank first
    assert score.ece == pytest.approx((0.2 + 2 * 0.3 + 0.6) / 4, abs=1e-6)  # 0.7 twice, both right
    softer = evaluate.clip_score(logits, truth, 100.0)
    assert softer.accuracy == 0.75
    assert softer.ece == pytest.approx(0.75 - 1 / 3, abs=0.01)  # all confidences are near a third


def test_the_average_precision_of_a_class_falls_with_a_wrong_clip_above_a_right_one() -> None:
    probabilities = np.array([[0.8, 0.2], [0.9, 0.1], [0.3, 0.7]])
    score = evaluate.clip_score(np.log(probabilities).astype(np.float32), np.array([0, 1, 1]), 1.0)
    assert score.map == pytest.approx((1 / 2 + (1 + 2 / 3) / 2) / 2)


def test_the_figures_are_those_of_a_summary() -> None:
    """Of an absent class's answer, too; one function gives both."""
    logits = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    truth = np.random.default_rng(1).integers(0, 5, 40)  # class 5 is never true
    assert 5 in logits.argmax(1)
    names = tuple("abcdef")
    score, figures = evaluate.clip_score(logits, truth, 1.5), metrics.figures(logits, truth, names, temperature=1.5)
    for name in ("accuracy", "macro_f1", "top5", "map", "ece"):
        assert getattr(score, name) == figures[name], name


@pytest.mark.slow
def test_confusion_and_figures_come_out_of_an_evaluation(tmp_path: Path) -> None:
    """The bundled student on a few generated clips: the figures must agree with each other."""
    bundled = artifact.load(artifact.BUNDLED)
    data = {"kind": "synthetic", "clips_per_class": 4, "subjects": 4, "seed": 3}
    manifest = bundled.manifest.model_copy(update={"dataset": data})
    few = artifact.Artifact(bundled.path, manifest, None)
    seen: list[tuple[int, int]] = []
    result = evaluate.judged(
        evaluate.Evaluated(few, *evaluate.recordings_of(few, None, None)),
        "few",
        streaming=True,
        orders=2,
        progress=lambda *told: seen.append(told),
    )
    assert seen == [(k, 30) for k in range(1, 31)], "clip by clip with the stream, and two orders"
    assert result.streaming is not None
    assert [order.every.clips for order in result.orders] == [result.streaming.every.clips] * 2 == [10, 10]
    assert result.engine.startswith("onnxruntime ")
    counts = np.array(result.confusion)
    assert counts.shape == (10, 10)
    assert counts.sum() == result.clip.clips == 10
    assert np.trace(counts) / 10 == result.clip.accuracy
    assert result.per_class == {n: float(counts[i, i]) for i, n in enumerate(manifest.labels)}  # one clip each
    assert result.clip.accuracy <= result.clip.top5 <= 1
    assert 0 <= result.clip.ece <= 1
    assert result.clip.map >= 0.5  # it is trained


def test_the_clip_answer_is_the_engines_own_on_the_sampled_frames() -> None:
    bundled = artifact.load(artifact.BUNDLED)
    assert bundled.golden is not None
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (8, 120, 160), dtype=np.uint8)
    clip = Clip(frames, np.arange(8, dtype=np.int64) * 290_000_000)
    with open_engine(bundled) as engine:
        first = evaluate.clip_logits(engine, clip, bundled.manifest)
        again = evaluate.clip_logits(engine, clip, bundled.manifest)
        other = evaluate.clip_logits(engine, Clip(frames[::-1].copy(), clip.stamps_ns), bundled.manifest)
    np.testing.assert_array_equal(first, again)  # nothing is left over from the clip before
    assert np.abs(first - other).max() > 1e-3  # the order of the frames matters to this head


def test_a_model_without_a_data_set_is_refused(tmp_path: Path) -> None:
    bundled = artifact.load(artifact.BUNDLED)
    manifest = bundled.manifest.model_copy(update={"dataset": {}})
    anonymous = artifact.Artifact(bundled.path, manifest, None)
    with pytest.raises(ArtifactError, match="which data set it was trained on"):
        evaluate.recordings_of(anonymous, None, None)


def test_unreadable_clips_are_named_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(SyntheticData(clips_per_class=4, subjects=4))
    split = dataset.split("subjects")
    broken = split.test[3]
    original = type(dataset).open

    def fails(self: object, sample: Sample, modality: str) -> Clip:
        if sample == broken:
            raise evaluate.DataError("damaged file", "a good one", "fetch it")
        return original(self, sample, modality)  # type: ignore[arg-type]

    monkeypatch.setattr(type(dataset), "open", fails)
    skipped: dict[str, str] = {}
    read = [sample for sample, _ in evaluate.clips_of(dataset, split, "nir", skipped)]
    assert skipped == {broken.id: "damaged file"}
    assert len(read) == len(split.test) - 1
    assert [s.subject for s in read] == sorted(s.subject for s in read)


@pytest.mark.slow
def test_a_student_that_cannot_stream_is_judged_by_its_clips(tmp_path: Path) -> None:
    """A TSM in both directions: its run, and a clip graph of it, give the trained model's answers."""
    run = write_run(tmp_path / "run", model=ModelConfig(backbone="resnet10_thin", temporal="tsm"))
    result = evaluate.evaluate(run)
    student = SavedStudent.load(run)
    dataset = open_dataset(student.spec.data)
    right = []
    for sample in dataset.split("subjects").test:
        clip = torch.from_numpy(student.network_input(dataset.open(sample, "nir")))[None]
        with torch.inference_mode():
            right.append(int(student.model(clip).argmax()) == sample.label)
    assert result.clip.clips == len(right) == 10
    assert result.clip.accuracy == pytest.approx(np.mean(right))
    with pytest.raises(ArtifactError, match=r"TSM in both directions.*temporal = 'tsm_causal'"):
        evaluate.evaluate(run, streaming=True)


def test_a_split_whose_test_clips_were_trained_on_is_refused() -> None:
    data = open_dataset(SyntheticData(clips_per_class=4, subjects=4))

    class Crossed:
        """The training side of the data set's protocol under another name, as a test side."""

        def split(self, name: str) -> Split:
            ours = data.split("subjects")
            return ours if name == "subjects" else Split(name, ours.test, ours.train[:7] + ours.test[:2])

    with pytest.raises(DataError, match="7 of the 9 test clips of split 'crossed' are training clips of 'subjects'"):
        evaluate._check_unseen(Crossed(), "crossed", "subjects")  # type: ignore[arg-type]
    evaluate._check_unseen(Crossed(), "subjects", "subjects")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "dataset", "expected"),
    [
        ("wave kick", "wave jump", "'kick' of the model alone, 'jump' of the data set alone"),
        ("wave kick", "wave kick none", "'none' of the data set alone"),
        ("wave kick sit", "wave sit kick", "label 1 is 'kick' of the model and 'sit' of the data set"),
    ],
)
def test_labels_that_differ_are_named(model: str, dataset: str, expected: str) -> None:
    assert different_labels(model.split(), dataset.split()) == expected
