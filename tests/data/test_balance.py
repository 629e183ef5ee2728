"""Counts of classes, against literal ones; every warning says its rule."""

from __future__ import annotations

import pytest

from kd_edge.data.balance import ClassCount, class_counts, imbalances
from kd_edge.data.check import check
from kd_edge.data.dataset import Sample
from kd_edge.data.synthetic.dataset import Synthetic


def sample(number: int, label: int, subject: str = "1") -> Sample:
    return Sample(str(number), subject, "1", "1", label)


def test_classes_are_counted_on_every_side() -> None:
    samples = [sample(0, 0), sample(1, 0, "2"), sample(2, 0), sample(3, 1), sample(4, 0, "3")]
    counts = class_counts(("walk", "fall", "jump"), samples, ([samples[0], samples[3]], [samples[1]], [samples[2]]))
    assert counts == {
        "walk": ClassCount(4, 3, 1, 1, 1),
        "fall": ClassCount(1, 1, 1, 0, 0),
        "jump": ClassCount(0, 0, 0, 0, 0),
    }
    assert class_counts(("walk",), samples[:1], None) == {"walk": ClassCount(1, 1)}


@pytest.mark.parametrize(
    ("counts", "warnings"),
    [
        ({"walk": ClassCount(30, 3, 20, 5, 5), "fall": ClassCount(15, 3, 10, 3, 2)}, []),
        (
            {"walk": ClassCount(30, 3, 20, 5, 5), "fall": ClassCount(15, 2, 9, 3, 3)},
            [
                "fewer than 3 subjects perform 'fall': too few for a different one in training, validation and test",
                "fewer than 10 training clips of 'fall': record more, or repeat = 4 below [student]",
            ],
        ),
        (
            {"walk": ClassCount(50, 3, 40, 0, 5), "fall": ClassCount(20, 3, 10, 3, 0)},
            [
                "no validation clip of 'walk': the choice of the epoch ignores them",
                "no test clip of 'fall': the figures will not cover them",
                "'walk' has 40 training clips and 'fall' 10, more than 3 times as many: class_weights = 'balanced' or "
                "sampler = 'balanced' below [student]",
            ],
        ),
        (
            {"walk": ClassCount(50, 3, 30, 3, 5), "fall": ClassCount(20, 3, 0, 3, 2)},
            ["no training clip of 'fall': training cannot start"],
        ),
        ({"walk": ClassCount(30, 0, 20, 0, 5), "fall": ClassCount(15, 0, 10, 0, 2)}, []),  # nobody known, none held out
        ({"walk": ClassCount(30, 3), "fall": ClassCount(1, 3)}, []),
    ],
)
def test_warnings_say_their_rule(counts: dict[str, ClassCount], warnings: list[str]) -> None:
    assert list(imbalances(counts)) == warnings


@pytest.mark.slow
def test_a_check_counts_on_the_split_that_was_asked_for_or_the_first() -> None:
    dataset = Synthetic(clips_per_class=4, subjects=4, height_px=32, width_px=32, fps=5)
    report = check(dataset, ["nir"], split="subjects", validation_subjects=["1"])
    assert report.sides == "subjects"
    assert report.classes["drink"] == ClassCount(4, 4, 2, 1, 1)
    assert report.imbalances[0].startswith("fewer than 10 training clips of 'drink', 'eat'")
    report = check(dataset, ["nir"])
    assert (report.sides, report.classes["drink"]) == ("subjects", ClassCount(4, 4, 3, 0, 1))
