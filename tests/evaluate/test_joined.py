"""Clips joined into a stream; the whole way is in test_cli."""

import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.data import SyntheticData, open_dataset
from kd_edge.evaluate import joined


def test_a_clip_without_a_label_is_wrong_and_no_classs_prediction() -> None:
    score = joined.score_of(np.array([0, 1, 1]), np.array([0, -1, 1]), 3)
    assert score.clips == 3
    assert score.accuracy == pytest.approx(2 / 3)
    assert score.macro_f1 == pytest.approx((1 + 2 / 3) / 2)  # class 2 has no sample


def test_an_answer_of_an_absent_class_counts_as_in_a_summary() -> None:
    labels, guesses = np.array([0, 0]), np.array([0, 3])
    assert joined.score_of(labels, guesses, 4) == joined.Score(2, 0.5, pytest.approx(1 / 3))
    assert joined.score_of(labels, np.array([-1, -1]), 4) == joined.Score(2, 0.0, 0.0)


@pytest.mark.slow
def test_clips_are_joined_into_one_stream_and_the_last_label_counts() -> None:
    bundled = artifact.load(artifact.BUNDLED)
    dataset = open_dataset(SyntheticData(clips_per_class=4, subjects=4, seed=11))
    samples = [s for s in dataset.samples if s.subject == dataset.samples[0].subject][:4]
    stream = joined.JoinedStream(bundled, threads=1)
    clips = [dataset.open(sample, "nir") for sample in samples]
    for sample, clip in zip(samples, clips, strict=True):
        stream.watch(sample, clip)
    score = stream.score()
    assert score.every.clips == 4
    assert score.frames == sum(len(clip) for clip in clips)
    assert score.frame is not None
    assert 0 < score.frame.median_ms <= score.frame.p99_ms
    assert score.frame.period_ms == pytest.approx(1000 / 30, rel=1e-6)
    assert score.frame.threads == 1
    window = bundled.manifest.clip_seconds
    shorter = sum(len(clip) / 30 < window - 1e-9 for clip in clips)
    assert (0 if score.shorter is None else score.shorter.clips) == shorter
    assert score.unlabelled <= 1  # only the first clip can end before the window is full
