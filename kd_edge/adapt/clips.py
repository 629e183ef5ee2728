"""Folders of recorded clips through an artifact's own streaming step: the windows that a robot's camera would fill."""

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
"""Called with (clips done, clips in all)."""

MOST_WINDOWS = 16
"""Of one clip, about its middle: of a longer one more would not tell more, and cost as much as other clips."""


class Recorded(NamedTuple):
    """Clips of one folder that can be opened.

    Attributes:
        dataset: The folder.
        samples: Its clips.
        modality: Which of its modalities the model sees.
        labels: Class of each clip among the model's.
    """

    dataset: Files
    samples: tuple[Sample, ...]
    modality: str
    labels: tuple[int, ...]


class Watched(NamedTuple):
    """What a model made of the windows of clips.

    Attributes:
        features: (N, D) float32, each window's mean feature.
        logits: (N, K) float32.
        clips: (N,) which clip a window is of, from 0 without gaps.
        labels: (C,) class of each clip.
        subjects: Who performs in each clip; empty where not known.
        healthy: (N,) whether a window's pictures are like those of the training.
        shorter: Clips that do not fill a window.
        empty: Clips in whose windows there is nothing to see.
        cause: Why, of the first of them.
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
        """(N,) class of each window's clip."""
        return self.labels[self.clips]

    def clip_logits(self) -> Float32:
        """(C, K) mean logits of each clip's windows: the label that a robot gives is of their mean, too."""
        sums = np.zeros((len(self.labels), self.logits.shape[1]))
        np.add.at(sums, self.clips, self.logits)
        means: Float32 = (sums / np.bincount(self.clips)[:, None]).astype(np.float32)
        return means

    def answers(self) -> Int64:
        """(C,) class that each clip is taken for."""
        answers: Int64 = self.clip_logits().argmax(axis=1)
        return answers

    def accuracy(self) -> float:
        """Share of the clips that are taken for what they are."""
        return float((self.answers() == self.labels).mean())


def clips_of_class(folder: Path, label: str, position: int, manifest: Manifest) -> Recorded:
    """The clips of a new class: all in a folder, whatever its files are called.

    Raises:
        DataError: There is none, or what is there is not what the model sees.
    """
    _check_folder(folder, "--add")
    dataset = Files(folder, label=label)
    modality = _modality(dataset, manifest)
    samples = _with(dataset, modality)
    return Recorded(dataset, samples, modality, (position,) * len(samples))


def clips_to_keep(folder: Path, manifest: Manifest, added: Sequence[str]) -> Recorded:
    """The clips of the classes that a model knows, in folders of classes or with a manifest.

    Args:
        folder: The folder.
        manifest: The model's.
        added: Labels that are being added; clips of theirs may lie there, and are passed over.

    Raises:
        DataError: There is none, or one of another class, or what is there is not what the model sees.
    """
    _check_folder(folder, "--keep")
    dataset = Files(folder)
    if unknown := [label for label in dataset.labels if label not in (*manifest.labels, *added)]:
        raise DataError(
            f"{folder} holds clips of {listed(map(printable, unknown))}{did_you_mean(unknown[0], manifest.labels)}",
            f"classes that '{printable(manifest.name)}' knows: {', '.join(manifest.labels)}",
            "rename the folder, or add the class with --add",
        )
    modality = _modality(dataset, manifest)
    known = {k: manifest.labels.index(name) for k, name in enumerate(dataset.labels) if name in manifest.labels}
    samples = tuple(sample for sample in _with(dataset, modality) if sample.label in known)
    if not samples:
        raise DataError(
            f"{folder} has no clip of a class that the model knows", "some of each", "leave out --keep, or correct it"
        )
    return Recorded(dataset, samples, modality, tuple(known[s.label] for s in samples))


def watch(engine: Engine, recorded: Recorded, progress: Progress) -> Watched:
    """Take clips through a streaming step; each frame is encoded once, at the moments of the segments.

    Windows in whose pictures there is nothing to see, of which a robot says ``unknown`` whatever the network makes of
    them, are left out.

    Raises:
        ArtifactError: The model computes what is no number.
        DataError: A clip cannot be read, or none has a window with something to see.
        CameraError: Its frames are not what the model sees.
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
    """A clip; one that is damaged is named, because a class is judged by all that was recorded of it."""
    try:
        return recorded.dataset.open(sample, recorded.modality)
    except DataError as error:
        raise DataError(error.found, error.expected, "record it again, or take it out of the folder") from error


def _check_finite(seen: Sequence[tuple[Float32, Float32]], engine: Engine, name: str) -> None:
    if not all(np.isfinite(values).all() for answer in seen for values in answer):
        raise ArtifactError(
            f"'{printable(engine.manifest.name)}' computes what is no number of {name}",
            "finite features and logits",
            "leave the clip out, or export the run again in fp32",
        )


def _useless(recorded: Recorded, manifest: Manifest, shorter: int, cause: str) -> DataError:
    """What a folder without any window is refused with."""
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
        "pictures like those of the training, from which a robot says more than 'unknown'",
        "look at them (kd-edge run --camera replay:FILE), correct light and camera, and record again",
    )


def findings(clip: Clip, manifest: Manifest) -> list[Finding]:
    """What the pictures of each window that a clip fills are worth, as a stream is told when the window ends."""
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
    """Mean feature (D,) and logits (K,) of each window that a clip fills, one segment spacing apart."""
    at = moments(clip.stamps_ns, engine.manifest)
    return list(stepped(engine, recorded_input(clip, at, engine.manifest.preprocess))) if len(at) else []


def stepped(engine: Engine, frames: Float32) -> Iterator[tuple[Float32, Float32]]:
    """Mean feature (D,) and logits (K,) of each window of consecutive segments, stepped from a reset state.

    Args:
        engine: Of a streaming step.
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
    """(S,) positions of the frames that are segments: a spacing apart, the last or the middle ones of a clip.

    As of a stream, every one lies within half a spacing of its moment; none where the clip is shorter than a window
    or has a gap in it.
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
    """The modality of a folder that a model sees: of its name, or the only one of its band.

    Raises:
        DataError: There is none, or it is of another range.
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
    fitting = [name for name, its in formats.items() if its.band == manifest.band]
    wanted = f"{manifest.dtype} frames of {manifest.band}, as '{printable(manifest.name)}' was trained with"
    if manifest.modality in fitting:
        fitting = [manifest.modality]
    if len(fitting) != 1:
        found = ", ".join(f"{name} ({its.band})" for name, its in formats.items()) or "no pictures"
        raise DataError(
            f"{dataset.root} holds {found}",
            wanted,
            f"name the files NAME_{manifest.modality}, or set band in dataset.toml",
        )
    (name,) = fitting
    given = dataset.settings.of(name).range
    if given is not None and given != manifest.value_range:
        raise DataError(
            f"{dataset.root} holds values from {given[0]:g} to {given[1]:g}",
            f"{manifest.value_range[0]:g} to {manifest.value_range[1]:g} {manifest.value_unit}",
            "record with the settings of the training, or correct range in dataset.toml",
        )
    return name


def _with(dataset: Files, modality: str) -> tuple[Sample, ...]:
    """The clips that have a modality."""
    pairs = zip(dataset.samples, dataset.rows, strict=True)
    return tuple(sample for sample, row in pairs if modality in row.files)
