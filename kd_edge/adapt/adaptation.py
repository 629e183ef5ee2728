"""Add classes to an artifact: run their clips, fit one row per class, verify the result and write a new file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from kd_edge import metrics
from kd_edge.adapt.clips import Recorded, Watched, clips_of_class, clips_to_keep, stepped, watch
from kd_edge.adapt.gate import Gate, Others, gated
from kd_edge.adapt.graph import graph_of
from kd_edge.adapt.growing import Grown, grow
from kd_edge.artifact import AddedClass, Artifact, GoldenClip, Manifest, SigningKey, beside, load, sign, wire, write
from kd_edge.artifact.access import reading
from kd_edge.artifact.manifest import Label
from kd_edge.data.readers.files.rows import plain
from kd_edge.engines import Engine, open_engine
from kd_edge.errors import ArtifactError, ConfigError, DataError, printable
from kd_edge.files import check_writable
from kd_edge.health import Familiarity, FeatureReference
from kd_edge.preprocess import recorded_input
from kd_edge.sampling import gather
from kd_edge.types import Clip

Progress = Callable[[str, int, int], None]
"""Called with (description, clips done, total clips)."""

THRESHOLD_CLIPS = 3
"""Kept clips that each class needs for the unknown threshold to be refitted."""
_TOLERANCE = 1e-3  # between the new logits of the graph and of NumPy


@dataclass(frozen=True, slots=True)
class Adapted:
    """Result of `adapt`.

    Attributes:
        file: The file that was written.
        labels: Labels of all classes, the new ones last.
        added: Facts about each class added by this call.
        unknown_threshold: The threshold before and after.
        kept_left_out: Kept clips that were not used: shorter than a window, or with nothing to see.
        kept_familiar: Share of the kept clips' windows that are familiar to the original artifact; None without kept
            clips.
        left_out: Attachments for other engines, dropped because they do not know the new classes.
        was_signed: Whether the original artifact was signed, or a signature lies next to ``file``; neither is valid for
            the new file.
        is_signed: Whether the new file is signed.
        seconds: Duration of the call.
    """

    file: Path
    labels: tuple[str, ...]
    added: tuple[AddedClass, ...]
    unknown_threshold: tuple[float, float]
    kept_left_out: int
    kept_familiar: float | None
    left_out: tuple[str, ...]
    was_signed: bool
    is_signed: bool
    seconds: float


def adapt(
    model: Path,
    classes: Sequence[tuple[str, Path]],
    out: Path,
    *,
    keep: Path | None = None,
    key: Path | None = None,
    force: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Adapted:
    """Add classes to a streaming step with NumPy and ONNX Runtime alone: no torch, no onnx.

    Classes are added one after the other, each fitted against all earlier ones. The existing logits stay bit-identical;
    those of the new classes are appended.

    Args:
        model: The artifact.
        classes: Label and clip folder of each new class.
        out: The artifact to write; replaced only if everything succeeds.
        keep: Clips of the existing classes, used to verify the result and to fit its limits.
        key: Private key to sign with.
        force: Write the file even if more than ``growing.MOST_LOST`` of the kept clips become wrong.
        threads: Threads of the engine.
        progress: Called after each clip.

    Raises:
        ArtifactError: The artifact is not a streaming step or has no statistics of its classes' features, or ``out``
            cannot be written.
        ConfigError: A label is invalid or exists already, or the key is invalid.
        DataError: Clips cannot be read or are too few, or a class cannot be distinguished from another one.
    """
    started = time.monotonic()
    artifact = load(model)
    was_signed = _is_signed(artifact.path) or beside(out).exists()
    labels = [label for label, _ in classes]
    check_labels(artifact.manifest, labels)
    _check_adaptable(artifact, keep)
    check_writable(out, ArtifactError)
    signing = None if key is None else SigningKey(key)
    folders = [
        clips_of_class(folder, label, len(artifact.manifest.labels) + k, artifact.manifest)
        for k, (label, folder) in enumerate(classes)
    ]
    kept_folder = None if keep is None else clips_to_keep(keep, artifact.manifest, labels)
    with open_engine(artifact, threads=threads) as engine:
        report = progress or (lambda what, done, total: None)
        new = [
            _watched(engine, clips, f"clips of '{label}'", report) for label, clips in zip(labels, folders, strict=True)
        ]
        kept = None if kept_folder is None else _watched(engine, kept_folder, "clips to keep", report)
        grown = Grown(graph_of(artifact), artifact.manifest, _others(artifact, kept), kept, kept)
        for label, watched in zip(labels, new, strict=True):
            grown = grow(grown, label, watched, artifact.path, force=force)
        manifest = _refitted(grown)
        with _scratch(out) as folder:
            final = folder / out.name
            write(grown.graph, manifest, None, final)
            golden = _proved(engine, load(final), grown.gates, artifact.golden, threads)
            write(grown.graph, manifest, golden, final)
            if signing is not None:
                sign(final, signing)
            load(final)  # as a robot will
            final.replace(out)
    return Adapted(
        file=out,
        labels=manifest.labels,
        added=manifest.added[len(artifact.manifest.added) :],
        unknown_threshold=(artifact.manifest.unknown_threshold, manifest.unknown_threshold),
        kept_left_out=0 if kept is None else kept.shorter + kept.empty,
        kept_familiar=_known_share(artifact.manifest.familiar, kept),
        left_out=tuple(artifact.attachments),
        was_signed=was_signed,
        is_signed=signing is not None,
        seconds=time.monotonic() - started,
    )


def check_labels(manifest: Manifest, labels: Sequence[str]) -> None:
    """Check that the labels of new classes are valid, and new to the model and to this call.

    Raises:
        ConfigError: A label is not; the first one is named.
    """
    known = list(manifest.labels)
    for label in labels:
        try:
            TypeAdapter(Label).validate_python(label)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"--add '{printable(label[:40])}': {why}", "the name of a class", "correct it") from error
        if alike := next((one for one in known if plain(one) == plain(label)), None):
            raise ConfigError(
                f"--add '{label}', which is a class already ('{alike}')"
                if alike in manifest.labels
                else f"--add '{label}' twice",
                f"a class other than {', '.join(manifest.labels)}",
                "choose another name; to use more clips of a known class, train again (kd-edge train)",
            )
        known.append(label)


def _check_adaptable(artifact: Artifact, keep: Path | None) -> None:
    manifest = artifact.manifest
    if manifest.graph != "step":
        raise ArtifactError(
            f"{artifact.path} is a {manifest.graph} graph, without features to adapt",
            "a streaming step",
            "export the run again with --graph step",
        )
    if manifest.familiar is None and keep is None:
        raise ArtifactError(
            f"{artifact.path} has no statistics of its classes' features",
            "an artifact that has them, or clips of all its classes",
            "export the run again (health = true in the profile), or add --keep DIR",
        )
    if manifest.familiar is not None and manifest.familiar.classes != len(manifest.labels):
        raise ArtifactError(
            f"{artifact.path} has statistics of the features of {manifest.familiar.classes} of its "
            f"{len(manifest.labels)} classes",
            "statistics of all classes",
            "export the run again with a larger health_clips",
        )


def _watched(engine: Engine, clips: Recorded, what: str, report: Progress) -> Watched:
    return watch(engine, clips, lambda done, total: report(what, done, total))


def _others(artifact: Artifact, kept: Watched | None) -> Others:
    """Feature statistics of the artifact's classes: from its training side if stored, otherwise from the kept clips."""
    labels = artifact.manifest.labels
    if artifact.manifest.familiar is not None:
        return Others.of_reference(artifact.manifest.familiar)
    assert kept is not None  # _check_adaptable refused it otherwise
    if missing := sorted(set(range(len(labels))) - set(kept.labels.tolist())):
        raise DataError(
            f"no clip of '{printable(labels[missing[0]])}' is kept, and {artifact.path} has no statistics of its "
            "features",
            "clips of every class",
            "add some to the folder of --keep, or export the run again (health = true in the profile)",
        )
    if (count := len(kept.features)) < 2 * len(labels):
        raise DataError(
            f"the kept clips have {count} windows of {len(labels)} classes, too few to estimate the spread within "
            "a class",
            "two windows of each class, preferably clips of several people",
            "add clips to the folder of --keep, or export the run again (health = true in the profile)",
        )
    return Others.of_windows(kept.features, kept.window_labels)


def _known_share(reference: FeatureReference | None, kept: Watched | None) -> float | None:
    """Share of kept windows that are familiar; a low share means that camera or place differ from those of training."""
    if reference is None or kept is None:
        return None
    familiarity, none = Familiarity(reference), np.empty((0, reference.size), dtype=np.float32)
    return float(np.mean([familiarity.score(none, feature) <= 1 for feature in kept.features]))


def _refitted(grown: Grown) -> Manifest:
    """The manifest with the measured accuracy of the added classes and, given enough clips, a refitted threshold."""
    manifest, seen = grown.manifest, grown.seen
    before, these = manifest.added[: -len(grown.new)], manifest.added[-len(grown.new) :]
    measured = (
        facts.model_copy(update={"accuracy": clips.accuracy()}) for facts, clips in zip(these, grown.new, strict=True)
    )
    manifest = manifest.model_copy(update={"added": (*before, *measured)})
    truth = np.concatenate([clips.labels for clips in seen])
    counts = np.bincount(truth, minlength=len(manifest.labels))
    if counts.min() < THRESHOLD_CLIPS:
        return manifest
    logits = np.concatenate([clips.clip_logits() for clips in seen])
    threshold = metrics.fit_unknown_threshold(metrics.softmax(logits, manifest.temperature), truth)
    side = f"{sum(len(clips.labels) for clips in seen)} clips: kept, and held out of the classes that were added"
    return manifest.model_copy(update={"unknown_threshold": threshold, "calibrated_on": side})


def _proved(
    engine: Engine, written: Artifact, gates: Sequence[Gate], golden: GoldenClip | None, threads: int
) -> GoldenClip | None:
    """Check the logits of the written file; return the golden clip with the new classes' logits appended.

    Raises:
        ArtifactError: The written file computes wrong logits.
    """
    manifest, count = written.manifest, len(engine.manifest.labels)
    clip = np.zeros((manifest.segments, *engine.tensors.inputs["frame"]), dtype=np.float32)
    if golden is not None:
        at = gather(golden.stamps_ns, int(golden.stamps_ns[-1]), manifest.segments, manifest.spacing_ns)
        if at is not None:
            clip = recorded_input(Clip(golden.frames, golden.stamps_ns), at, manifest.preprocess)
    ((feature, logits),) = stepped(engine, clip)
    with open_engine(written, threads=threads) as opened:
        ((_, found),) = stepped(opened, clip)
    wanted = logits[None]
    for gate in gates:
        wanted = gated(wanted, gate(feature[None]), manifest.temperature)
    error = np.abs(found - wanted[0]) / np.maximum(1, np.abs(wanted[0]))
    if not np.array_equal(found[:count], logits) or not float(error.max()) <= _TOLERANCE:
        raise ArtifactError(
            f"the adapted graph gives logits that differ by {float(np.abs(found - wanted[0]).max()):.2g} on "
            f"{opened.name}",
            "the artifact's logits, followed by the fitted ones",
            "try another release of onnxruntime; nothing was written",
        )
    if golden is None:
        return None
    larger = max(1.0, float(np.abs(found).max())) / max(1.0, float(np.abs(golden.logits).max()))
    together = np.concatenate([golden.logits, found[count:]])
    return replace(golden, logits=together, tolerance=golden.tolerance * max(1.0, larger))


def _is_signed(path: Path) -> bool:
    with reading(path) as file:
        return wire.ends(file, path).signature is not None or beside(path).exists()


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A temporary folder next to ``out``, for the file before it is moved there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            yield Path(folder)
    except OSError as error:
        raise ArtifactError(
            f"{out} cannot be written ({error.strerror or error})",
            "a writable folder with free space",
            "free space or choose another folder with --out",
        ) from error
