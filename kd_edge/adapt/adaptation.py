"""Add classes to a finished artifact: watch their clips, fit a row for each, prove it, write the file again."""

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
"""Called with (what, clips done, clips in all)."""

THRESHOLD_CLIPS = 3
"""Kept clips that each class must have for the unknown threshold to be fitted anew."""
_TOLERANCE = 1e-3  # between a new logit of the graph and of NumPy


@dataclass(frozen=True, slots=True)
class Adapted:
    """What was written.

    Attributes:
        file: The file.
        labels: Of all classes, the new ones last.
        added: Facts of each class of this call.
        unknown_threshold: Before and after.
        kept_left_out: Kept clips that prove nothing: shorter than a window, or with nothing to see.
        kept_familiar: Share of the kept clips' windows that are familiar to the artifact as it was; None without any.
        left_out: Attachments for other engines, which do not know the new classes.
        was_signed: Whether the artifact bore a signature, or one lies beside ``file``: it does not hold for this one.
        is_signed: Whether the one that was written does.
        seconds: What it took.
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

    They are added one after the other, each told from all before it. What the artifact computes stays, bit for bit; the
    new classes' logits stand behind.

    Args:
        model: The artifact.
        classes: Label and folder of clips of each new class.
        out: The artifact to write; replaced only when all went well.
        keep: Clips of the classes that it knows: to prove it on, and to fit limits by.
        key: Private key to sign with.
        force: Write it though more than ``growing.MOST_LOST`` of the kept clips become wrong.
        threads: Of the engine.
        progress: Told how far it is.

    Raises:
        ArtifactError: No streaming step, nothing known of its classes' features, or ``out`` cannot be written.
        ConfigError: A label that is none or is there already, or a key that is none.
        DataError: Clips that cannot be read or are too few, or a class that cannot be told from another one.
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
        told = progress or (lambda what, done, total: None)
        new = [
            _watched(engine, clips, f"clips of '{label}'", told) for label, clips in zip(labels, folders, strict=True)
        ]
        kept = None if kept_folder is None else _watched(engine, kept_folder, "clips to keep", told)
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
    """Refuse names of new classes that are none, or that the model or this call has already.

    Raises:
        ConfigError: The first one.
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
                f"a class beside {', '.join(manifest.labels)}",
                "choose another name; more clips of a known class need a training (kd-edge train)",
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
            f"{artifact.path} has no features to adapt: it does not say what those of its classes are like",
            "an artifact that does, or clips of all its classes",
            "export the run again (health = true in the profile), or add --keep DIR",
        )
    if manifest.familiar is not None and manifest.familiar.classes != len(manifest.labels):
        raise ArtifactError(
            f"{artifact.path} knows what features of {manifest.familiar.classes} of its {len(manifest.labels)} classes "
            "are like",
            "those of all",
            "export the run again with a larger health_clips",
        )


def _watched(engine: Engine, clips: Recorded, what: str, told: Progress) -> Watched:
    return watch(engine, clips, lambda done, total: told(what, done, total))


def _others(artifact: Artifact, kept: Watched | None) -> Others:
    """What the features of the artifact's classes are like: by its training side, else by the clips that are kept."""
    labels = artifact.manifest.labels
    if artifact.manifest.familiar is not None:
        return Others.of_reference(artifact.manifest.familiar)
    assert kept is not None  # or it was refused
    if missing := sorted(set(range(len(labels))) - set(kept.labels.tolist())):
        raise DataError(
            f"no clip of '{printable(labels[missing[0]])}' is kept, and {artifact.path} does not say what its features "
            "are like",
            "clips of every class",
            "add some to the folder of --keep, or export the run again (health = true in the profile)",
        )
    if (count := len(kept.features)) < 2 * len(labels):
        raise DataError(
            f"the kept clips have {count} windows of {len(labels)} classes, which do not tell how a class's differ",
            "two windows of each class, better clips of several people",
            "add clips to the folder of --keep, or export the run again (health = true in the profile)",
        )
    return Others.of_windows(kept.features, kept.window_labels)


def _known_share(reference: FeatureReference | None, kept: Watched | None) -> float | None:
    """Share of kept windows that are familiar: where few are, this camera or place is unlike the training's."""
    if reference is None or kept is None:
        return None
    familiarity, none = Familiarity(reference), np.empty((0, reference.size), dtype=np.float32)
    return float(np.mean([familiarity.score(none, feature) <= 1 for feature in kept.features]))


def _refitted(grown: Grown) -> Manifest:
    """The manifest with what the finished model makes of the clips.

    That is how many of the added classes are named right, and another unknown threshold, where enough clips of every
    class are at hand.
    """
    manifest, seen = grown.manifest, grown.seen
    before, these = manifest.added[: -len(grown.new)], manifest.added[-len(grown.new) :]
    judged = (
        facts.model_copy(update={"accuracy": one.accuracy()}) for facts, one in zip(these, grown.new, strict=True)
    )
    manifest = manifest.model_copy(update={"added": (*before, *judged)})
    truth = np.concatenate([one.labels for one in seen])
    counts = np.bincount(truth, minlength=len(manifest.labels))
    if counts.min() < THRESHOLD_CLIPS:
        return manifest
    logits = np.concatenate([one.clip_logits() for one in seen])
    threshold = metrics.fit_unknown_threshold(metrics.softmax(logits, manifest.temperature), truth)
    side = f"{sum(len(one.labels) for one in seen)} clips: kept, and held out of the classes that were added"
    return manifest.model_copy(update={"unknown_threshold": threshold, "calibrated_on": side})


def _proved(
    engine: Engine, written: Artifact, gates: Sequence[Gate], golden: GoldenClip | None, threads: int
) -> GoldenClip | None:
    """The golden clip with the new classes' logits; those of the others are the ones that were given before.

    Raises:
        ArtifactError: The file that was written computes other logits than it should.
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
            "those of the artifact, and the new ones",
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
    """A folder beside ``out`` that vanishes, for a file on its way there."""
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
