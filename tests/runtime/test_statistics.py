"""What is said of a stream when it has ended, camera by camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kd_edge.artifact import BUNDLED
from kd_edge.runtime.statistics import Counts, SourceStatistics, Statistics
from kd_edge.runtime.stream import stream
from kd_edge.types import LabelState, Prediction, Reason


def recordings(folder: Path, **frames: int) -> list[str]:
    """Near-infrared recordings at 30 frames/s, as cameras by name."""
    for name, count in frames.items():
        np.save(folder / f"{name}.npy", np.random.default_rng(0).integers(0, 255, (count, 48, 64), np.uint8))
    return [f"{name}=replay:{folder / name}.npy" for name in frames]


def test_a_recording_shorter_than_the_window_is_told_with_both_lengths(tmp_path: Path) -> None:
    with stream(model=BUNDLED, camera=recordings(tmp_path, a=36, b=150)) as labels:
        assert sum(1 for _ in labels) == 186
    found = labels.statistics
    assert found.sources["a"] == SourceStatistics({"warming": 36}, pytest.approx(1.2, abs=0.01), live=False)
    assert found.sources["b"].seconds == pytest.approx(5.0, abs=0.01)
    assert sum(found.sources["b"].labels.values()) == 150
    assert list(found.too_short(2.0)) == [
        "a is 1.2 s long and the model's window 2.0 s: replay a longer recording, or train for shorter ones, with "
        "clip_seconds = 1.2 in the recipe"
    ]
    assert list(found.too_short(1.0)) == []


def test_one_frame_and_live_cameras() -> None:
    sources = {
        "one": SourceStatistics({"warming": 1}, 0.0, live=False),
        "live": SourceStatistics({"warming": 9}, 0.3, live=True),
        "cut": SourceStatistics({"warming": 90}, 3.0, live=False),  # long enough, but for gaps
        "full": SourceStatistics({"warming": 9, "unknown": 1}, 1.0, live=False),
    }
    counted = Statistics(*[0] * 9, {}, {}, 0.0, {}, 0, 0, sources=sources)  # type: ignore[arg-type]
    assert [text.partition(" s long")[0] for text in counted.too_short(2.0)] == ["one is 0.0"]


def test_another_threads_look_makes_no_entry_that_labels_are_then_lost_in() -> None:
    counts = Counts()
    assert counts.of("ir0", live=True) == SourceStatistics({}, 0.0, live=True)
    assert not counts.sources
    late = Prediction(
        source="ir0",
        probabilities=np.zeros(2, np.float32),
        state=LabelState.STALE,
        frame_id=0,
        captured_ns=1,
        emitted_ns=2,
        valid_until_ns=3,
        reason=Reason.LATE,
    )
    counts.count(late)
    counts.sources["ir0"].see(late.captured_ns)
    assert counts.of("ir0", live=True).labels == counts.labels == {"stale": 1}
    assert counts.reasons == {"late": 1}
    counts.count(late, -1)  # it became another one while it waited
    assert counts.of("ir0", live=True).labels == {}
