"""A data set in memory: a block moves right, down or away from the camera while a wrist sensor feels it."""

from __future__ import annotations

import numpy as np

from kd_edge.data import ImageFormat, Sample, Split
from kd_edge.data.splits import split_by_subject
from kd_edge.errors import DataError
from kd_edge.types import Clip


class Moves:
    """Three subjects, four trials each; subject 3 is the test side.

    Args:
        lacking: Samples without a signal.
        still: Whether nothing moves in the images.
        silent: Whether the sensor feels nothing but noise.
    """

    name = "moves"
    labels = ("right", "down", "away")
    modalities = ("depth", "nir", "wrist", "ankle")
    flip_labels = None

    def __init__(self, *, lacking: tuple[str, ...] = (), still: bool = False, silent: bool = False) -> None:
        self._lacking, self._still, self._silent = lacking, still, silent
        self.opened: list[str] = []
        self.samples = tuple(
            Sample(f"{name}_s{subject}_t{trial}", f"{subject}", "front", f"{trial}", label)
            for label, name in enumerate(self.labels)
            for subject in (1, 2, 3)
            for trial in (1, 2, 3, 4)
        )

    def open(self, sample: Sample, modality: str) -> Clip:
        """Twelve depth images of 24 x 24 pixels, or forty values of three axes."""
        self.opened.append(modality)
        rng = np.random.default_rng([int(sample.subject), int(sample.trial), sample.label, len(modality)])
        if modality in ("wrist", "ankle"):
            if sample.id in self._lacking:
                raise DataError(f"no file {sample.id}.csv", "the recording", "complete the data set")
            signal = 0.1 * rng.standard_normal((40, 3))
            signal[:, sample.label] += 0 if self._silent else np.sin(np.linspace(0, 3, 40))
            return Clip(signal.astype(np.float32), np.arange(40) * 10_000_000)
        frames = np.zeros((12, 24, 24), dtype=np.uint16)
        place = rng.integers(4, 7, 2)
        for t, frame in enumerate(frames):
            moved = 0 if self._still else t
            row, column, depth = place[0], place[1], 1500
            column += moved * (sample.label == 0)
            row += moved * (sample.label == 1)
            depth += 60 * moved * (sample.label == 2)
            frame[row : row + 6, column : column + 6] = depth + rng.integers(0, 5, (6, 6))
        return Clip(frames, np.arange(12) * 33_000_000)

    def content_key(self, sample: Sample, modality: str) -> str:
        return f"{sample.id} {modality} {sample.id in self._lacking} {self._still} {self._silent}"

    def image_format(self, modality: str) -> ImageFormat:
        return ImageFormat("depth", "uint16", 1, "mm", (0, 4000), 30)

    def gaps(self) -> dict[str, str]:
        return {}

    def remarks(self) -> tuple[str, ...]:
        return ()

    def splits(self) -> tuple[str, ...]:
        return ("subjects",)

    def split(self, name: str) -> Split:
        if name != "subjects":
            raise DataError(f"moves has no split '{name}'", "one of subjects", "correct the recipe's split")
        return split_by_subject(name, self.samples, ["3"])
