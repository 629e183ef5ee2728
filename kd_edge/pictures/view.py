"""A recorded sample as a run's student sees it, and what it takes it for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from kd_edge.data import Dataset, Sample, Split
from kd_edge.errors import DataError, did_you_mean
from kd_edge.metrics import softmax
from kd_edge.models.saved import SavedStudent
from kd_edge.pictures.strips import Rgb, seen_frames
from kd_edge.preprocess import recorded_input
from kd_edge.sampling import segment_indices
from kd_edge.types import Float32, Int64


@dataclass(frozen=True, slots=True)
class View:
    """A sample before a student.

    Attributes:
        student: Student that looks at the sample.
        dataset: The recordings.
        sample: The sample.
        stamps_ns: (N,) int64, of the recording's N images; they themselves are let go.
        at: (T,) int64, the segment frames among them.
        inputs: (T, C, S, S) float32, the network's input, cropped as in an evaluation.
        probabilities: (K,) float32, of the exported student: the logits divided by its temperature.
    """

    student: SavedStudent
    dataset: Dataset
    sample: Sample
    stamps_ns: Int64
    at: Int64
    inputs: Float32
    probabilities: Float32

    @property
    def predicted(self) -> int:
        """Position of the likeliest class."""
        return int(self.probabilities.argmax())

    @property
    def correct(self) -> bool:
        """Whether that is the sample's class."""
        return self.predicted == self.sample.label

    @property
    def frames(self) -> Rgb:
        """(T, S, S, 3) uint8, for the eye."""
        return seen_frames(self.inputs, self.student.spec.preprocess)

    @property
    def stamps(self) -> list[str]:
        """Time of each segment frame from the start of the sample."""
        return [f"{self.stamps_ns[i] / 1e9:.2f} s" for i in self.at]

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last image of the recording."""
        return int(self.stamps_ns[0]), int(self.stamps_ns[-1])

    @property
    def title(self) -> str:
        """The sample and the answer, in one line."""
        answer = f"{self.named(self.predicted)}, correct" if self.correct else f"taken for {self.named(self.predicted)}"
        truth = "" if self.correct else f", truly {self.named(self.sample.label)}"
        return f"{self.sample.id} of {self.dataset.name} ({self.side}): {answer}{truth}"

    @property
    def side(self) -> str:
        """What it was to the student: ``training clip``, ``validation clip``, ``test clip``, or of neither side."""
        split = self.dataset.split(self.student.spec.split)
        if self.sample in split.test:
            return "test clip"
        if self.sample not in (*split.train, *split.validation):
            return "in neither side of the split"
        return "validation clip" if self._is_held_out(split) else "training clip"

    def _is_held_out(self, split: Split) -> bool:
        """Whether the run held the sample out of its training side."""
        protocol = self.student.summary.protocol
        if not protocol.validation_subjects and not protocol.validation_trials:
            return self.sample in split.validation
        return self.sample.subject in protocol.validation_subjects or self.sample.trial in protocol.validation_trials

    def named(self, label: int) -> str:
        """A class with its probability."""
        return f"'{self.dataset.labels[label]}' {self.probabilities[label]:.0%}"


def look(student: SavedStudent, dataset: Dataset, sample: Sample) -> View:
    """Show a sample to a student.

    Raises:
        DataError: The recording is absent or damaged.
    """
    spec = student.spec
    clip = dataset.open(sample, spec.modality)
    at = segment_indices(len(clip), spec.segments, mode="centre")
    inputs = recorded_input(clip, at, spec.preprocess)
    with torch.no_grad():
        logits = student.model(torch.from_numpy(inputs)[None])[0].numpy()
    probabilities = softmax(logits, student.summary.temperature).astype(np.float32)
    return View(student, dataset, sample, clip.stamps_ns, at, inputs, probabilities)


def find_sample(dataset: Dataset, name: str, skipped: dict[str, str]) -> Sample:
    """The sample of an id.

    Args:
        dataset: The recordings.
        name: The id.
        skipped: Id -> why a run could not use a sample.

    Raises:
        DataError: Unknown, or known to be missing.
    """
    found = next((sample for sample in dataset.samples if sample.id == name), None)
    if found is not None:
        return found
    why = dataset.gaps().get(name, skipped.get(name))
    if why is not None:
        raise DataError(
            f"sample '{name}' of {dataset.name} is not here: {why}", "one that was recorded", "choose another --sample"
        )
    ids = [sample.id for sample in dataset.samples]
    raise DataError(
        f"{dataset.name} has no sample '{name}'{did_you_mean(name, ids)}",
        f"the id of one of its {len(ids)} samples, such as '{ids[0]}'" if ids else "a data set with samples",
        "correct --sample",
    )
