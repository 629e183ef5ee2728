"""Single frames of the training clips with their dense targets."""

from __future__ import annotations

import zlib

import numpy as np
from torch.utils.data import Dataset

from kd_edge.train.inputs.clips import ClipDataset, Key
from kd_edge.train.inputs.targets import DenseTargets
from kd_edge.types import Float32


class FrameDataset(Dataset[tuple[list[Float32], Float32]]):
    """Random frames of paired clips with the same random changes, and their targets; indexed like a ``ClipDataset``.

    Args:
        clips: The student's clips, with random changes, or as evaluation sees them.
        targets: Scaled.
        frames: F, of each clip. Evaluation takes the centres of F equal parts.
    """

    def __init__(self, clips: ClipDataset, targets: DenseTargets, frames: int) -> None:
        self.clips = clips
        self.targets = targets
        self.frames = frames

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> tuple[list[Float32], Float32]:
        """Frames [(F, C, S, S)] and targets (F, M)."""
        position, epoch, *again = key
        sample = self.clips.pairs.samples[position]
        count = len(self.clips.pairs.clips(position)[0].stamps_ns)
        if self.clips.augments is None:
            chosen = ((2 * np.arange(self.frames) + 1) * count) // (2 * self.frames)
            return [self.clips.still(position, chosen)], self.targets.of(sample.id, chosen)
        rng = np.random.default_rng((self.clips.seed, epoch, zlib.crc32(sample.id.encode()), *again, len(b"frames")))
        chosen = np.sort(rng.choice(count, self.frames, replace=count < self.frames))
        frames, _, crop = self.clips.changed(position, chosen, epoch, *again)
        return [frames], self.targets.of(sample.id, chosen, crop)
