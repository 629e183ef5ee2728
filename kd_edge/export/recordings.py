"""The recordings an export looks at: training clips give ranges and bounds, held-out ones say how good it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from kd_edge.data import Dataset, Sample, training_sides
from kd_edge.errors import DataError
from kd_edge.types import Clip

if TYPE_CHECKING:  # fitting a finished artifact anew needs no torch
    from kd_edge.models.saved import SavedStudent

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recordings:
    """A student's clips by what they may be used for.

    Attributes:
        dataset: Opens them.
        modality: Of the student.
        train: Those it learned from.
        validation: Training clips held out; empty where the recipe holds nobody out.
        test: The test side.
        held_out: Whose the validation clips are, for people.
    """

    dataset: Dataset
    modality: str
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    held_out: str

    @classmethod
    def of(cls, student: SavedStudent, dataset: Dataset) -> Recordings:
        """Those of a run's student.

        Raises:
            DataError: The split is unknown, or who was held out is not in these recordings.
        """
        protocol, split = student.summary.protocol, dataset.split(student.spec.split)
        subjects, trials = protocol.validation_subjects, protocol.validation_trials
        train, validation = training_sides(split, subjects, trials)
        held_out = (("subject", subjects), ("trial", trials))
        who = [f"{what}{'s' * (len(names) > 1)} {', '.join(names)}" for what, names in held_out if names]
        whose = " and ".join(who) or "the split's own"
        return cls(dataset, student.spec.modality, train, validation, split.test, whose)

    @property
    def compared(self) -> tuple[Sample, ...]:
        """The clips that an export is judged by: validation clips, else test clips."""
        return self.validation or self.test

    @property
    def side(self) -> str:
        """Whose clips those are, for people."""
        if self.validation:
            return f"validation clips ({self.held_out})"
        return "test clips (the recipe holds nobody out)"

    def opened(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Clip]]:
        """The clips of samples; damaged recordings are passed over as long as one can be read.

        Raises:
            DataError: Not one can be read, or there is none.
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
    """At most ``count`` of the samples, evenly over classes and, within them, subjects."""
    return evenly(sorted(samples, key=lambda s: (s.label, s.subject, s.view, s.id)), count)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, in their order and as far apart as can be."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[i] for i in chosen]
