"""Does the exported graph give what the trained model gives? Torch's clip model against an engine, on real clips."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from kd_edge import metrics
from kd_edge.artifact import Artifact, Parity
from kd_edge.data import Dataset
from kd_edge.engines import Engine, open_engine
from kd_edge.errors import DataError, ExportError
from kd_edge.export.profile import ExportProfile, scaled
from kd_edge.models import ClipModel
from kd_edge.models.saved import SavedStudent
from kd_edge.types import Float32


def real_clips(student: SavedStudent, dataset: Dataset, count: int) -> Iterable[Float32]:
    """Network inputs (T, C, S, S) of at most ``count`` test clips, spread evenly; damaged recordings are passed over.

    Raises:
        DataError: Not one test clip can be read.
    """
    samples = dataset.split(student.spec.split).test
    chosen = [
        samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int))
    ]
    faults: list[DataError] = []
    for sample in chosen:
        try:
            clip = dataset.open(sample, student.spec.modality)
        except DataError as error:
            faults.append(error)
            continue
        yield student.network_input(clip)
    if faults and len(faults) == len(chosen):
        raise faults[0]


def measure(model: ClipModel, engine: Engine, clips: Iterable[Float32], bound: float) -> Parity:
    """Compare the logits of every clip.

    Args:
        model: The trained clip model, in eval mode.
        engine: Of the exported step or clip graph.
        clips: Network inputs (T, C, S, S) float32.
        bound: ``max_abs_error`` of the profile.

    Returns:
        Largest difference of a logit (infinite when one is not finite) and what is tolerated at the size of these
        logits, share of equal argmax, number of clips.
    """
    expected, found = [], []
    for clip in clips:
        with torch.inference_mode():
            expected.append(model(torch.from_numpy(clip)[None])[0].numpy())
        found.append(engine.run_clip(clip[None])[0])
    if not expected:
        raise ExportError(
            "no clip to compare", "at least one test clip", "check the run's data set: kd-edge data check"
        )
    truth, ours = np.stack(expected), np.stack(found)
    error = float(np.abs(truth - ours).max())
    return Parity(
        max_abs_error=error if np.isfinite(error) else float("inf"),
        argmax_agreement=metrics.accuracy(ours.argmax(axis=1), truth.argmax(axis=1)),
        clips=len(truth),
        tolerance=scaled(bound, float(np.abs(truth).max())),
    )


def check(parity: Parity, profile: ExportProfile) -> None:
    """Raise an ExportError when the exported graph strays too far from the trained model."""
    if not parity.max_abs_error <= parity.tolerance:
        other = "try other releases of torch and onnxruntime" if profile.precision == "fp32" else "export in fp32"
        raise ExportError(
            f"the exported {profile.precision} graph differs from the trained model by {parity.max_abs_error:.3g} "
            f"on {parity.clips} clips",
            f"at most {parity.tolerance:.3g} (max_abs_error {profile.max_abs_error:g} of profile '{profile.name}' "
            "times the largest logit)",
            f"{other}, or widen the bound in a profile of your own; nothing was written",
        )
    if parity.argmax_agreement < profile.min_argmax_agreement:
        raise ExportError(
            f"the exported {profile.precision} graph names the same class on only {parity.argmax_agreement:.1%} of "
            f"{parity.clips} clips",
            f"at least {profile.min_argmax_agreement:.1%} (min_argmax_agreement of profile '{profile.name}')",
            "export in fp32, or lower the bound in a profile of your own; nothing was written",
        )


def run_parity(student: SavedStudent, artifact: Artifact, profile: ExportProfile, dataset: Dataset) -> Parity:
    """Measure and check an exported graph in ONNX Runtime, on the test clips of the student's own data set.

    Raises:
        DataError: Not one test clip can be read.
        ExportError: Out of bound.
    """
    clips = real_clips(student, dataset, profile.parity_clips)
    with open_engine(artifact, engine="onnxruntime") as engine:
        parity = measure(student.model, engine, clips, profile.max_abs_error)
    check(parity, profile)
    return parity
