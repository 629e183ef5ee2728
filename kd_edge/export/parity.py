"""Compare every stage of an export with the trained model on real clips, and record the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from kd_edge import metrics
from kd_edge.artifact import Parity, Precision, StageFigures, StreamFigures
from kd_edge.engines import Engine
from kd_edge.errors import ExportError
from kd_edge.export.profile import ExportProfile, scaled
from kd_edge.export.recordings import Recordings, spread
from kd_edge.export.report import clips_within
from kd_edge.models.saved import SavedStudent
from kd_edge.types import Float32, Int64

MOST_INPUT_BYTES = 1_000_000_000
"""Upper limit for the network inputs of all compared clips together, in bytes; it limits the number of clips."""


MOST_FLOPS = 8e11
"""Upper limit for the operations of one stage on all compared clips; it limits the clips of a large network."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of one stage.

    Attributes:
        figures: Comparison with the trained model and the truth.
        logits: (N, K) float32.
        milliseconds: Median time of one frame's step, or of a whole clip for a model that does not step.
    """

    figures: StageFigures
    logits: Float32
    milliseconds: float


class Comparison:
    """The clips on which all stages of an export are compared, starting with the trained model.

    Args:
        inputs: (N, T, C, S, S) float32, the network inputs of the clips.
        truth: (N,) int64.
        run: The trained model, which maps a clip (1, T, C, S, S) to logits (1, K).
        runner: Name and version of the framework that runs it.
        classes: Number K of classes.
        temperature: Divisor of the logits before the softmax.
        side: Description of the clips.

    Attributes:
        inputs: As given.
        truth: As given.
        side: As given.
        trained: Answers of the trained model.
    """

    def __init__(
        self,
        inputs: Float32,
        truth: Int64,
        run: Callable[[Float32], Float32],
        *,
        runner: str,
        classes: int,
        temperature: float,
        side: str,
    ) -> None:
        self.inputs, self.truth, self.side = inputs, truth, side
        self._classes, self._temperature = classes, temperature
        self._expected, milliseconds = self._run_timed(run)
        self.trained = self.scored("torch", runner, self._expected, before=self._expected, milliseconds=milliseconds)

    @classmethod
    def of(cls, student: SavedStudent, recordings: Recordings, profile: ExportProfile) -> Comparison:
        """Choose and open the clips for comparing a student's export.

        Args:
            student: The trained model.
            recordings: Its clips.
            profile: The profile with the number of clips.

        Raises:
            DataError: No clip can be read.
            ExportError: All readable clips belong to one class, or the trained model's logits are not finite.
        """
        chosen = spread(recordings.compared, _affordable_clips(student, profile.parity_clips))
        opened = [(sample.label, student.network_input(clip)) for sample, clip in recordings.opened(chosen)]
        truth = np.array([label for label, _ in opened], dtype=np.int64)
        check_classes(truth, recordings)
        comparison = cls(
            np.stack([clip for _, clip in opened]),
            truth,
            student.model.answer,
            runner=f"torch {torch.__version__}",
            classes=len(student.spec.labels),
            temperature=student.summary.temperature,
            side=recordings.side,
        )
        if not np.isfinite(comparison.trained.logits).all():
            raise ExportError(
                f"the trained student's own answers are not finite on {recordings.side}",
                "finite logits",
                "check its training (metrics.jsonl), and train again",
            )
        return comparison

    def answer(self, stage: str, engine: Engine, before: Answers) -> Answers:
        """Run an engine on the same clips.

        Args:
            stage: Name of the stage.
            engine: An engine with a step or clip graph.
            before: Answers of the previous stage.
        """
        logits, milliseconds = self._run_timed(engine.run_clip)
        steps = self.inputs.shape[1] if engine.manifest.graph == "step" else 1
        return self.scored(stage, engine.name, logits, before=before.logits, milliseconds=milliseconds / steps)

    def tolerance(self, bound: float) -> float:
        """Scale a bound to the size of these logits."""
        return scaled(bound, float(np.abs(self._expected).max()))

    def _run_timed(self, run: Callable[[Float32], Float32]) -> tuple[Float32, float]:
        """Compute the logits (N, K) of all clips, and the median time of one clip in milliseconds."""
        logits, times = [], []
        for clip in self.inputs:
            start = time.perf_counter()
            logits.append(run(clip[None])[0])
            times.append(time.perf_counter() - start)
        return np.stack(logits), 1000 * float(np.median(times))

    def scored(self, stage: str, engine: str, logits: Float32, *, before: Float32, milliseconds: float) -> Answers:
        """Compute the figures of a stage's logits.

        Args:
            stage: Name of the stage.
            engine: Name and version of the engine that ran it.
            logits: (N, K) float32.
            before: (N, K) float32, logits of the previous stage.
            milliseconds: Median time of one frame's step.
        """
        largest, relative = _errors(logits, self._expected)
        answers, truth = logits.argmax(axis=1), self.truth
        recall = metrics.per_class_accuracy(answers, truth, self._classes)
        probabilities = metrics.softmax(np.nan_to_num(logits), self._temperature)
        figures = StageFigures(
            stage=stage,
            engine=engine,
            max_abs_error=largest,
            relative_error=relative,
            flips=int(np.sum(answers != before.argmax(axis=1))),
            accuracy=metrics.accuracy(answers, truth),
            macro_f1=metrics.macro_f1(answers, truth, self._classes),
            per_class=tuple(None if np.isnan(share) else float(share) for share in recall),
            ece=metrics.expected_calibration_error(probabilities, truth),
        )
        return Answers(figures, logits, milliseconds)


def _errors(found: Float32, expected: Float32) -> tuple[float, float]:
    """Return the largest and the relative difference; infinite if a logit is not finite."""
    if not np.isfinite(found).all():
        return float("inf"), float("inf")
    difference = found.astype(np.float64) - expected
    size = float(np.linalg.norm(expected))
    return float(np.abs(difference).max()), float(np.linalg.norm(difference)) / size if size else 0.0


def check_classes(truth: Int64, recordings: Recordings) -> None:
    """Refuse clips of a single class, for which accuracy and calibration are meaningless.

    Args:
        truth: (N,) int64, classes of the readable clips.
        recordings: The recordings they belong to.

    Raises:
        ExportError: All clips belong to one class.
    """
    classes = np.unique(truth)
    if len(classes) == 1:
        raise ExportError(
            f"all {len(truth)} {recordings.side} that can be read are of class "
            f"'{recordings.dataset.labels[int(classes[0])]}'",
            "clips of at least two classes",
            "hold out others in validation_subjects and train again, or complete the recordings",
        )


def shipped_of(answers: Sequence[Answers], precision: Precision) -> Answers:
    """Return the answers of ONNX Runtime with the exported graph."""
    stage = "onnx" if precision == "fp32" else precision
    return next((answer for answer in answers if answer.figures.stage == stage), answers[-1])


def parity(
    answers: Sequence[Answers],
    comparison: Comparison,
    precision: Precision,
    bound: float,
    stream: StreamFigures | None,
) -> Parity:
    """Create the manifest's record of all stages; its top-level figures are those of the exported graph."""
    shipped = shipped_of(answers, precision)
    return Parity(
        max_abs_error=shipped.figures.max_abs_error,
        argmax_agreement=metrics.accuracy(shipped.logits.argmax(axis=1), answers[0].logits.argmax(axis=1)),
        clips=len(comparison.truth),
        tolerance=comparison.tolerance(bound),
        side=comparison.side,
        stages=tuple(answer.figures for answer in answers),
        stream=stream,
    )


class Fault(NamedTuple):
    """A violation of a profile's bound by a stage."""

    found: str
    expected: str


Bound = Literal["max_onnx_error", "max_abs_error"]
"""The bound of a profile that applies to a stage's largest error."""


def engine_faults(
    answers: Answers, shipped: Answers, comparison: Comparison, profile: ExportProfile
) -> Iterator[Fault]:
    """Find violations of the profile's bounds by another engine, compared with ONNX Runtime on the exported graph."""
    largest, _ = _errors(answers.logits, shipped.logits)
    tolerance = comparison.tolerance(profile.max_engine_error)
    if not largest <= tolerance:
        yield Fault(
            f"differs from ONNX Runtime by {largest:.3g} on {len(comparison.truth)} clips",
            f"at most {tolerance:.3g} (max_engine_error {profile.max_engine_error:g} of profile '{profile.name}' times "
            "the largest logit)",
        )
    yield from class_faults(answers, comparison, profile)


def stage_faults(answers: Answers, comparison: Comparison, profile: ExportProfile, bound: Bound) -> Iterator[Fault]:
    """Find violations of the profile's bounds by a stage."""
    figures, clips, limit = answers.figures, len(comparison.truth), float(getattr(profile, bound))
    tolerance = comparison.tolerance(limit)
    if not figures.max_abs_error <= tolerance:
        yield Fault(
            f"differs from the trained model by {figures.max_abs_error:.3g} on {clips} clips",
            f"at most {tolerance:.3g} ({bound} {limit:g} of profile '{profile.name}' times the largest logit)",
        )
    yield from class_faults(answers, comparison, profile)


def class_faults(answers: Answers, comparison: Comparison, profile: ExportProfile) -> Iterator[Fault]:
    """Find violations of the profile's bounds by a stage's predicted classes: agreement and accuracy."""
    figures, clips = answers.figures, len(comparison.truth)
    agreement = metrics.accuracy(answers.logits.argmax(axis=1), comparison.trained.logits.argmax(axis=1))
    if agreement < profile.min_argmax_agreement:
        yield Fault(
            f"names the same class on only {agreement:.1%} of {clips} clips",
            f"at least {profile.min_argmax_agreement:.1%} (min_argmax_agreement of profile '{profile.name}')",
        )
    drop = comparison.trained.figures.accuracy - figures.accuracy
    if drop > profile.max_accuracy_drop:
        yield Fault(
            f"is right on {figures.accuracy:.1%} of {clips} clips where the trained model is on "
            f"{comparison.trained.figures.accuracy:.1%}",
            f"at most {profile.max_accuracy_drop:.1%} less (max_accuracy_drop of profile '{profile.name}')",
        )


def _affordable_clips(student: SavedStudent, clips: int) -> int:
    """Limit the number of compared clips, so that they fit into memory and no stage takes more than about 10 s."""
    spec = student.spec.preprocess
    clip_bytes = 4 * student.spec.segments * spec.input_channels * spec.input_px**2
    return max(1, min(clips_within(MOST_FLOPS, student, clips), MOST_INPUT_BYTES // clip_bytes))
