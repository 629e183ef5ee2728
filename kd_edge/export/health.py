"""Fit the usual pictures, features and gaps between frames to the training recordings, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.artifact import Artifact, Manifest, rewrite
from kd_edge.data import Dataset, Sample
from kd_edge.engines import Engine, open_engine
from kd_edge.engines.base import carry
from kd_edge.errors import DataError
from kd_edge.export.recordings import spread
from kd_edge.health import LOOK_NS, Familiarity, FeatureReference, Picture, PictureBounds, PictureMeter
from kd_edge.preprocess import recorded_input
from kd_edge.resizing import resize
from kd_edge.sampling import nearest, segment_indices
from kd_edge.types import Clip, Float32, Int64
from kd_edge.window import FixedWindow

CLIPS = 300
"""Number of recordings used by default."""
EXTREME = 0.005
"""Share of training pictures, and of familiar windows, that lie beyond an extreme (the quantile used for a bound)."""
USUAL = 0.75
"""Quantile over the recordings for the unevenness of frames; it ignores recordings of a camera that lost frames."""
MARGIN = 1.1
"""Margin on the distance of held-out windows from the classes, for a live camera's windows."""
FEW_PEOPLE = 3
"""With fewer held-out people than this, the variation between people is unknown, and the margin is wider."""
RANK = 64
"""Largest number of directions of a reference."""
FOLDS = 4
"""Number of groups of subjects left out in turn if there is no validation side."""
_NEAR_LIMIT = 0.98  # share of the value range: sensors, and averages of resized pixels, saturate slightly below its end
_LEAST_DEVIATION = 1e-3
_LEAST_NOISE = 0.1  # lower limit of the bound, because recordings without a background show no noise


class Fitted(NamedTuple):
    """The fitted fields of a manifest."""

    health: PictureBounds
    familiar: FeatureReference
    segment_error_ms: float


class _Measured(NamedTuple):
    """Measurements of one recording: stamps (N,), figures of its pictures, features (T, D) of its segments."""

    sample: Sample
    stamps_ns: Int64
    pictures: list[Picture]
    features: Float32


def fit_artifact(
    artifact: Artifact,
    dataset: Dataset,
    *,
    validation: Sequence[Sample] = (),
    clips: int = CLIPS,
    threads: int = 1,
) -> Fitted:
    """Fit a manifest's fields on healthy pictures and familiar features; the test side is never used.

    Args:
        artifact: A streaming step; its features are computed in its own precision.
        dataset: The data set it was trained on.
        validation: Recordings of the training side that were held out; without any, groups of subjects are left out of
            the reference in turn.
        clips: Largest number of recordings, spread evenly over the training side.
        threads: Number of threads of the engine.

    Raises:
        DataError: The split is unknown, or no recording can be read.
    """
    held_out = {sample.id for sample in validation}
    train = [s for s in dataset.split(artifact.manifest.split).train if s.id not in held_out]
    with open_engine(artifact, engine="onnxruntime", threads=threads) as engine:
        measured = list(_measure_all(engine, dataset, spread(train, clips)))
        measured_validation = list(_measure_all(engine, dataset, spread(validation, clips))) if validation else []
    pictures = [picture for recording in measured for picture in recording.pictures]
    return Fitted(
        fit_bounds(pictures, artifact.manifest, len(measured)),
        fit_reference(measured, measured_validation),
        fit_segment_error([recording.stamps_ns for recording in measured], artifact.manifest),
    )


def refit(artifact: Artifact, dataset: Dataset, out: Path, *, clips: int = CLIPS) -> Manifest:
    """Rewrite an artifact with newly fitted fields; its graph and golden clip stay byte-identical.

    Raises:
        DataError: As ``fit_artifact``.
        ArtifactError: ``out`` cannot be written.
    """
    fitted = fit_artifact(artifact, dataset, clips=clips)
    return rewrite(artifact, artifact.manifest.model_copy(update=fitted._asdict()), out)


def fit_bounds(pictures: Sequence[Picture], manifest: Manifest, clips: int) -> PictureBounds:
    """Fit bounds to the extremes of training pictures, with a margin.

    A picture with a quarter of the brightness and contrast, three quarters of the sharpness, twice the noise or a tenth
    more of its pixels at the limit is still healthy: cameras of one type differ by that much, and a percentile window
    adapts to them. A fixed window does not adapt; there the limit is half the brightness and contrast.
    """
    spec = manifest.preprocess
    ignored = None if isinstance(spec.window, FixedWindow) else spec.window.ignore_value
    figures = np.array(pictures)
    figures[~np.isfinite(figures)] = np.nan  # the first picture has an infinite change
    low = Picture(*np.nanquantile(figures, EXTREME, axis=0).tolist())
    high = Picture(*np.nanquantile(figures, 1 - EXTREME, axis=0).tolist())
    dimmed = 2 if isinstance(spec.window, FixedWindow) else 4
    return PictureBounds(
        mean=_rounded(low.mean / dimmed) if ignored is None else 0.0,  # for depth, a small value means near, not dark
        contrast=_rounded(low.contrast / dimmed),
        saturated=_rounded(min(1.0, high.saturated + 0.1)),
        measured=_rounded(low.measured / 2) if ignored is not None else 0.0,
        grain=_rounded((high.grain + max(1.0, high.grain)) / 2),
        sharpness=_rounded(0.75 * low.sharpness),
        noise=_rounded(max(_LEAST_NOISE, 2 * high.noise)),
        moves=low.change > 0,
        saturation=_rounded(saturation_of(manifest)),
        ignore_value=ignored,
        side=f"training side of {manifest.split}",
        clips=clips,
        frames=len(pictures),
    )


def fit_segment_error(stamps_ns: Sequence[Int64], manifest: Manifest) -> float:
    """Fit the upper quartile, over recordings, of the largest distance between a frame and its segment's time.

    Args:
        stamps_ns: (N,) int64 of each recording; a recording is split at gaps of more than two spacings.
        manifest: The manifest of the model.

    Returns:
        The distance in milliseconds, for windows as a stream fills them; 0 if no recording fills a window.
    """
    spacing_ns = manifest.spacing_ns
    back_ns = np.arange(manifest.segments, dtype=np.int64) * spacing_ns
    worst = []
    parts = (np.split(stamps, np.flatnonzero(np.diff(stamps) > 2 * spacing_ns) + 1) for stamps in stamps_ns)
    for stamps in chain.from_iterable(parts):
        ends = stamps[stamps - back_ns[-1] >= stamps[:1]]
        moments = ends[:, None] - back_ns  # (W, T): one window ends with each frame
        errors = np.abs(stamps[nearest(stamps, moments)] - moments).max(axis=1)
        full = errors[2 * errors <= spacing_ns]  # windows with a larger error are not full
        worst += [int(full.max())] if len(full) else []
    return _rounded(float(np.quantile(worst, USUAL)) / 1e6) if worst else 0.0


def saturation_of(manifest: Manifest) -> float:
    """Return the smallest raw value that counts as saturated, by the sensor or by a fixed window."""
    (least, most), window = manifest.value_range, manifest.preprocess.window
    limit = least + _NEAR_LIMIT * (most - least)
    return min(limit, window.high) if isinstance(window, FixedWindow) else limit


def fit_reference(train: Sequence[_Measured], validation: Sequence[_Measured]) -> FeatureReference:
    """Fit a reference to training recordings, and its threshold to recordings that the reference was not fitted on.

    With one or two people the variation between people is unknown; the margin is then twice or 1.5 times as wide.
    """
    reference = _reference(train)
    if validation:
        distances, fitted_on = _distances(reference, validation), "validation clips"
    else:
        parts = list(_leave_groups_out(train))
        distances = np.concatenate([_distances(_reference(rest), part) for rest, part in parts or [(train, train)]])
        fitted_on = f"training clips, {len(parts)} groups of subjects left out in turn" if parts else "training clips"
    people = len({recording.sample.subject for recording in validation or train})
    margin = MARGIN
    if people < FEW_PEOPLE:
        margin *= 1 + 1 / people
        fitted_on += f" of {people} {'person' if people == 1 else 'people'}: a wide bound"
    facts = {
        "threshold": _rounded(max(margin * float(np.quantile(distances, 1 - EXTREME)), 1e-3)),
        "fitted_on": fitted_on,
        "clips": len(train),
        "windows": len(distances),
    }
    return reference.model_copy(update=facts)


def _measure_all(engine: Engine, dataset: Dataset, samples: Sequence[Sample]) -> Iterator[_Measured]:
    """Measure recordings; damaged ones are skipped as long as at least one can be read."""
    faults: list[DataError] = []
    for sample in samples:
        try:
            clip = dataset.open(sample, engine.manifest.modality)
        except DataError as error:
            faults.append(error)
            continue
        spec = engine.manifest.preprocess
        resized = Clip(np.stack([resize(frame, spec.resize_px, spec.holes) for frame in clip.frames]), clip.stamps_ns)
        yield _Measured(
            sample, clip.stamps_ns, _measure_pictures(resized, engine.manifest), _compute_features(engine, resized)
        )
    if len(faults) == len(samples):
        raise faults[0] if faults else DataError("no training clip", "at least one", "kd-edge data check")


def _measure_pictures(resized: Clip, manifest: Manifest) -> list[Picture]:
    """Measure the pictures that a stream would check."""
    window = manifest.preprocess.window
    ignored = None if isinstance(window, FixedWindow) else window.ignore_value
    meter = PictureMeter(resized.frames[0], saturation_of(manifest), ignored)
    pictures, looked_ns = [], -LOOK_NS
    for frame, stamp_ns in zip(resized.frames, resized.stamps_ns.tolist(), strict=True):
        if stamp_ns - looked_ns >= LOOK_NS:
            pictures.append(meter.measure(frame))
            looked_ns = stamp_ns
    return pictures


def _compute_features(engine: Engine, resized: Clip) -> Float32:
    """Compute the features (T, D) of a recording's segments, stepping from a reset state."""
    manifest = engine.manifest
    at = segment_indices(len(resized), manifest.segments, mode="centre")
    binding = engine.bind(1)
    features = np.empty((manifest.segments, manifest.feature_size), dtype=np.float32)
    for feature, frame in zip(features, recorded_input(resized, at, manifest.preprocess), strict=True):
        binding.frame[0] = frame
        binding.run()
        feature[:] = binding.feature[0]
        carry(binding)
    return features


def _windows(recordings: Sequence[_Measured]) -> list[Float32]:
    """Features (T, D) of windows as in a stream: whole recordings, and the end of one with the start of the next."""
    windows = [recording.features for recording in recordings]
    ordered = sorted(recordings, key=lambda r: (r.sample.subject, r.sample.view, r.sample.id))
    for first, second in pairwise(ordered):
        if (first.sample.subject, first.sample.view) == (second.sample.subject, second.sample.view):
            length = len(first.features)
            cuts = sorted({length // 4, length // 2, 3 * length // 4} - {0})
            windows += [np.concatenate([first.features[cut:], second.features[:cut]]) for cut in cuts]
    return windows


def _reference(recordings: Sequence[_Measured]) -> FeatureReference:
    """Compute the class means of recordings, and the covariance of windows around the nearest mean."""
    labels = np.array([recording.sample.label for recording in recordings])
    own = np.stack([recording.features.mean(axis=0) for recording in recordings]).astype(np.float64)
    classes, of = np.unique(labels, return_inverse=True)
    means = np.stack([own[of == k].mean(axis=0) for k in range(len(classes))])
    deviation = np.maximum((own - means[of]).std(axis=0), _LEAST_DEVIATION)
    windows = np.stack([window.mean(axis=0) for window in _windows(recordings)]).astype(np.float64)
    residuals = windows - means[_nearest(windows / deviation, means / deviation)]
    deviation = np.maximum(np.sqrt((residuals**2).mean(axis=0)), _LEAST_DEVIATION)
    residuals /= deviation
    variances, vectors = np.linalg.eigh(residuals.T @ residuals / len(residuals))
    rank = min(RANK, len(variances) // 4, len(residuals) // 4)
    rest = max(float(variances[: len(variances) - rank].mean()), 1e-6)  # 0 if all windows are equal
    top = slice(len(variances) - rank, None)
    return FeatureReference.of(means, deviation, vectors[:, top].T, np.maximum(variances[top], rest), rest)


def _nearest(windows: npt.NDArray[np.float64], means: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    distances = (means**2).sum(axis=1) - 2 * windows @ means.T
    nearest: npt.NDArray[np.intp] = distances.argmin(axis=1)
    return nearest


def _distances(reference: FeatureReference, recordings: Sequence[_Measured]) -> npt.NDArray[np.float64]:
    """Distances of the recordings' windows from a reference whose threshold is 1."""
    familiarity = Familiarity(reference)
    return np.array([familiarity.score(window[:-1], window[-1]) for window in _windows(recordings)])


def _leave_groups_out(recordings: Sequence[_Measured]) -> Iterator[tuple[Sequence[_Measured], Sequence[_Measured]]]:
    """Split off each of up to ``FOLDS`` groups of subjects: (the others, the group); nothing for a single subject."""
    subjects = sorted({recording.sample.subject for recording in recordings})
    for k in range(min(FOLDS, len(subjects)) if len(subjects) > 1 else 0):
        group = set(subjects[k::FOLDS])
        yield (
            [recording for recording in recordings if recording.sample.subject not in group],
            [recording for recording in recordings if recording.sample.subject in group],
        )


def _rounded(value: float) -> float:
    """Round to four digits, which is enough for a bound."""
    return float(f"{value:.4g}")
