"""The recordings used by an export: training clips for ranges and bounds, held-out clips for the comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from kd_edge.data import Dataset, Sample, training_sides
from kd_edge.errors import DataError
from kd_edge.types import Clip

if TYPE_CHECKING:  # refitting a finished artifact needs no torch
    from kd_edge.models.saved import SavedStudent

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recordings:
    """A student's clips by permitted use.

    Attributes:
        dataset: The data set of the clips.
        modality: Modality of the student.
        train: The clips it was trained on.
        validation: Clips held out of the training side; empty if the recipe holds nobody out.
        test: The test side.
        held_out: Description of the subjects or trials held out.
    """

    dataset: Dataset
    modality: str
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    held_out: str

    @classmethod
    def of(cls, student: SavedStudent, dataset: Dataset) -> Recordings:
        """Collect the clips of a run's student.

        Raises:
            DataError: The split is unknown, or the held-out subjects or trials are not in these recordings.
        """
        protocol, split = student.summary.protocol, dataset.split(student.spec.split)
        subjects, trials = protocol.validation_subjects, protocol.validation_trials
        train, validation = training_sides(split, subjects, trials)
        held_out = (("subject", subjects), ("trial", trials))
        groups = [f"{unit}{'s' * (len(names) > 1)} {', '.join(names)}" for unit, names in held_out if names]
        description = " and ".join(groups) or "the split's own"
        return cls(dataset, student.spec.modality, train, validation, split.test, description)

    @property
    def compared(self) -> tuple[Sample, ...]:
        """The clips for the comparison: validation clips, or test clips if there are none."""
        return self.validation or self.test

    @property
    def side(self) -> str:
        """Description of the compared clips."""
        if self.validation:
            return f"validation clips ({self.held_out})"
        return "test clips (the recipe holds nobody out)"

    def opened(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Clip]]:
        """Open the clips of samples; damaged recordings are skipped as long as at least one can be read.

        Raises:
            DataError: No clip can be read, or there is none.
        """
        faults: list[DataError] = []
        for sample in samples:
            try:
                clip = self.dataset.open(sample, self.modality)
            except DataError as error:
                faults.append(error)
                continue
            yield sample, clip
        if len(faults) == len(samples):
            raise faults[0] if faults else DataError("no clip", "at least one", "kd-edge data check")


def spread(samples: Iterable[Sample], count: int) -> list[Sample]:
    """Choose at most ``count`` of the samples, evenly over classes and, within classes, over subjects."""
    return evenly(sorted(samples, key=lambda s: (s.label, s.subject, s.view, s.id)), count)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Choose at most ``count`` of the items, evenly spaced and in order."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[i] for i in chosen]
