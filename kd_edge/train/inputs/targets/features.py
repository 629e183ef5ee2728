"""What the recipe's teacher makes of the moments of a clip's frames: embeddings, or their principal components."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from kd_edge.data import Sample
from kd_edge.errors import ConfigError, TrainingError, reason
from kd_edge.files import replacing
from kd_edge.train.inputs.embeddings import SeenClip, at_frames
from kd_edge.train.inputs.targets.base import DenseTargets, Found, Group, StudentClips
from kd_edge.train.inputs.targets.shuffle import mark, shuffled
from kd_edge.train.recipe.student_stages import FeatureTargets
from kd_edge.types import Float32


class FeatureSpace(NamedTuple):
    """What a teacher's features are.

    Attributes:
        modality: What it sees.
        size: D.
    """

    modality: str
    size: int


def components_file(target: FeatureTargets) -> Path:
    """Where a run directory keeps the components of a target."""
    return Path("teachers", f"components-{target.components}.safetensors")


def features_to_come(target: FeatureTargets, space: FeatureSpace) -> Found:
    """The target before its teacher was asked: only a trained teacher can be.

    Raises:
        ConfigError: More components than numbers.
    """
    count = target.components or space.size
    if count > space.size:
        raise ConfigError(
            f"components {count} of the teacher's features of {space.size} numbers",
            f"at most {space.size}",
            "lower components in the stage's targets",
        )
    name = f"{_group(space)}{mark(target.shuffle)}"
    return Found((Group(name, 0, count, False, target.weight, late=True),), {}, {})


def complete_features(
    targets: DenseTargets,
    target: FeatureTargets,
    space: FeatureSpace,
    seen: Iterable[tuple[str, SeenClip | str]],
    clips: StudentClips,
    train: Sequence[Sample],
    kept: Path | None,
) -> None:
    """Fill in what a teacher makes of the clips.

    Args:
        targets: Which have ``features_to_come``.
        target: How.
        space: What the features are.
        seen: Sample id and what the teacher makes of its clip, or why it has none.
        clips: The student's; those that exchange theirs keep to their side.
        train: The training clips, by which components are found and numbers are scaled.
        kept: Where components were kept by this run before, and are kept; None keeps nothing.

    Raises:
        DataError: No training clip has any.
        TrainingError: The kept components are damaged, or fewer frames than components.
    """
    values: dict[str, Float32] = {}
    lacking: dict[str, str] = {}
    for sample_id, clip in seen:
        if isinstance(clip, str):
            lacking[sample_id] = clip
            continue
        found = at_frames(clip, clips.stamps_ns[sample_id])
        if np.isnan(found).all():
            lacking[sample_id] = f"the teacher's {space.modality} covers less than half of the clip"
        else:
            values[sample_id] = found
    there = [values[s.id] for s in train if s.id in values]
    if target.components is not None and there:
        components = _components(there, target.components, kept)
        values = {sample_id: components.of(found) for sample_id, found in values.items()}
    (group,) = features_to_come(target, space).groups
    if target.shuffle is not None:
        in_place = Found((replace(group, name=_group(space)),), values, {group.root: lacking})
        moved = shuffled(in_place, target.shuffle, clips)
        values, lacking = dict(moved.values), dict(moved.lacking[group.root])
    targets.complete(group.name, values, lacking, train)


@dataclass(frozen=True)
class Components:
    """Principal components of features.

    Attributes:
        mean: (D,) float32.
        basis: (N, D) float32, of length 1, that of the largest variance first; its largest number is positive.
    """

    mean: Float32
    basis: Float32

    @classmethod
    def fit(cls, values: Sequence[Float32], count: int) -> Components:
        """Those of the frames of some clips, (N, D) each; rows with NaN are left out.

        Raises:
            TrainingError: Fewer frames than components.
        """
        every = [part[~np.isnan(part).any(axis=1)].astype(np.float64) for part in values]
        frames = sum(map(len, every))
        if frames <= count:
            raise TrainingError(
                f"{count} components of {frames} frames with features",
                "more frames than components",
                "lower components",
            )
        mean: npt.NDArray[np.float64] = np.sum([part.sum(axis=0) for part in every], axis=0) / frames
        size = len(mean)
        scatter: npt.NDArray[np.float64] = np.zeros((size, size))
        for part in every:  # clip by clip: the features are not copied as a whole
            scatter += (part - mean).T @ (part - mean)
        vectors = np.linalg.eigh(scatter)[1][:, ::-1][:, :count].T  # eigh has the smallest first
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
        basis = (vectors * np.sign(largest)).astype(np.float32, order="C")  # as it is when it is loaded: products round
        return cls(mean.astype(np.float32), basis)

    def of(self, values: Float32) -> Float32:
        """(N, D) features as (N, count) components."""
        return np.asarray((values - self.mean) @ self.basis.T, dtype=np.float32)


def _components(values: Sequence[Float32], count: int, kept: Path | None) -> Components:
    """Those this run has kept, or new ones, which it keeps: a resumed run must regress the very same numbers."""
    if kept is not None and kept.exists():
        return _kept(kept, (count, values[0].shape[1]))
    components = Components.fit(values, count)
    if kept is not None:
        with replacing(kept, TrainingError) as file:
            file.write(save({"mean": components.mean, "basis": components.basis}))
    return components


def _kept(path: Path, shape: tuple[int, int]) -> Components:
    try:
        found = load_file(path)
        components = Components(found["mean"], found["basis"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, reason(error)) from error
    if components.basis.shape != shape or components.mean.shape != shape[1:]:
        raise _damaged(path, f"it holds components {components.basis.shape}, not {shape}")
    return components


def _damaged(path: Path, why: str) -> TrainingError:
    return TrainingError(f"{path} is damaged ({why})", "the file a run wrote", "restore it, or start a new run")


def _group(space: FeatureSpace) -> str:
    return f"{space.modality} features"
