"""A data set of one's own: arrays (T, H, W) uint8 in one folder, called CLASS_SUBJECT_TRIAL.npy."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from kd_edge.data import ImageFormat, OwnData, Sample, Split, split_by_subject
from kd_edge.errors import DataError
from kd_edge.types import Clip


class GesturesData(OwnData):
    """What may stand below [data] in a recipe: kind, root, and the fields you add."""

    kind: Literal["gestures"] = "gestures"
    fps: float = 30.0

    def open(self, folder: Path) -> Gestures:
        return Gestures(folder, self.fps)


class Gestures:
    name = "gestures"
    modalities = ("ir",)
    flip_labels = None  # mirrored pictures are no gestures of ours

    def __init__(self, folder: Path, fps: float) -> None:
        self._folder, self._fps = folder, fps
        names = sorted(file.stem for file in folder.glob("*_*_*.npy"))
        if not names:
            raise DataError(f"no recording in {folder}", "CLASS_SUBJECT_TRIAL.npy", "correct --data")
        self.labels = tuple(sorted({name.split("_")[0] for name in names}))
        self.samples = tuple(self._sample(name) for name in names)

    def _sample(self, name: str) -> Sample:
        label, subject, trial = name.split("_")
        return Sample(name, subject, "front", trial, self.labels.index(label))

    def open(self, sample: Sample, modality: str) -> Clip:
        frames = np.load(self._folder / f"{sample.id}.npy", allow_pickle=False)
        return Clip(frames, np.round(np.arange(len(frames)) * 1e9 / self._fps).astype(np.int64))

    def content_key(self, sample: Sample, modality: str) -> str:  # another one, and the clip is decoded anew
        content = (self._folder / f"{sample.id}.npy").read_bytes()
        return hashlib.sha256(content + repr(self._fps).encode()).hexdigest()

    def image_format(self, modality: str) -> ImageFormat:
        return ImageFormat("nir", "uint8", 1, "intensity", (0.0, 255.0), self._fps)

    def gaps(self) -> dict[str, str]:  # what the complete data set has and this copy lacks
        return {}

    def remarks(self) -> tuple[str, ...]:
        return ()

    def splits(self) -> tuple[str, ...]:
        return ("subjects",)

    def split(self, name: str) -> Split:
        last = max(sample.subject for sample in self.samples)
        return split_by_subject(name, self.samples, [last])
