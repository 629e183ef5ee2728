"""Stored features: a frozen backbone's features of every frame of the training clips, and windows over them.

A temporal head is a hundredth of a network's work. With the backbone frozen its features need computing only once, or a
few times under different random changes; a head then sees thousands of windows in the time of one epoch of frames.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from kd_edge.data.dataset import Sample
from kd_edge.errors import TrainingError
from kd_edge.train.inputs.clips import ClipDataset, Key, Sessions, in_endless
from kd_edge.train.inputs.material import Progress
from kd_edge.train.inputs.windows import Windows, clip_length_ns
from kd_edge.types import Float32, Int64

LARGEST_BYTES = 4_000_000_000
"""Largest memory of stored features."""
_FRAMES = 64  # encoded at once


class StoredFeatures:
    """Features of all frames of some clips, in one or more passes with different random changes.

    Args:
        clips: The clips, one image modality.
        feature_size: D.
        passes: R.

    Attributes:
        samples: Of the clips.
        stamps_ns: (N,) of each clip, from its beginning.
        values: (R, N, D) float32 of each clip.
        labels: (R,) label of each clip, which mirroring may change.
        bytes: What the values take in memory.

    Raises:
        TrainingError: They would not fit into memory.
    """

    def __init__(self, clips: ClipDataset, feature_size: int, passes: int) -> None:
        self.samples: tuple[Sample, ...] = clips.pairs.samples
        self.stamps_ns: list[Int64] = [clips.pairs.clips(k)[0].stamps_ns for k in range(len(clips))]
        needed = self.bytes = 4 * feature_size * passes * sum(len(stamps) for stamps in self.stamps_ns)
        if needed > LARGEST_BYTES:
            raise TrainingError(
                f"{passes} passes of features of {len(clips)} clips need {needed / 1e9:.1f} GB",
                f"at most {LARGEST_BYTES / 1e9:g} GB",
                "lower passes of the stage, or set cache_every",
            )
        self.values: list[Float32] = [
            np.empty((passes, len(stamps), feature_size), dtype=np.float32) for stamps in self.stamps_ns
        ]
        self.labels: list[list[int]] = [[sample.label] * passes for sample in self.samples]


def store_features(
    backbone: nn.Module,
    clips: ClipDataset,
    feature_size: int,
    passes: int,
    device: torch.device,
    progress: Progress | None = None,
    *,
    of_subjects: Mapping[str, nn.Module] = MappingProxyType({}),
) -> StoredFeatures:
    """Encode every frame of the clips.

    Args:
        backbone: Frames (N, C, S, S) to features (N, D); frozen, in eval mode.
        clips: With random changes, drawn anew in each pass, or as evaluation sees them.
        feature_size: D.
        passes: How often; 1 without random changes.
        device: Where.
        progress: Called with clips done and clips in all.
        of_subjects: Subject -> the backbone that encodes its clips instead.
    """
    stored = StoredFeatures(clips, feature_size, passes)
    for each in (backbone, *of_subjects.values()):
        each.eval()
    for position in range(len(clips)):
        encoder = of_subjects.get(stored.samples[position].subject, backbone)
        for k in range(passes):
            every = np.arange(len(stored.stamps_ns[position]))
            if clips.augments is None:
                frames = clips.still(position, every)
            else:
                frames, stored.labels[position][k], _ = clips.changed(position, every, k)
            stored.values[position][k] = encode(encoder, frames, device)
        if progress is not None:
            progress("features", position + 1, len(clips))
    return stored


def encode(backbone: nn.Module, frames: Float32, device: torch.device) -> Float32:
    """Features (N, D) of frames (N, C, S, S), a few at a time."""
    with torch.inference_mode():
        parts = [
            backbone(torch.from_numpy(part).to(device))
            for part in np.split(frames, range(_FRAMES, len(frames), _FRAMES))
        ]
    features: Float32 = torch.cat(parts).float().cpu().numpy()
    return features


class FeatureDataset(Dataset[tuple[list[Float32], int]]):
    """Windows over stored features, indexed like a ``ClipDataset``.

    Args:
        stored: The features.
        windows: Where a window's segments lie.
        seed: The recipe's seed; None is evaluation: the centres of T equal parts of the first pass.
    """

    def __init__(self, stored: StoredFeatures, windows: Windows, seed: int | None) -> None:
        self.stored = stored
        self.windows = windows
        self.seed = seed
        self._sessions = Sessions(stored.samples)

    def __len__(self) -> int:
        return len(self.stored.samples)

    def __getitem__(self, key: Key) -> tuple[list[Float32], int]:
        position, epoch, *again = key
        stamps, values = self.stored.stamps_ns[position], self.stored.values[position]
        if self.seed is None:
            return [values[0][self.windows.choose(stamps, None)]], self.stored.labels[position][0]
        rng = np.random.default_rng((self.seed, epoch, zlib.crc32(self.stored.samples[position].id.encode()), *again))
        taken = int(rng.integers(len(values)))
        label = self.stored.labels[position][taken]
        if not self.windows.loop:
            return [values[taken][self.windows.choose(stamps, rng)]], label
        return [self._looping(position, values[taken], rng)], label

    def _looping(self, position: int, values: Float32, rng: np.random.Generator) -> Float32:
        """(T, D) of a window that may begin before the clip does, in another one's end."""
        stamps = self.stored.stamps_ns
        other = position
        if rng.random() < self.windows.before_share:
            other = self._sessions.before(position, rng)
        moments = self.windows.around(stamps[position], rng, other_before=other != position)
        length = clip_length_ns(stamps[position])
        chosen = values[in_endless(stamps[position], moments, length)]
        if other != position:
            earlier = moments < -length / len(stamps[position]) / 2
            before = self.stored.values[other]
            frames = in_endless(stamps[other], moments, clip_length_ns(stamps[other]))
            chosen[earlier] = before[int(rng.integers(len(before)))][frames[earlier]]
        return chosen
