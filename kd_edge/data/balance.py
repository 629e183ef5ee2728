"""How many clips of how many people each class has, on each side of a split, and where that is too few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kd_edge.data.dataset import Sample, listed

FEW_CLIPS = 10
"""A class with fewer training clips is warned of."""
FEW_SUBJECTS = 3
"""A class performed by fewer people cannot have another one in training, validation and test each."""
IMBALANCE = 3
"""The most training clips of a class are warned of where they are more than so many times the fewest."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One class of a data set.

    Attributes:
        clips: Number of its samples, usable or not.
        subjects: Number of people who perform it; 0 where nobody knows.
        train: Usable samples on the training side; None where there is no split to tell.
        validation: Usable samples held out of the training side, likewise.
        test: Usable samples on the test side, likewise.
    """

    clips: int
    subjects: int
    train: int | None = None
    validation: int | None = None
    test: int | None = None


Sides = tuple[Sequence[Sample], Sequence[Sample], Sequence[Sample]]
"""Training, validation and test samples."""


def class_counts(labels: Sequence[str], samples: Sequence[Sample], sides: Sides | None) -> dict[str, ClassCount]:
    """Clips and people of each class.

    Args:
        labels: Class names.
        samples: Every sample.
        sides: Those that can be used; None where no split says which is which.
    """
    counts = {}
    for label, name in enumerate(labels):
        its = [s for s in samples if s.label == label]
        each = () if sides is None else tuple(sum(s.label == label for s in side) for side in sides)
        counts[name] = ClassCount(len(its), len({s.subject for s in its if s.subject}), *each)
    return counts


def imbalances(counts: Mapping[str, ClassCount]) -> Iterator[str]:
    """What to know of the classes before training, each with its rule."""
    for side in ("train", "validation", "test"):
        its = {name: getattr(count, side) for name, count in counts.items()}
        if any(its.values()) and (absent := [name for name, clips in its.items() if not clips]):
            word = "training" if side == "train" else side
            yield f"no {word} clip of {listed(absent)}: {_WITHOUT[side]}"
    known = any(count.subjects for count in counts.values())
    lonely = [name for name, c in counts.items() if c.clips and c.subjects < FEW_SUBJECTS]
    if known and lonely:
        yield (
            f"fewer than {FEW_SUBJECTS} subjects perform {listed(lonely)}: too few for another one in training, "
            "validation and test each"
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
    "train": "a training cannot start",
    "validation": "the choice of the epoch does not see them",
    "test": "figures will not tell of them",
}
