"""What a student can be fine-tuned from: a finished run, an artifact, the bundled one, or a file of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_edge import artifact
from kd_edge.artifact import Manifest
from kd_edge.errors import TrainingError, reason
from kd_edge.models import bninception, efficientnet
from kd_edge.models.saved import SavedStudent, StudentSpec
from kd_edge.models.weights import local_state
from kd_edge.packages import import_extra
from kd_edge.preprocess import Preprocess
from kd_edge.reading import is_file, open_regular
from kd_edge.rundir import RECIPE, STUDENT, SUMMARY
from kd_edge.train.recipe import StudentConfig

BUNDLED = artifact.BUNDLED_NAME
"""The name of the student that ships with kd-edge."""
MOST_BYTES = 4_000_000_000
"""Larger files are refused."""
BACKBONE, HEAD = "backbone.", "head."
"""Prefix of the names of backbone weights in a clip model."""
_FIX = "correct --from (student.source): a run's folder, an artifact, bundled, or a file of weights"
_BACK = "put it back: the run goes on with what it began with, or start a new one"
_SHOWN = 300  # characters of a name
_TRAINED = ("weight", "bias", "running_mean", "running_var")
"""Last parts of names whose tensors are never integers."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Description of a source.

    Attributes:
        labels: The classes of its classifier, in the order of its rows.
        preprocess: Frame to network input.
        modality: What it saw.
        segments: T.
        clip_seconds: Length of its window.
        temporal: What joins its features.
        data: Kind of the data set it was trained on; empty where it is not told.
        split: Name of that data set's protocol.
        added: Classes that ``kd-edge adapt`` added behind the classifier: they have no row in it.
    """

    labels: tuple[str, ...]
    preprocess: Preprocess
    modality: str
    segments: int
    clip_seconds: float
    temporal: str
    data: str
    split: str
    added: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """Trained weights to start from.

    Attributes:
        name: As it was named.
        kind: ``run``, ``artifact`` or ``file``.
        sha256: Of the file that holds the weights.
        weights: Name -> weights, named as a clip model's: ``backbone.*`` and ``head.*``. Of an artifact, whose batch
            normalisation is folded, see ``graph.graph_weights``.
        facts: None of a file of weights, which tells nothing else.
        precision: What an artifact's weights were rounded to; ``fp32`` is nothing.
    """

    name: str
    kind: str
    sha256: str
    weights: Mapping[str, Tensor]
    facts: Facts | None = None
    precision: str = "fp32"

    @property
    def is_folded(self) -> bool:
        """Whether batch normalisation is folded into the convolutions."""
        return self.kind == "artifact"


def open_source(config: StudentConfig) -> Source | None:
    """Read the source of a student; None if it is not fine-tuned.

    Raises:
        KdEdgeError: Nothing is there, it is damaged or holds nothing to go on from, or it is another file than the run
            began with.
    """
    if config.source is None:
        return None
    has_begun = config.source_sha256 is not None  # then --from is not to be had
    source = _opened(config.source, _BACK if has_begun else _FIX)
    _check_values(source)
    if config.source_sha256 not in (None, source.sha256):
        raise TrainingError(
            f"{source.name} is not what this run is fine-tuned from: its SHA-256 begins with {source.sha256[:12]}, "
            f"the recipe notes {str(config.source_sha256)[:12]}",
            "the file that the run began with",
            "restore it, or start a new run from this one",
        )
    return source


def _opened(name: str, fix: str) -> Source:
    path = artifact.BUNDLED if name == BUNDLED else Path(name)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # gone, a name too long, NUL
        raise TrainingError(
            f"{name[:_SHOWN]} cannot be read ({getattr(error, 'strerror', None) or error})",
            "a run's folder, an artifact, or a file of weights",
            fix,
        ) from error
    if path.is_dir():
        return _of_run(name, path)
    if path.suffix == ".onnx":
        return _of_artifact(name, path)
    return _of_file(name, path)


def _of_run(name: str, path: Path) -> Source:
    if not any(is_file(path / file) for file in (RECIPE, SUMMARY)):
        raise TrainingError(f"{name} is a folder without a run", f"a folder with {RECIPE} and {SUMMARY}", _FIX)
    student = SavedStudent.load(path)
    return Source(name, "run", _sha256(path / STUDENT), student.model.state_dict(), _facts_of_run(student.spec))


def _of_artifact(name: str, path: Path) -> Source:
    found = artifact.load(path)
    manifest = found.manifest
    if manifest.precision.startswith("int8"):
        raise TrainingError(
            f"{name} computes in 8-bit integers: its weights are rounded to 256 values each",
            "an artifact in fp32 or fp16",
            "name the run it was exported from, or export that run with --fp16",
        )
    import_extra("onnx", "export")
    from kd_edge.train.finetune.graph import graph_weights

    content = found.content()
    try:
        weights = graph_weights(content[: found.hashed_bytes])
    except Exception as error:  # onnx and protobuf raise many kinds for a graph that only a foreign hand can have made
        raise TrainingError(
            f"the graph of {name} cannot be read ({reason(error)})", "an artifact as kd-edge export wrote it", _FIX
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    return Source(name, "artifact", sha256, weights, _facts_of_artifact(manifest), manifest.precision)


def _of_file(name: str, path: Path) -> Source:
    if path.exists() and not is_file(path):
        raise TrainingError(f"{name} is not a regular file", "a file of weights", _FIX)
    if is_file(path) and path.stat().st_size > MOST_BYTES:
        raise TrainingError(f"{name} has {path.stat().st_size:,} bytes", f"at most {MOST_BYTES:,}", _FIX)
    found = local_state(path, _FIX)
    if not any(key.startswith(BACKBONE) for key in found):  # of a backbone alone, as torchvision names its parts
        found = {BACKBONE + key: value for key, value in bninception.renamed(efficientnet.renamed(found)).items()}
    return Source(name, "file", _sha256(path), found)


def _facts_of_run(spec: StudentSpec) -> Facts:
    data: dict[str, Any] = spec.data.model_dump(mode="json")
    return Facts(
        labels=spec.labels,
        preprocess=spec.preprocess,
        modality=spec.modality,
        segments=spec.segments,
        clip_seconds=spec.clip_seconds,
        temporal=spec.model.temporal,
        data=str(data.get("kind", "")),
        split=spec.split,
    )


def _facts_of_artifact(manifest: Manifest) -> Facts:
    return Facts(
        labels=manifest.trained_labels,  # rows of classes that were added stand behind the network, not in its head
        preprocess=manifest.preprocess,
        modality=manifest.modality,
        segments=manifest.segments,
        clip_seconds=manifest.clip_seconds,
        temporal=manifest.temporal,
        data=str(manifest.dataset.get("kind", "")),
        split=manifest.split,
        added=tuple(one.label for one in manifest.added),
    )


def _check_values(source: Source) -> None:
    """Refuse unusable weights before any training.

    Raises:
        TrainingError: Names the first ones.
    """
    for key, value in source.weights.items():
        if fault := _fault(key, value.detach()):
            raise TrainingError(
                f"weights '{key}' of {source.name} {fault}", "weights of a student that works", "name another source"
            )


def _fault(key: str, value: Tensor) -> str:
    """Fault of a named tensor; empty if there is none."""
    is_plain = value.layout is torch.strided and not (
        value.is_quantized or value.is_complex() or value.is_meta or value.is_nested
    )
    # One value can be saved as a tensor of billions, which takes their memory as soon as it is computed with.
    if not is_plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return "are no plain numbers"
    if not value.is_floating_point() and key.rpartition(".")[2] in _TRAINED:
        return f"are integers ({str(value.dtype).removeprefix('torch.')})"
    if not bool(torch.isfinite(value.float()).all()):
        return "are not finite"
    return "are variances below 0" if key.endswith("running_var") and bool((value.float() < 0).any()) else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
