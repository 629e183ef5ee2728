"""Intervals from probabilities, against answers worked out by hand and by plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kd_edge.detection import Detection
from kd_edge.errors import DataError
from kd_edge.evaluate.spotting import Spotting, VideoScores, moving_mean, runs, spot, suppress, write_proposals
from kd_edge.files import check_free

PLAIN = Spotting(smooth_seconds=0, gap_seconds=0, shortest_seconds=0)


def scores(*columns: list[float], seconds: float = 1.0, fps: float = 10.0) -> VideoScores:
    """One window length; a column of probabilities per class, ten frames a second."""
    table = np.array(columns, dtype=np.float32).T
    stamps = np.round(np.arange(len(table)) * 1e9 / fps).astype(np.int64)
    return VideoScores(stamps, (np.ascontiguousarray(table),), (seconds,))


def found(video: list[Detection]) -> list[tuple[int, float, float, float]]:
    return [(d.label, d.start, d.end, pytest.approx(d.score, abs=1e-6)) for d in video]


# ------------------------------------------------------------------------------------------------------- pieces


def test_stretches_and_their_gaps() -> None:
    on = np.array([0, 1, 1, 0, 1, 0, 0, 1, 0], dtype=bool)
    assert runs(on, 0) == [(1, 2), (4, 4), (7, 7)]
    assert runs(on, 1) == [(1, 4), (7, 7)]
    assert runs(on, 2) == [(1, 7)]
    assert runs(np.zeros(5, dtype=bool), 3) == []
    assert runs(np.ones(4, dtype=bool), 0) == [(0, 3)]
    assert runs(np.zeros(0, dtype=bool), 0) == []


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 5))
@settings(deadline=None)
def test_stretches_are_those_of_a_plain_loop(on: list[bool], gap: int) -> None:
    expected: list[list[int]] = []
    for position, value in enumerate(on):
        if value and expected and position - expected[-1][1] - 1 <= gap:
            expected[-1][1] = position
        elif value:
            expected.append([position, position])
    assert runs(np.array(on, dtype=bool), gap) == [tuple(e) for e in expected]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), st.sampled_from([1, 3, 5, 99]))
@settings(deadline=None)
def test_the_moving_mean_is_that_of_a_plain_loop(values: list[float], frames: int) -> None:
    expected = [np.mean(values[max(0, i - frames // 2) : i + frames // 2 + 1]) for i in range(len(values))]
    table = np.array(values, dtype=np.float32)[:, None].repeat(2, axis=1)
    np.testing.assert_allclose(moving_mean(table, frames), np.array(expected)[:, None].repeat(2, axis=1), atol=1e-6)


def test_of_overlapping_proposals_the_better_one_of_a_class_stays() -> None:
    best = Detection("v", 0, 10, 20, 0.9)
    inside = Detection("v", 0, 12, 20, 0.8)  # overlap 8 / 10
    beside = Detection("v", 0, 17, 27, 0.7)  # overlap 3 / 17
    other_class = Detection("v", 1, 10, 20, 0.6)
    other_video = Detection("w", 0, 10, 20, 0.5)
    given_order = [other_video, beside, inside, best, other_class]
    assert suppress(given_order, 0.4) == [best, beside, other_class, other_video]
    assert suppress(given_order, 0.8) == [best, inside, beside, other_class, other_video]  # "more" than the bound
    assert suppress(given_order, 0.17) == [best, other_class, other_video]


# ---------------------------------------------------------------------------------------------------- proposals


def test_a_run_is_cut_back_to_half_of_its_peak() -> None:
    rising = [0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 0.8, 0.8, 0.5, 0.3, 0.1, 0]
    other = [0.05] * 13
    assert found(spot("v", scores(rising, other), PLAIN)) == [(0, 4, 9, (0.4 + 0.6 + 3 * 0.8 + 0.5) / 6)]
    whole = PLAIN.model_copy(update={"edge": 0.0})
    assert found(spot("v", scores(rising), whole)) == [(0, 1, 11, np.mean(rising[1:12]))]


@pytest.mark.parametrize("length", [11, 20, 33])
def test_a_window_that_answers_in_proportion_finds_the_ends_exactly(length: int) -> None:
    truth = np.zeros(80)
    truth[25 : 25 + length] = 1
    answer = np.convolve(truth, np.ones(11) / 11, mode="same")  # windows of 11 frames around each frame
    (only,) = spot("v", scores(list(answer)), PLAIN)
    assert (only.start, only.end) == (25, 25 + length - 1)


def test_two_peaks_above_the_threshold_are_two_actions_when_the_dip_is_deep_and_long() -> None:
    twice = [0.8] * 5 + [0.3] * 4 + [0.8] * 5
    assert [(d.start, d.end) for d in spot("v", scores(twice), PLAIN)] == [(0, 4), (9, 13)]
    bridged = PLAIN.model_copy(update={"gap_seconds": 0.4})
    assert [(d.start, d.end) for d in spot("v", scores(twice), bridged)] == [(0, 13)]


def test_short_runs_are_dropped_and_one_frame_is_never_an_interval() -> None:
    column = [0, 0.9, 0, 0, 0.9, 0.9, 0.9, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9]
    assert [(d.start, d.end) for d in spot("v", scores(column), PLAIN)] == [(4, 6), (9, 13)]
    longer = PLAIN.model_copy(update={"shortest_seconds": 0.5})
    assert [(d.start, d.end) for d in spot("v", scores(column), longer)] == [(9, 13)]


def test_windows_propose_themselves_and_only_the_best_one_stays() -> None:
    column = [0.0] * 20
    column[9:12] = [0.3, 0.7, 0.4]
    column[18] = 0.2
    chosen = PLAIN.model_copy(update={"proposals": "windows"})
    # windows of 8 frames: 4 to either side of their middle, cut off where the video ends
    assert found(spot("v", scores(column, seconds=0.8), chosen)) == [(0, 6, 14, 0.7), (0, 14, 19, 0.2)]


def test_several_window_lengths_compete() -> None:
    short, long = np.zeros((40, 1), dtype=np.float32), np.zeros((40, 1), dtype=np.float32)
    short[18:23], long[10:31] = 0.6, 0.8
    stamps = np.arange(40, dtype=np.int64) * 100_000_000
    both = VideoScores(stamps, (short, long), (0.5, 2.0))
    loose = PLAIN.model_copy(update={"overlap": 0.1})
    assert found(spot("v", both, loose)) == [(0, 10, 30, 0.8)]  # the short one lies inside: overlap 4 / 20


def test_nothing_above_the_threshold_is_nothing() -> None:
    assert spot("v", scores([0.09] * 30), PLAIN) == []
    assert spot("v", scores([1.0]), PLAIN) == []  # a video of a single frame
    assert spot("v", scores([0.0]), PLAIN.model_copy(update={"proposals": "windows"})) == []


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"threshold": 0.0}, {"threshold": 1.0}, {"scales": ()}, {"scales": (0.0,)}, {"treshold": 0.5}):
        with pytest.raises(ValidationError):
            Spotting.model_validate(wrong)


# -------------------------------------------------------------------------------------------------------- files


def test_proposals_are_written_as_the_official_evaluator_reads_them(tmp_path: Path) -> None:
    some = [Detection("0002-L", 0, 10, 24, 0.92), Detection("0002-L", 50, 1_234_567, 1_234_600, 0.1)]
    write_proposals(some, ["0002-L", "0003-R"], tmp_path / "found")
    assert (tmp_path / "found" / "0002-L.txt").read_text() == "1,10,24,0.920000\n51,1234567,1234600,0.100000\n"
    assert (tmp_path / "found" / "0003-R.txt").read_text() == ""  # counted as 0, not left out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="is not an empty folder"):
        write_proposals([], ["v"], tmp_path)
    with pytest.raises(DataError, match="is not an empty folder"):
        check_free(tmp_path / "mine.txt", "--write", DataError)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    with pytest.raises(DataError, match="cannot write"):
        write_proposals([], ["no/such/folder"], tmp_path / "found")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.txt"]


def test_intervals_are_frame_numbers_even_where_frames_are_missing() -> None:
    """60 frames are lost before the action: frames 100 to 149 of the recording stand at positions 40 to 89."""
    numbers = np.concatenate([np.arange(20), np.arange(80, 200)])
    stamps = np.rint(numbers * 1e9 / 30).astype(np.int64)
    table = np.where((numbers >= 100) & (numbers < 150), 0.9, 0.0).astype(np.float32)[:, None]
    found = spot("v", VideoScores(stamps, (table,), (1.0,)), Spotting(smooth_seconds=0, edge=0.5))
    assert [(d.start, d.end) for d in found] == [(100, 149)]


def test_stamps_that_stand_still_do_not_break_it() -> None:
    scores = VideoScores(np.zeros(5, np.int64), (np.full((5, 2), 0.5, np.float32),), (1.0,))
    assert spot("v", scores, Spotting()) == []
