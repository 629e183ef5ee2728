"""Paired gains: literal differences, and intervals that are wide where subjects differ."""

from __future__ import annotations

import numpy as np
import pytest

from kd_edge.data import Sample
from kd_edge.rundir import Summary
from kd_edge.study.gain import Gain, pooled_gain, shown_interval
from kd_edge.train.results.scores import right_by_subject


def run(**right: str) -> Summary:
    test = {"accuracy": 0.5, "right": {subject.removeprefix("s"): marks for subject, marks in right.items()}}
    return Summary.model_validate({"stages": {"student": {"test": test}}})


def gain(ours: list[Summary], theirs: list[Summary]) -> Gain | None:
    return pooled_gain([(ours, theirs)])


def test_marks_are_by_subject_in_the_order_of_ids() -> None:
    samples = [Sample(name, name[0], "", "1", 0) for name in ("b2", "a1", "b1", "a2")]
    logits = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    assert right_by_subject(samples, logits, np.array([0, 0, 1, 0])) == {"a": "01", "b": "01"}


def test_the_gain_is_the_mean_over_clips_of_the_mean_over_seeds() -> None:
    """Subject 1: 3 of 4 and 4 of 4 right against 2 of 4: +37.5; subject 2: 1 of 2 against 2 of 2: -50."""
    found = gain([run(s1="1110", s2="10"), run(s1="1111", s2="10")], [run(s1="1100", s2="11")])
    assert found is not None
    assert found.subjects == {"1": pytest.approx(37.5), "2": pytest.approx(-50)}
    assert found.points == pytest.approx((4 * 37.5 - 2 * 50) / 6)
    # By subject: sums of 150 and -100 points over 4 and 2 clips; less the mean's share they are 116.67 and -116.67, so
    # the error is sqrt(2 / 1 * 2 * 116.67^2) / 6 = 38.889. They say as much as 36 / 20 equal ones: t(0.8) = 23.328.
    assert found.by_subject == (pytest.approx(25 / 3 - 907.197, abs=1e-2), pytest.approx(25 / 3 + 907.197, abs=1e-2))
    assert found.by_clip[0] < found.points < found.by_clip[1]


def test_a_gain_that_every_subject_has_has_a_narrow_interval() -> None:
    ours, theirs = ({f"s{k}": ("1" * n + "0" * (100 - n)) for k in range(1, 9)} for n in (80, 70))
    found = gain([run(**ours)], [run(**theirs)])
    assert found is not None
    assert found.by_subject == (pytest.approx(10), pytest.approx(10))
    half = (found.by_clip[1] - found.by_clip[0]) / 2
    assert half == pytest.approx(100 * 1.96 * np.sqrt(0.1 * 0.9 / 800), rel=0.1)  # the normal interval


def test_four_alike_subjects_have_the_t_interval_of_their_differences() -> None:
    """Differences of 0, 10, 20 and 30 points: mean 15, deviation 12.910, error 6.455, t(3) = 3.18245."""
    theirs = {f"s{k}": "0" * 10 for k in range(1, 5)}
    found = gain([run(**{f"s{k}": "1" * (k - 1) + "0" * (11 - k) for k in range(1, 5)})], [run(**theirs)])
    assert found is not None
    assert found.by_subject == (pytest.approx(15 - 20.5426, abs=1e-3), pytest.approx(15 + 20.5426, abs=1e-3))


@pytest.mark.slow
def test_the_interval_by_subject_covers_as_often_as_it_says() -> None:
    """Four subjects whose gains vary around +10: 95 % of 400 intervals hold it; quantiles of a bootstrap hold 81 %."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        wins = np.clip(np.rint(rng.normal(20, 4, 4)), 0, 200).astype(int)
        ours = {f"s{k}": "1" * n + "0" * (200 - n) for k, n in enumerate(wins)}
        found = gain([run(**ours)], [run(**dict.fromkeys(ours, "0" * 200))])
        assert found is not None
        assert found.by_subject is not None
        held += found.by_subject[0] <= 10 <= found.by_subject[1]
    assert 0.92 <= held / 400 <= 0.98


def test_one_subject_or_an_unknown_one_tells_nothing_of_other_subjects() -> None:
    """Half of the clips of two halves are won: the draws of clips differ, those of subjects cannot be made."""
    one = gain([run(s1="1010")], [run(s1="0000")])
    unknown = gain([run(s="10", s1="10")], [run(s="00", s1="00")])
    assert one is not None
    assert unknown is not None
    for found in (one, unknown):
        assert (found.points, found.by_subject) == (pytest.approx(50), None)
        assert found.by_clip == (pytest.approx(0), pytest.approx(100))
    assert unknown.subjects.keys() == {"", "1"}
    assert [shown_interval(each) for each in (one.by_subject, (-1.25, 2.34))] == ["-", "-1.2 to +2.3"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([], [run(s1="1")]),
        ([run(s1="1")], []),
        ([run(s1="1")], [Summary()]),
        ([run(s1="1")], [run(s2="1")]),
        ([run(s1="1")], [run(s1="10")]),
        ([run(s1="1"), run(s1="10")], [run(s1="1")]),
        ([run()], [run()]),
    ],
)
def test_other_clips_are_not_compared(ours: list[Summary], theirs: list[Summary]) -> None:
    assert gain(ours, theirs) is None


def test_clips_of_several_splits_count_together_whatever_their_seeds() -> None:
    """Subject 1: 3 of 4 right against 2: +25; subject 2: 1 and 2 of 2, over two seeds, against 2: -25."""
    found = pooled_gain([([run(s1="1110")], [run(s1="1100")]), ([run(s2="10"), run(s2="11")], [run(s2="11")])])
    assert found is not None
    assert found.subjects == {"1": pytest.approx(25), "2": pytest.approx(-25)}
    assert found.points == pytest.approx((4 * 25 - 2 * 25) / 6)
    # Sums of 100 and -50 over 4 and 2 clips, of which the mean explains 33.33 and 16.67: +66.67 and -66.67.
    assert found.by_subject == (pytest.approx(25 / 3 - 518.399, abs=1e-2), pytest.approx(25 / 3 + 518.399, abs=1e-2))


def test_pooled_splits_have_the_intervals_of_one_test_on_all_their_clips() -> None:
    rng = np.random.default_rng(0)
    marks = [{f"s{k}": "".join(map(str, rng.integers(0, 2, 20))) for k in range(1, 9)} for _ in range(2)]
    splits = [([run(**{s: marks[0][s]})], [run(**{s: marks[1][s]})]) for s in reversed(marks[0])]
    assert pooled_gain(splits) == gain([run(**marks[0])], [run(**marks[1])])


def test_a_gain_of_three_clips_has_the_interval_of_all_its_draws() -> None:
    """One clip won and two alike: the mean of three draws is 0 in 8 of 27 cases and 100 in one of 27: 3.7 % > 2.5 %."""
    found = pooled_gain([([run(s1="1")], [run(s1="0")]), ([run(s2="01")], [run(s2="01")])])
    assert found is not None
    assert found.points == pytest.approx(100 / 3)
    assert found.by_clip == (pytest.approx(0), pytest.approx(100))


@pytest.mark.parametrize(
    "splits",
    [
        [],
        [([run(s1="1")], [run(s1="1")]), ([run(s2="1")], [])],
        [([run(s1="1")], [run(s1="1")]), ([run(s2="1")], [run(s2="10")])],
        [([run(s1="1")], [run(s1="1")]), ([run(s1="1")], [run(s1="1")])],
    ],
)
def test_splits_that_lack_runs_or_share_a_subject_are_not_pooled(
    splits: list[tuple[list[Summary], list[Summary]]],
) -> None:
    assert pooled_gain(splits) is None
