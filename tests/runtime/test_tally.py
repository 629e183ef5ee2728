from __future__ import annotations

import numpy as np

from kd_edge.runtime.tally import Tally
from kd_edge.types import LabelState, Prediction


def prediction(label: str | None, truth: str | None) -> Prediction:
    state = LabelState.WARMING if label is None else LabelState.OK
    return Prediction(
        source="camera",
        label=label,
        confidence=0.9,
        probabilities=np.zeros(2, np.float32),
        state=state,
        frame_id=0,
        captured_ns=0,
        emitted_ns=None,
        valid_until_ns=0,
        truth=truth,
    )


def test_changes_are_counted_between_labels_and_between_truths() -> None:
    """Frames without a label neither change it nor hide that the truth has changed."""
    tally = Tally()
    for label, truth in (
        (None, "clap"), ("clap", "clap"), ("eat", "clap"), (None, "clap"), ("eat", "clap"),
        (None, "eat"), ("eat", "eat"), ("clap", "eat"),
    ):  # fmt: skip
        tally.add(prediction(label, truth))
    assert (tally.labels, tally.right, tally.changes, tally.real_changes) == (5, 2, 2, 1)


def test_without_a_known_truth_nothing_is_counted() -> None:
    tally = Tally()
    for label in ("clap", "eat"):
        tally.add(prediction(label, None))
    assert (tally.labels, tally.changes) == (0, 0)
