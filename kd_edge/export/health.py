"""What pictures, features and gaps between frames are usual: fitted to training recordings. Needs no torch."""

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
"""Recordings that are looked at, unless a profile says otherwise."""
EXTREME = 0.005
"""Share of training pictures, and of familiar windows, that an extreme passes over."""
USUAL = 0.75
"""Share of the recordings that tell how uneven frames come: those of a camera that lost some do not."""
MARGIN = 1.1
"""A live camera's windows may lie so many times as far from the classes as recordings left out of the reference."""
FEW_PEOPLE = 3
"""Fewer people than these, who were left out, do not tell how much the next one differs: the margin is wider."""
RANK = 64
"""Directions of a reference, at most."""
FOLDS = 4
"""Parts of the training side that stand in for a validation side."""
_NEAR_LIMIT = 0.98  # of the value range: sensors clip a little below it, and so does the average of a resized pixel
_LEAST_DEVIATION = 1e-3
_LEAST_NOISE = 0.1  # a bound below: recordings without a background show no noise


class Fitted(NamedTuple):
    """Fields of a manifest."""

    health: PictureBounds
    familiar: FeatureReference
    segment_error_ms: float


class _Seen(NamedTuple):
    """What was seen of one recording: stamps (N,), figures of pictures, features (T, D) of its segments."""

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
    """Fit what a manifest says of healthy pictures and familiar features; the test side is never looked at.

    Args:
        artifact: A streaming step; its features are taken in its own precision.
        dataset: What it was trained on.
        validation: Recordings of the training side that it did not learn from; without any, groups of subjects are
            left out of the reference in turn.
        clips: Recordings at most, spread evenly over the training side.
        threads: Of the engine.

    Raises:
        DataError: The split is unknown, or not one recording can be read.
    """
    held_out = {sample.id for sample in validation}
    train = [s for s in dataset.split(artifact.manifest.split).train if s.id not in held_out]
    with open_engine(artifact, engine="onnxruntime", threads=threads) as engine:
        seen = list(_readable(engine, dataset, spread(train, clips)))
        proof = list(_readable(engine, dataset, spread(validation, clips))) if validation else []
    pictures = [picture for one in seen for picture in one.pictures]
    return Fitted(
        fit_bounds(pictures, artifact.manifest, len(seen)),
        fit_reference(seen, proof),
        fit_segment_error([one.stamps_ns for one in seen], artifact.manifest),
    )


def refit(artifact: Artifact, dataset: Dataset, out: Path, *, clips: int = CLIPS) -> Manifest:
    """Write an artifact again with newly fitted fields; its graph and golden clip stay byte for byte.

    Raises:
        DataError: As ``fit_artifact``.
        ArtifactError: ``out`` cannot be written.
    """
    fitted = fit_artifact(artifact, dataset, clips=clips)
    return rewrite(artifact, artifact.manifest.model_copy(update=fitted._asdict()), out)


def fit_bounds(pictures: Sequence[Picture], manifest: Manifest, clips: int) -> PictureBounds:
    """Extremes of training pictures, with a margin.

    A picture of a quarter of the brightness and contrast, three quarters of the sharpness, twice the noise or with a
    tenth more of its pixels at the limit is still healthy: cameras of a kind differ by as much, and a percentile window
    follows them. A fixed window does not: there it is half the brightness and contrast.
    """
    spec = manifest.preprocess
    ignored = None if isinstance(spec.window, FixedWindow) else spec.window.ignore_value
    figures = np.array(pictures)
    figures[~np.isfinite(figures)] = np.nan  # the change before a first picture
    low = Picture(*np.nanquantile(figures, EXTREME, axis=0).tolist())
    high = Picture(*np.nanquantile(figures, 1 - EXTREME, axis=0).tolist())
    dimmed = 2 if isinstance(spec.window, FixedWindow) else 4
    return PictureBounds(
        mean=_short(low.mean / dimmed) if ignored is None else 0.0,  # of a distance, near is not dark
        contrast=_short(low.contrast / dimmed),
        saturated=_short(min(1.0, high.saturated + 0.1)),
        measured=_short(low.measured / 2) if ignored is not None else 0.0,
        grain=_short((high.grain + max(1.0, high.grain)) / 2),
        sharpness=_short(0.75 * low.sharpness),
        noise=_short(max(_LEAST_NOISE, 2 * high.noise)),
        moves=low.change > 0,
        saturation=_short(saturation_of(manifest)),
        ignore_value=ignored,
        side=f"training side of {manifest.split}",
        clips=clips,
        frames=len(pictures),
    )


def fit_segment_error(stamps_ns: Sequence[Int64], manifest: Manifest) -> float:
    """How far frames lie from their segments' moments at worst, in three of four recordings, milliseconds.

    Args:
        stamps_ns: (N,) int64 of each recording; one with a gap of more than two spacings is two.
        manifest: Of the model.

    Returns:
        Of windows as a stream fills them; 0 where no recording fills one.
    """
    spacing_ns = manifest.spacing_ns
    back_ns = np.arange(manifest.segments, dtype=np.int64) * spacing_ns
    worst = []
    parts = (np.split(one, np.flatnonzero(np.diff(one) > 2 * spacing_ns) + 1) for one in stamps_ns)
    for stamps in chain.from_iterable(parts):
        ends = stamps[stamps - back_ns[-1] >= stamps[:1]]
        moments = ends[:, None] - back_ns  # (W, T): of windows that end with a frame
        errors = np.abs(stamps[nearest(stamps, moments)] - moments).max(axis=1)
        full = errors[2 * errors <= spacing_ns]  # others are no windows
        worst += [int(full.max())] if len(full) else []
    return _short(float(np.quantile(worst, USUAL)) / 1e6) if worst else 0.0


def saturation_of(manifest: Manifest) -> float:
    """The raw value from which on a pixel is at the limit of the sensor, or of a fixed window."""
    (least, most), window = manifest.value_range, manifest.preprocess.window
    limit = least + _NEAR_LIMIT * (most - least)
    return min(limit, window.high) if isinstance(window, FixedWindow) else limit


def fit_reference(seen: Sequence[_Seen], proof: Sequence[_Seen]) -> FeatureReference:
    """Reference of training recordings; the threshold is decided by recordings it does not know.

    Of one or two people it is not known how much people differ: the bound is then twice and one and a half times as
    wide.
    """
    reference = _reference(seen)
    if proof:
        distances, fitted_on = _distances(reference, proof), "validation clips"
    else:
        parts = list(_left_out(seen))
        distances = np.concatenate([_distances(_reference(rest), part) for rest, part in parts or [(seen, seen)]])
        fitted_on = f"training clips, {len(parts)} groups of subjects left out in turn" if parts else "training clips"
    people = len({one.sample.subject for one in proof or seen})
    margin = MARGIN
    if people < FEW_PEOPLE:
        margin *= 1 + 1 / people
        fitted_on += f" of {people} {'person' if people == 1 else 'people'}: a wide bound"
    facts = {
        "threshold": _short(max(margin * float(np.quantile(distances, 1 - EXTREME)), 1e-3)),
        "fitted_on": fitted_on,
        "clips": len(seen),
        "windows": len(distances),
    }
    return reference.model_copy(update=facts)


def _readable(engine: Engine, dataset: Dataset, samples: Sequence[Sample]) -> Iterator[_Seen]:
    """What is seen of recordings; damaged ones are passed over, as long as one can be read."""
    faults: list[DataError] = []
    for sample in samples:
        try:
            clip = dataset.open(sample, engine.manifest.modality)
        except DataError as error:
            faults.append(error)
            continue
        spec = engine.manifest.preprocess
        resized = Clip(np.stack([resize(frame, spec.resize_px, spec.holes) for frame in clip.frames]), clip.stamps_ns)
        yield _Seen(sample, clip.stamps_ns, _pictures(resized, engine.manifest), _features(engine, resized))
    if len(faults) == len(samples):
        raise faults[0] if faults else DataError("no training clip", "at least one", "kd-edge data check")


def _pictures(resized: Clip, manifest: Manifest) -> list[Picture]:
    """Figures of the pictures that a stream would look at."""
    window = manifest.preprocess.window
    ignored = None if isinstance(window, FixedWindow) else window.ignore_value
    meter = PictureMeter(resized.frames[0], saturation_of(manifest), ignored)
    pictures, looked_ns = [], -LOOK_NS
    for frame, stamp_ns in zip(resized.frames, resized.stamps_ns.tolist(), strict=True):
        if stamp_ns - looked_ns >= LOOK_NS:
            pictures.append(meter.measure(frame))
            looked_ns = stamp_ns
    return pictures


def _features(engine: Engine, resized: Clip) -> Float32:
    """Features (T, D) of a recording's segments, stepped from a reset state."""
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


def _windows(seen: Sequence[_Seen]) -> list[Float32]:
    """Features (T, D) of windows as a stream has them: recordings, and the end of one with the start of the next."""
    windows = [one.features for one in seen]
    ordered = sorted(seen, key=lambda one: (one.sample.subject, one.sample.view, one.sample.id))
    for one, other in pairwise(ordered):
        if (one.sample.subject, one.sample.view) == (other.sample.subject, other.sample.view):
            length = len(one.features)
            cuts = sorted({length // 4, length // 2, 3 * length // 4} - {0})
            windows += [np.concatenate([one.features[cut:], other.features[:cut]]) for cut in cuts]
    return windows


def _reference(seen: Sequence[_Seen]) -> FeatureReference:
    """Class means of recordings, and how windows differ from the nearest of them."""
    labels = np.array([one.sample.label for one in seen])
    own = np.stack([one.features.mean(axis=0) for one in seen]).astype(np.float64)
    classes, of = np.unique(labels, return_inverse=True)
    means = np.stack([own[of == k].mean(axis=0) for k in range(len(classes))])
    deviation = np.maximum((own - means[of]).std(axis=0), _LEAST_DEVIATION)
    windows = np.stack([window.mean(axis=0) for window in _windows(seen)]).astype(np.float64)
    residuals = windows - means[_nearest(windows / deviation, means / deviation)]
    deviation = np.maximum(np.sqrt((residuals**2).mean(axis=0)), _LEAST_DEVIATION)
    residuals /= deviation
    variances, vectors = np.linalg.eigh(residuals.T @ residuals / len(residuals))
    rank = min(RANK, len(variances) // 4, len(residuals) // 4)
    rest = max(float(variances[: len(variances) - rank].mean()), 1e-6)  # windows that are all alike have none
    top = slice(len(variances) - rank, None)
    return FeatureReference.of(means, deviation, vectors[:, top].T, np.maximum(variances[top], rest), rest)


def _nearest(windows: npt.NDArray[np.float64], means: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    distances = (means**2).sum(axis=1) - 2 * windows @ means.T
    nearest: npt.NDArray[np.intp] = distances.argmin(axis=1)
    return nearest


def _distances(reference: FeatureReference, seen: Sequence[_Seen]) -> npt.NDArray[np.float64]:
    """Distances of recordings' windows by a reference whose threshold is 1."""
    familiarity = Familiarity(reference)
    return np.array([familiarity.score(window[:-1], window[-1]) for window in _windows(seen)])


def _left_out(seen: Sequence[_Seen]) -> Iterator[tuple[Sequence[_Seen], Sequence[_Seen]]]:
    """Recordings without one of ``FOLDS`` groups of subjects, and that group; none where all are one subject's."""
    subjects = sorted({one.sample.subject for one in seen})
    for k in range(min(FOLDS, len(subjects)) if len(subjects) > 1 else 0):
        group = set(subjects[k::FOLDS])
        yield (
            [one for one in seen if one.sample.subject not in group],
            [one for one in seen if one.sample.subject in group],
        )


def _short(value: float) -> float:
    """Four digits: a bound is no more exact."""
    return float(f"{value:.4g}")
