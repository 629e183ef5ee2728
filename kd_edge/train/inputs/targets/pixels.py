"""The student's own picture as a target: principal components of what evaluation sees of every frame."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from kd_edge.crop import opencv
from kd_edge.data import Sample
from kd_edge.errors import ConfigError, TrainingError
from kd_edge.sampling import nearest
from kd_edge.train.inputs.targets.base import Found, Group, StudentClips, nowhere
from kd_edge.train.recipe.student_stages import PixelTargets
from kd_edge.types import Float32

FITTED_FRAMES = 8192
"""Most frames of the training clips that the components are fitted on, evenly spread."""

LARGEST_PICTURE = 4096
"""Most numbers of a picture: the eigenvectors of a covariance of 4096 x 4096 take half a minute."""


def pixels_of(target: PixelTargets, clips: StudentClips) -> Found:
    """(N, components) of every clip.

    Raises:
        ConfigError: The picture has fewer numbers than components, or too many.
        DataError: Not one training clip.
    """
    shown = partial(_shown, clips, target.side_px)
    ids = {s.id for s in clips.samples}
    train = [s for s in (clips.sides[0] if clips.sides else clips.samples) if s.id in ids]
    if not train:
        raise nowhere("pixels", {})
    step = -(-sum(len(clips.stamps_ns[s.id]) for s in train) // FITTED_FRAMES)
    components = fit_components(_every(step, map(shown, train)), target.components)
    found = {}
    for number, sample in enumerate(clips.samples, 1):
        stamps = clips.stamps_ns[sample.id]
        found[sample.id] = components.of(shown(sample))[nearest(stamps, stamps + round(target.ahead_ms * 1e6))]
        if clips.progress is not None:
            clips.progress("components", number, len(clips.samples))
    return Found((Group("pixels", 0, target.components, False, target.weight),), found, {"pixels": {}})


def _shown(clips: StudentClips, side: int, sample: Sample) -> Float32:
    """(N, P) of a clip's frames."""
    if clips.pictures is None:
        raise TrainingError("targets of pixels without the student's pictures", "a way to make them", "pass pictures")
    return small(clips.pictures(sample), side)


def _every(step: int, clips: Iterable[Float32]) -> Float32:
    """Every n-th frame of all clips, counted through, (F, P)."""
    kept, counted = [], 0
    for flat in clips:
        kept.append(flat[-counted % step :: step])
        counted += len(flat)
    return np.concatenate(kept)


def small(pictures: Float32, side: int) -> Float32:
    """Pictures (N, C, S, S) as (N, C * side * side), scaled down by area averages; smaller ones stay as they are."""
    count, channels, height, width = pictures.shape
    if side >= min(height, width):
        return pictures.reshape(count, -1)
    planes = pictures.reshape(-1, height, width)
    scaled = [opencv().resize(plane, (side, side), interpolation=opencv().INTER_AREA) for plane in planes]
    return np.stack(scaled).reshape(count, channels * side * side)


class Components(NamedTuple):
    """Principal components.

    Attributes:
        mean: (P,).
        axes: (components, P), orthonormal, of falling variance.
    """

    mean: torch.Tensor
    axes: torch.Tensor

    def of(self, flat: Float32) -> Float32:
        """(N, P) to (N, components)."""
        found: Float32 = ((torch.from_numpy(flat).double() - self.mean) @ self.axes.T).float().numpy()
        return found


def fit_components(frames: Float32, count: int) -> Components:
    """The first principal components of frames (F, P), by the eigenvectors of their covariance.

    Each points to where its largest number is positive. They are computed by PyTorch, whose number of threads a run
    keeps, so that a resumed one finds the same to the last bit.

    Raises:
        ConfigError: P is smaller than ``count``, or so large that it would take minutes.
    """
    size = frames.shape[1]
    if not count <= size <= LARGEST_PICTURE:
        raise ConfigError(
            f"{count} principal components of pictures of {size} numbers",
            f"pictures of {count} to {LARGEST_PICTURE} numbers: channels x side_px x side_px",
            "change components or side_px of the target",
        )
    every = torch.from_numpy(frames).double()
    mean = every.mean(dim=0)
    about = every - mean
    axes = torch.linalg.eigh(about.T @ about).eigenvectors[:, -count:].flip(1).T  # (count, P)
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return Components(mean, axes * largest.sign())
