from __future__ import annotations

import numpy as np

from kd_edge.runtime.tally import Tally, together
from kd_edge.types import LabelState, Prediction


def prediction(label: str | None, truth: str | None, at_ms: int = 0) -> Prediction:
    state = LabelState.WARMING if label is None else LabelState.OK
    return Prediction(
        source="camera",
        label=label,
        confidence=0.9,
        probabilities=np.zeros(2, np.float32),
        state=state,
        frame_id=0,
        captured_ns=at_ms * 1_000_000,
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


def test_a_change_is_noticed_when_the_first_right_label_follows_it() -> None:
    """The first action is no change; one that nobody noticed has no delay; a label may be right, wrong, right."""
    tally = Tally()
    for label, truth, at_ms in (
        ("clap", "clap", 0), ("clap", "eat", 1000), (None, "eat", 1400), ("eat", "eat", 1500), ("clap", "eat", 1600),
        ("eat", "eat", 1700), ("eat", "wave", 2000), ("eat", "clap", 3000), ("clap", "clap", 3300),
        ("clap", "clap", 6000),
    ):  # fmt: skip
        tally.add(prediction(label, truth, at_ms))
    assert (tally.real_changes, tally.noticed, tally.changes) == (3, 2, 4)
    assert tally.delay_seconds == (0.5 + 0.3) / 2
    assert tally.accuracy == 5 / 9
    assert tally.false_changes_per_minute == 10.0  # one in 6 s
    both = together([tally, tally])
    assert (both.false_changes_per_minute, both.delay_seconds, both.labels) == (10.0, 0.4, 18)


def test_nothing_seen_is_no_division_by_nothing() -> None:
    assert (Tally().accuracy, Tally().false_changes_per_minute, Tally().delay_seconds) == (0.0, 0.0, 0.0)
