"""One number for a label stream."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from kd_edge.runtime.label_hash import LabelHash
from kd_edge.types import LabelState, Prediction, Reason

FIRST = Prediction(
    source="ir0", label="wave", index=0, confidence=0.75, probabilities=np.array([0.75, 0.25], np.float32),
    state=LabelState.OK, frame_id=7, captured_ns=10, emitted_ns=12, valid_until_ns=99,
)  # fmt: skip
SECOND = replace(FIRST, frame_id=8, captured_ns=20)


def of(*predictions):
    made = LabelHash()
    for prediction in predictions:
        made.add(prediction)
    return made


def test_it_is_a_known_number():
    """The bytes that are hashed are part of the format: recordings keep the number."""
    text = b"".join(len(t).to_bytes(4, "little") + t for t in (b"ok", b"wave", b""))
    numbers = (7).to_bytes(8, "little") + (10).to_bytes(8, "little") + (0).to_bytes(4, "little")

    known = hashlib.sha256(text + numbers + np.array([0.75, 0.25], "<f4").tobytes()).hexdigest()
    assert of(FIRST).hexdigest() == known
    assert of().hexdigest() == ""


@pytest.mark.parametrize(
    "change",
    [
        {"label": "clap"}, {"label": None}, {"index": 1}, {"state": LabelState.DEGRADED}, {"reason": Reason.DARK},
        {"frame_id": 9}, {"captured_ns": 11},
        {"probabilities": np.array([np.nextafter(np.float32(0.75), np.float32(1)), 0.25], np.float32)},
    ],
)  # fmt: skip
def test_what_a_robot_acts_on_counts(change):
    assert of(replace(FIRST, **change)).hexdigest() != of(FIRST).hexdigest()


@pytest.mark.parametrize(
    "change",
    [{"emitted_ns": 13}, {"valid_until_ns": 98}, {"truth": "clap"}, {"detail": "new words"}, {"source": "ir1"}],
)
def test_the_moment_of_reading_and_the_words_do_not(change):
    assert of(replace(FIRST, **change)).hexdigest() == of(FIRST).hexdigest()


def test_sources_may_take_turns_in_any_order():
    other = replace(FIRST, source="ir1")
    assert of(FIRST, other, SECOND).hexdigest() == of(FIRST, SECOND, other).hexdigest()
    assert of(FIRST, SECOND).hexdigest() != of(SECOND, FIRST).hexdigest()
    assert list(of(other, FIRST).by_source) == ["ir0", "ir1"]
    assert of(other, FIRST).by_source["ir0"] == of(FIRST).hexdigest()
