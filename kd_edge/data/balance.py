"""Count the clips and subjects of each class on each side of a split, and warn of imbalances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kd_edge.data.dataset import Sample, listed

FEW_CLIPS = 10
"""Classes with fewer training clips cause a warning."""
FEW_SUBJECTS = 3
"""Classes with fewer subjects cannot have a different one each in training, validation and test."""
IMBALANCE = 3
"""A larger ratio between the most and the fewest training clips per class causes a warning."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Counts of one class of a data set.

    Attributes:
        clips: Number of its samples, usable or not.
        subjects: Number of people who perform it; 0 if unknown.
        train: Number of usable samples on the training side; None without a split.
        validation: Number of usable samples held out of the training side; None without a split.
        test: Number of usable samples on the test side; None without a split.
    """

    clips: int
    subjects: int
    train: int | None = None
    validation: int | None = None
    test: int | None = None


Sides = tuple[Sequence[Sample], Sequence[Sample], Sequence[Sample]]
"""Training, validation and test samples."""


def class_counts(labels: Sequence[str], samples: Sequence[Sample], sides: Sides | None) -> dict[str, ClassCount]:
    """Count the clips and people of each class.

    Args:
        labels: Class names.
        samples: Every sample.
        sides: The usable samples on each side; None without a split.
    """
    counts = {}
    for label, name in enumerate(labels):
        of_class = [s for s in samples if s.label == label]
        per_side = () if sides is None else tuple(sum(s.label == label for s in side) for side in sides)
        counts[name] = ClassCount(len(of_class), len({s.subject for s in of_class if s.subject}), *per_side)
    return counts


def imbalances(counts: Mapping[str, ClassCount]) -> Iterator[str]:
    """Yield warnings about the classes, each with its rule."""
    for side in ("train", "validation", "test"):
        clips_of = {name: getattr(count, side) for name, count in counts.items()}
        if any(clips_of.values()) and (absent := [name for name, clips in clips_of.items() if not clips]):
            word = "training" if side == "train" else side
            yield f"no {word} clip of {listed(absent)}: {_WITHOUT[side]}"
    known = any(count.subjects for count in counts.values())
    few_subjects = [name for name, c in counts.items() if c.clips and c.subjects < FEW_SUBJECTS]
    if known and few_subjects:
        yield (
            f"fewer than {FEW_SUBJECTS} subjects perform {listed(few_subjects)}: too few for a different one in "
            "training, validation and test"
        )
    train = {name: count.train for name, count in counts.items() if count.train}
    if few := [name for name, clips in train.items() if clips < FEW_CLIPS]:
        yield f"fewer than {FEW_CLIPS} training clips of {listed(few)}: record more, or repeat = 4 below [student]"
    if train and max(train.values()) > IMBALANCE * min(train.values()):
        most, least = max(train, key=lambda name: train[name]), min(train, key=lambda name: train[name])
        yield (
            f"'{most}' has {train[most]} training clips and '{least}' {train[least]}, more than {IMBALANCE} times as "
            "many: class_weights = 'balanced' or sampler = 'balanced' below [student]"
        )


_WITHOUT = {
    "train": "training cannot start",
    "validation": "the choice of the epoch ignores them",
    "test": "the figures will not cover them",
}
