"""Does what ships answer as the trained model does? Stage by stage on real clips, and frame by frame of a stream."""

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
"""The network inputs of all compared clips together; more clips are not compared."""


MOST_FLOPS = 8e11
"""Operations of one stage on all compared clips; of a large network fewer clips are compared."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one stage answered.

    Attributes:
        figures: Against the trained model and the truth.
        logits: (N, K) float32.
        milliseconds: Median time of one frame's step while it answered; of a whole clip where nothing steps.
    """

    figures: StageFigures
    logits: Float32
    milliseconds: float


class Comparison:
    """Clips that every stage of an export answers, the trained model first.

    Args:
        inputs: (N, T, C, S, S) float32, the clips as the network sees them.
        truth: (N,) int64.
        run: Gives the trained model's logits (1, K) of a clip (1, T, C, S, S).
        runner: What that is, with its version.
        classes: Number K of classes.
        temperature: Divides logits before the softmax.
        side: Whose clips they are, for people.

    Attributes:
        inputs: As given.
        truth: As given.
        side: As given.
        trained: What the trained model answers.
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
        self._expected, milliseconds = self._timed(run)
        self.trained = self.judged("torch", runner, self._expected, before=self._expected, milliseconds=milliseconds)

    @classmethod
    def of(cls, student: SavedStudent, recordings: Recordings, profile: ExportProfile) -> Comparison:
        """The clips that a student's export is judged by.

        Args:
            student: The trained model.
            recordings: Its clips.
            profile: How many are compared.

        Raises:
            DataError: Not one clip can be read.
            ExportError: All clips that could be judged by are of one class.
        """
        chosen = spread(recordings.compared, _affordable(student, profile.parity_clips))
        opened = [(sample.label, student.network_input(clip)) for sample, clip in recordings.opened(chosen)]
        truth = np.array([label for label, _ in opened], dtype=np.int64)
        check_classes(truth, recordings)
        made = cls(
            np.stack([clip for _, clip in opened]),
            truth,
            student.model.answer,
            runner=f"torch {torch.__version__}",
            classes=len(student.spec.labels),
            temperature=student.summary.temperature,
            side=recordings.side,
        )
        if not np.isfinite(made.trained.logits).all():
            raise ExportError(
                f"the trained student's own answers are not finite on {recordings.side}",
                "finite logits",
                "look at its training (metrics.jsonl), and train again",
            )
        return made

    def answer(self, stage: str, engine: Engine, before: Answers) -> Answers:
        """What an engine answers to the same clips.

        Args:
            stage: Name of the stage.
            engine: With a step or clip graph.
            before: The stage before.
        """
        logits, milliseconds = self._timed(engine.run_clip)
        steps = self.inputs.shape[1] if engine.manifest.graph == "step" else 1
        return self.judged(stage, engine.name, logits, before=before.logits, milliseconds=milliseconds / steps)

    def tolerance(self, bound: float) -> float:
        """A bound at the size of these logits."""
        return scaled(bound, float(np.abs(self._expected).max()))

    def _timed(self, run: Callable[[Float32], Float32]) -> tuple[Float32, float]:
        """Logits (N, K) of all clips, and the median milliseconds of one."""
        logits, times = [], []
        for clip in self.inputs:
            start = time.perf_counter()
            logits.append(run(clip[None])[0])
            times.append(time.perf_counter() - start)
        return np.stack(logits), 1000 * float(np.median(times))

    def judged(self, stage: str, engine: str, logits: Float32, *, before: Float32, milliseconds: float) -> Answers:
        """Answers with their figures.

        Args:
            stage: Name of the stage.
            engine: What ran it, with its version.
            logits: (N, K) float32.
            before: (N, K) float32, of the stage before.
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
    """Largest and relative difference; infinite where a number is not finite."""
    if not np.isfinite(found).all():
        return float("inf"), float("inf")
    difference = found.astype(np.float64) - expected
    size = float(np.linalg.norm(expected))
    return float(np.abs(difference).max()), float(np.linalg.norm(difference)) / size if size else 0.0


def check_classes(truth: Int64, recordings: Recordings) -> None:
    """Refuse clips that show one class only: neither accuracy nor calibration of such means anything.

    Args:
        truth: (N,) int64, classes of the clips that could be read.
        recordings: What they are of.

    Raises:
        ExportError: They do.
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
    """Of all stages, ONNX Runtime with the graph that ships."""
    stage = "onnx" if precision == "fp32" else precision
    return next((answer for answer in answers if answer.figures.stage == stage), answers[-1])


def parity(
    answers: Sequence[Answers],
    comparison: Comparison,
    precision: Precision,
    bound: float,
    stream: StreamFigures | None,
) -> Parity:
    """The manifest's record of all stages, the trained model first; its own figures are of the graph that ships."""
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
    """What of a stage is out of its profile's bounds."""

    found: str
    expected: str


Bound = Literal["max_onnx_error", "max_abs_error"]
"""Which bound of a profile a stage's largest error is held to."""


def engine_faults(
    answers: Answers, shipped: Answers, comparison: Comparison, profile: ExportProfile
) -> Iterator[Fault]:
    """What of another engine is out of its profile's bounds, by ONNX Runtime's answers with the graph that ships."""
    largest, _ = _errors(answers.logits, shipped.logits)
    tolerance = comparison.tolerance(profile.max_engine_error)
    if not largest <= tolerance:
        yield Fault(
            f"differs from ONNX Runtime by {largest:.3g} on {len(comparison.truth)} clips",
            f"at most {tolerance:.3g} (max_engine_error {profile.max_engine_error:g} of profile '{profile.name}' times "
            "the largest logit)",
        )
    yield from classes_of(answers, comparison, profile)


def faults_of(answers: Answers, comparison: Comparison, profile: ExportProfile, bound: Bound) -> Iterator[Fault]:
    """What of a stage is out of its profile's bounds."""
    figures, clips, limit = answers.figures, len(comparison.truth), float(getattr(profile, bound))
    tolerance = comparison.tolerance(limit)
    if not figures.max_abs_error <= tolerance:
        yield Fault(
            f"differs from the trained model by {figures.max_abs_error:.3g} on {clips} clips",
            f"at most {tolerance:.3g} ({bound} {limit:g} of profile '{profile.name}' times the largest logit)",
        )
    yield from classes_of(answers, comparison, profile)


def classes_of(answers: Answers, comparison: Comparison, profile: ExportProfile) -> Iterator[Fault]:
    """What of a stage's classes is out of its profile's bounds, by the trained model's and by the truth."""
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


def _affordable(student: SavedStudent, clips: int) -> int:
    """How many clips are compared: memory holds them, and no stage takes longer than some ten seconds."""
    spec = student.spec.preprocess
    one = 4 * student.spec.segments * spec.input_channels * spec.input_px**2
    return max(1, min(clips_within(MOST_FLOPS, student, clips), MOST_INPUT_BYTES // one))
