"""Scores of a recording whose labels are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kd_edge.errors import DataError
from kd_edge.evaluate.recordings import ClassScore, Truth, _Scoring, evaluate_recording, read_truths
from kd_edge.runtime import Recognizer, stream
from kd_edge.types import LabelState, Prediction
from tests.runtime.conftest import make_model, noise  # noqa: F401 - fixtures

KNOWN = ("wave", "clap", "throw")


def said(seconds, label, truth=None):
    return Prediction(
        source="ir0", label=label, probabilities=np.zeros(3, np.float32), frame_id=0, emitted_ns=None, valid_until_ns=0,
        state=LabelState.UNKNOWN if label is None else LabelState.OK, captured_ns=5 * 10**9 + round(seconds * 1e9),
        truth=truth,
    )  # fmt: skip


def scored(predictions, truths=None):
    score = _Scoring(truths)
    for prediction in predictions:
        score.add(prediction)
    return score


def test_frames_are_judged_by_the_interval_they_lie_in():
    truths = [Truth(1.0, 2.0, "wave"), Truth(2.0, 3.0, "clap")]
    labels = [None, None, "wave", "throw", "wave", "clap", "throw", None]  # at 0, 0.5, ... 3.5 s
    score = scored([said(k / 2, label) for k, label in enumerate(labels)], truths)
    assert score.classes() == {"wave": ClassScore(2, 2, 1), "clap": ClassScore(2, 2, 1)}
    assert (score.tally.labels, score.tally.right, score.tally.real_changes, score.tally.noticed) == (4, 2, 1, 1)
    assert score.tally.delay_ns == 500_000_000
    assert score.states == {"unknown": 3, "ok": 5}
    assert score.seconds == 3.5


def test_recorded_truth_is_taken_unless_a_file_says_otherwise():
    predictions = [said(0, "wave", "clap"), said(1, "clap", "clap"), said(2, None, "wave")]
    assert scored(predictions).classes() == {"clap": ClassScore(2, 2, 1), "wave": ClassScore(1, 0, 0)}
    assert scored(predictions, [Truth(0, 1, "wave")]).classes() == {"wave": ClassScore(1, 1, 1)}


def test_truths_are_sorted_and_read_from_spreadsheets(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b'\xef\xbb\xbflabel,note,start_s,end_s\r\nclap,a,2.5,3\r\nwave,"b\r\nc",0,2.5\r\n')
    assert read_truths(path, KNOWN) == [Truth(0.0, 2.5, "wave"), Truth(2.5, 3.0, "clap")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "it has no rows"),
        ("start_s,end_s\n1,2\n", "it has no column label"),
        ("start_s,end_s,label\n1,2,wave\n1.5,3,clap\n", r"two intervals overlap at 1\.5 s"),
        ("start_s,end_s,label\n2,1,wave\n", "line 2: from 2 to 1 s"),
        ("start_s,end_s,label\n-1,1,wave\n", "line 2: from -1 to 1 s"),
        ("start_s,end_s,label\n0,inf,wave\n", "line 2: from 0 to inf s"),
        ("start_s,end_s,label\n0,nan,wave\n", "line 2: from 0 to nan s"),
        ("start_s,end_s,label\n0,,wave\n", "not numbers"),
        ("start_s,end_s,label\n0,1\n", "label '', which"),
        ("start_s,end_s,label\n0,1,wavee\n", r"'wavee', which the model does not know \(did you mean 'wave'\?\)"),
    ],
)
def test_faulty_labels_are_one_line(tmp_path, text, found):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=found) as fault:
        read_truths(path, KNOWN)
    assert "\n" not in str(fault.value)


@pytest.fixture
def recording(make_model, noise, tmp_path):  # noqa: F811
    """A recording without truth, and what the model says of it."""
    model, _ = make_model()
    np.save(tmp_path / "clip.npy", noise(40))
    with stream(model=model, camera=f"replay:{tmp_path}/clip.npy", record=tmp_path / "a.mcap") as labels:
        given = list(labels)
    return model, tmp_path / "a.mcap", given, labels.label_hash.hexdigest()


def test_a_recording_is_scored_by_the_labels_of_the_stream(recording, tmp_path):
    model, path, given, digest = recording
    with pytest.raises(DataError, match=r"nothing tells what was done in .*a\.mcap"):
        evaluate_recording(model, str(path))
    (tmp_path / "labels.csv").write_text("start_s,end_s,label\n0,10,wave\n")
    score = evaluate_recording(model, str(path), labels=tmp_path / "labels.csv")
    labels = [p.label for p in given if p.label is not None]
    assert (score.frames, score.judged, score.labelled) == (40, 40, len(labels))
    assert score.live.accuracy == labels.count("wave") / len(labels)
    assert (score.labels_sha256, score.fault) == (digest, "")
    assert score.seconds == pytest.approx(1.3)


def test_a_recording_that_breaks_off_is_scored_up_to_there(recording, tmp_path):
    model, path, _, _ = recording
    path.write_bytes(path.read_bytes()[:-400])  # the summary is not whole
    (tmp_path / "labels.csv").write_text("start_s,end_s,label\n0,10,wave\n")
    score = evaluate_recording(model, str(path), labels=tmp_path / "labels.csv")
    assert score.frames == 40
    assert "breaks off" in score.fault
    assert Recognizer.load(model).manifest.name == score.model
