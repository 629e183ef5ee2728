"""Scores against answers worked out by hand; the whole way is in test_cli."""

from pathlib import Path

import numpy as np
import pytest

from kd_edge import artifact, evaluate
from kd_edge.data import Sample, SyntheticData, open_dataset
from kd_edge.engines import open_engine
from kd_edge.errors import ArtifactError
from kd_edge.types import Clip


def test_a_clip_without_a_label_is_wrong_and_no_classs_prediction() -> None:
    score = evaluate._score(np.array([0, 1, 1]), np.array([0, -1, 1]), 3)
    assert score.clips == 3
    assert score.accuracy == pytest.approx(2 / 3)
    assert score.macro_f1 == pytest.approx((1 + 2 / 3) / 2)  # class 2 has no sample


def test_clips_are_joined_into_one_stream_and_the_last_label_counts() -> None:
    bundled = artifact.load(artifact.BUNDLED)
    dataset = open_dataset(SyntheticData(clips_per_class=4, subjects=4, seed=11))
    samples = [s for s in dataset.samples if s.subject == dataset.samples[0].subject][:4]
    stream = evaluate._Stream(bundled, threads=1)
    clips = [dataset.open(sample, "nir") for sample in samples]
    for sample, clip in zip(samples, clips, strict=True):
        stream.watch(sample, clip)
    score = stream.score()
    assert score.every.clips == 4
    assert score.frames == sum(len(clip) for clip in clips)
    window = bundled.manifest.clip_seconds
    shorter = sum(len(clip) / 30 < window - 1e-9 for clip in clips)
    assert (0 if score.shorter is None else score.shorter.clips) == shorter
    assert score.unlabelled <= 1  # only the first clip can end before the window is full


def test_the_clip_answer_is_the_engines_own_on_the_sampled_frames() -> None:
    bundled = artifact.load(artifact.BUNDLED)
    assert bundled.golden is not None
    binding = open_engine(bundled).bind(1)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (8, 120, 160), dtype=np.uint8)
    clip = Clip(frames, np.arange(8, dtype=np.int64) * 290_000_000)
    first = evaluate.clip_logits(binding, clip, bundled.manifest)
    again = evaluate.clip_logits(binding, clip, bundled.manifest)
    np.testing.assert_array_equal(first, again)  # nothing is left over from the clip before
    other = evaluate.clip_logits(binding, Clip(frames[::-1].copy(), clip.stamps_ns), bundled.manifest)
    assert np.abs(first - other).max() > 1e-3  # the order of the frames matters to this head


def test_a_model_without_a_data_set_is_refused(tmp_path: Path) -> None:
    bundled = artifact.load(artifact.BUNDLED)
    manifest = bundled.manifest.model_copy(update={"dataset": {}})
    anonymous = artifact.Artifact(bundled.path, manifest, None)
    with pytest.raises(ArtifactError, match="which data set it was trained on"):
        evaluate._recordings(anonymous, None, None)


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
    read = [sample for sample, _ in evaluate._clips(dataset, split, "nir", skipped)]
    assert skipped == {broken.id: "damaged file"}
    assert len(read) == len(split.test) - 1
    assert [s.subject for s in read] == sorted(s.subject for s in read)
