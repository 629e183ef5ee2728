"""Run recorded clips through an artifact's streaming step, in the windows that a robot's camera would fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.artifact import Manifest
from kd_edge.data import ImageFormat, Sample
from kd_edge.data.dataset import listed
from kd_edge.data.readers.files import Files
from kd_edge.data.readers.files.skeletons import SKELETON
from kd_edge.engines import Engine, carry
from kd_edge.errors import ArtifactError, DataError, did_you_mean, printable
from kd_edge.health import FINE, Finding, PictureHealth
from kd_edge.preprocess import recorded_input
from kd_edge.resizing import resize
from kd_edge.runtime.source import check_frame, seen_ns
from kd_edge.sampling import nearest
from kd_edge.types import Clip, Float32, Int64, LabelState

Progress = Callable[[int, int], None]
"""Called with (clips done, total clips)."""

MOST_WINDOWS = 16
"""Windows used per clip, around its middle; more windows of a long clip add little and cost as much as other clips."""


class Recorded(NamedTuple):
    """Recorded clips of one folder.

    Attributes:
        dataset: The folder.
        samples: Its clips.
        modality: The modality that the model sees.
        labels: Class index of each clip in the model.
    """

    dataset: Files
    samples: tuple[Sample, ...]
    modality: str
    labels: tuple[int, ...]


class Watched(NamedTuple):
    """Features and logits of the windows of clips.

    Attributes:
        features: (N, D) float32, mean feature of each window.
        logits: (N, K) float32.
        clips: (N,) clip index of each window, from 0 without gaps.
        labels: (C,) class of each clip.
        subjects: Person in each clip; empty if not known.
        healthy: (N,) whether the pictures of a window are like those of training.
        shorter: Number of clips that do not fill a window.
        empty: Number of clips whose windows show nothing.
        cause: The reason for the first of these.
    """

    features: Float32
    logits: Float32
    clips: Int64
    labels: Int64
    subjects: tuple[str, ...]
    healthy: npt.NDArray[np.bool_]
    shorter: int = 0
    empty: int = 0
    cause: str = ""

    @property
    def window_labels(self) -> Int64:
        """(N,) class of each window, that of its clip."""
        return self.labels[self.clips]

    def clip_logits(self) -> Float32:
        """(C, K) mean logits over the windows of each clip, as the runtime averages them."""
        sums = np.zeros((len(self.labels), self.logits.shape[1]))
        np.add.at(sums, self.clips, self.logits)
        means: Float32 = (sums / np.bincount(self.clips)[:, None]).astype(np.float32)
        return means

    def answers(self) -> Int64:
        """(C,) predicted class of each clip."""
        answers: Int64 = self.clip_logits().argmax(axis=1)
        return answers

    def accuracy(self) -> float:
        """Share of clips that are classified correctly."""
        return float((self.answers() == self.labels).mean())


def clips_of_class(folder: Path, label: str, position: int, manifest: Manifest) -> Recorded:
    """Return all clips of a folder as clips of a new class, whatever the files are called.

    Raises:
        DataError: The folder has no clips, or not in the modality that the model sees.
    """
    _check_folder(folder, "--add")
    dataset = Files(folder, label=label)
    modality = _modality(dataset, manifest)
    samples = _with(dataset, modality)
    return Recorded(dataset, samples, modality, (position,) * len(samples))


def clips_to_keep(folder: Path, manifest: Manifest, added: Sequence[str]) -> Recorded:
    """Return the clips of a model's existing classes, from folders of classes or a manifest.

    Args:
        folder: The folder.
        manifest: Manifest of the model.
        added: Labels that are being added; clips of these are ignored.

    Raises:
        DataError: The folder has no clips, clips of other classes, or not the modality that the model sees.
    """
    _check_folder(folder, "--keep")
    dataset = Files(folder)
    if unknown := [label for label in dataset.labels if label not in (*manifest.labels, *added)]:
        raise DataError(
            f"{folder} contains clips of {listed(map(printable, unknown))}{did_you_mean(unknown[0], manifest.labels)}",
            f"classes that '{printable(manifest.name)}' knows: {', '.join(manifest.labels)}",
            "rename the folder, or add the class with --add",
        )
    modality = _modality(dataset, manifest)
    known = {k: manifest.labels.index(name) for k, name in enumerate(dataset.labels) if name in manifest.labels}
    samples = tuple(sample for sample in _with(dataset, modality) if sample.label in known)
    if not samples:
        raise DataError(
            f"{folder} has no clip of a class that the model knows", "clips of each class", "omit or correct --keep"
        )
    return Recorded(dataset, samples, modality, tuple(known[s.label] for s in samples))


def watch(engine: Engine, recorded: Recorded, progress: Progress) -> Watched:
    """Run clips through a streaming step; each segment's frame is encoded once.

    Windows whose pictures show nothing are left out: a robot labels these ``unknown`` without asking the network.

    Args:
        engine: The engine of the streaming step.
        recorded: The clips.
        progress: Called after each clip.

    Raises:
        ArtifactError: The model gives features or logits that are not finite.
        DataError: A clip cannot be read, or no clip has a usable window.
        CameraError: The frames are not of the kind that the model sees.
    """
    manifest = engine.manifest
    features, logits, clips, healthy = list[Float32](), list[Float32](), list[int](), list[bool]()
    labels, subjects = list[int](), list[str]()
    shorter = empty = 0
    cause = ""
    for done, (sample, label) in enumerate(zip(recorded.samples, recorded.labels, strict=True), 1):
        clip = _opened(recorded, sample)
        name = printable(str(recorded.dataset.path(sample, recorded.modality)))
        check_frame(clip.frames[0], manifest, name)
        of_clip = findings(clip, manifest)
        use = [k for k, finding in enumerate(of_clip) if finding.state is not LabelState.UNKNOWN]
        if not of_clip:
            shorter += 1
        elif not use:
            empty += 1
            cause = cause or f"{of_clip[-1].cause.reason}: {of_clip[-1].cause.detail}"
        else:
            seen = windows(engine, clip)
            _check_finite(seen, engine, name)
            features += [seen[k][0] for k in use]
            logits += [seen[k][1] for k in use]
            healthy += [of_clip[k] is FINE for k in use]
            clips += [len(labels)] * len(use)
            labels.append(label)
            subjects.append(sample.subject)
        progress(done, len(recorded.samples))
    if not labels:
        raise _useless(recorded, manifest, shorter, cause)
    return Watched(
        features=np.stack(features),
        logits=np.stack(logits),
        clips=np.array(clips, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        subjects=tuple(subjects),
        healthy=np.array(healthy, dtype=np.bool_),
        shorter=shorter,
        empty=empty,
        cause=cause,
    )


def _opened(recorded: Recorded, sample: Sample) -> Clip:
    """Open a clip. A damaged one is an error: a class is judged by everything that was recorded of it."""
    try:
        return recorded.dataset.open(sample, recorded.modality)
    except DataError as error:
        raise DataError(error.found, error.expected, "record it again, or take it out of the folder") from error


def _check_finite(seen: Sequence[tuple[Float32, Float32]], engine: Engine, name: str) -> None:
    if not all(np.isfinite(values).all() for answer in seen for values in answer):
        raise ArtifactError(
            f"'{printable(engine.manifest.name)}' gives values that are not finite on {name}",
            "finite features and logits",
            "leave the clip out, or export the run again in fp32",
        )


def _useless(recorded: Recorded, manifest: Manifest, shorter: int, cause: str) -> DataError:
    """The error for a folder without a usable window."""
    count, root = len(recorded.samples), recorded.dataset.root
    if shorter == count:
        return DataError(
            f"all {count} clips in {root} are shorter than the model's window of {manifest.clip_seconds:g} s",
            "clips that fill it",
            "record longer ones, or train with a smaller clip_seconds",
        )
    return DataError(
        f"in {count - shorter} of {count} clips in {root} there is nothing to see ({cause})"
        + (f", {shorter} are too short" if shorter else ""),
        "pictures like those of training, which a robot does not label 'unknown'",
        "look at them (kd-edge run --camera replay:FILE), correct light and camera, and record again",
    )


def findings(clip: Clip, manifest: Manifest) -> list[Finding]:
    """Health of the pictures of each window that a clip fills, as the runtime reports it at the end of the window."""
    at = moments(clip.stamps_ns, manifest)
    ends = at[manifest.segments - 1 :]
    if manifest.health is None or not len(at):
        return [FINE] * len(ends)
    health, spec = PictureHealth(manifest.health, seen_ns(manifest)), manifest.preprocess
    found = list[Finding]()
    for k in range(at[0], at[-1] + 1):
        health.see(resize(clip.frames[k], spec.resize_px, spec.holes), int(clip.stamps_ns[k]))
        found.append(health.finding)
    return [found[k - at[0]] for k in ends]


def windows(engine: Engine, clip: Clip) -> list[tuple[Float32, Float32]]:
    """Return mean feature (D,) and logits (K,) of each window of a clip, one segment spacing apart."""
    at = moments(clip.stamps_ns, engine.manifest)
    return list(stepped(engine, recorded_input(clip, at, engine.manifest.preprocess))) if len(at) else []


def stepped(engine: Engine, frames: Float32) -> Iterator[tuple[Float32, Float32]]:
    """Yield mean feature (D,) and logits (K,) of each window of consecutive segments, from a reset state.

    Args:
        engine: The engine of a streaming step.
        frames: (S, C, S, S) float32, network input of the segments, T or more.
    """
    binding, length = engine.bind(1), engine.manifest.segments
    older: list[Float32] = []  # features of the T - 1 segments before
    for frame in frames:
        binding.frame[0] = frame
        for row, feature in zip(binding.past[0], older, strict=False):
            row[:] = feature
        binding.run()
        window = [*older, binding.feature[0].copy()]
        if len(window) == length:
            yield np.mean(window, axis=0, dtype=np.float32), binding.logits[0].copy()
            window.pop(0)
        older = window
        carry(binding)
    binding.close()


def moments(stamps_ns: Int64, manifest: Manifest) -> Int64:
    """(S,) indices of the frames that are segments, one spacing apart, at the end or the middle of a clip.

    As in a stream, each frame is within half a spacing of its target time. Empty if the clip is shorter than a window
    or has a gap.
    """
    spacing_ns, length = manifest.spacing_ns, manifest.segments
    first_ns, last_ns = int(stamps_ns[0]), int(stamps_ns[-1])
    count = (last_ns - first_ns + spacing_ns // 2) // spacing_ns + 1
    most = length - 1 + MOST_WINDOWS
    end_ns = last_ns - max(0, count - most) // 2 * spacing_ns
    targets = end_ns - np.arange(min(count, most) - 1, -1, -1, dtype=np.int64) * spacing_ns
    at = nearest(stamps_ns, targets)
    is_near = np.abs(stamps_ns[at] - targets) * 2 <= spacing_ns
    return at if count >= length and bool(is_near.all()) else at[:0]


def _check_folder(folder: Path, option: str) -> None:
    if not folder.is_dir():
        raise DataError(f"no folder {printable(str(folder))}", "a folder of recordings", f"correct {option}")


def _modality(dataset: Files, manifest: Manifest) -> str:
    """The modality of a folder that a model sees: the one of its name, or the only one of its band.

    Raises:
        DataError: There is none, or its value range differs.
    """
    formats: dict[str, ImageFormat] = {}
    fault: DataError | None = None
    for name in dataset.modalities:
        if name not in (*dataset.sensors, SKELETON):
            try:
                formats[name] = dataset.image_format(name)
            except DataError as error:
                fault = error
    if fault is not None and not formats:
        raise fault
    fitting = [name for name, image in formats.items() if image.band == manifest.band]
    wanted = f"{manifest.dtype} frames of {manifest.band}, as '{printable(manifest.name)}' was trained on"
    if manifest.modality in fitting:
        fitting = [manifest.modality]
    if len(fitting) != 1:
        found = ", ".join(f"{name} ({image.band})" for name, image in formats.items()) or "no pictures"
        raise DataError(
            f"{dataset.root} contains {found}",
            wanted,
            f"name the files NAME_{manifest.modality}, or set band in dataset.toml",
        )
    (name,) = fitting
    given = dataset.settings.of(name).range
    if given is not None and given != manifest.value_range:
        raise DataError(
            f"{dataset.root} has values from {given[0]:g} to {given[1]:g}",
            f"{manifest.value_range[0]:g} to {manifest.value_range[1]:g} {manifest.value_unit}",
            "record with the settings of training, or correct range in dataset.toml",
        )
    return name


def _with(dataset: Files, modality: str) -> tuple[Sample, ...]:
    """The clips of a folder that have a modality."""
    pairs = zip(dataset.samples, dataset.rows, strict=True)
    return tuple(sample for sample, row in pairs if modality in row.files)
