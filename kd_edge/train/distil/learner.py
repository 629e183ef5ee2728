"""The student/teacher step: cross-entropy plus the recipe's distillation terms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.layers import evaluating
from kd_edge.rundir import SourceNote
from kd_edge.train.collapse import SpreadMeter
from kd_edge.train.distil.methods import FeatureMethod, Method, term_names
from kd_edge.train.distil.terms import DenseTerm, Term
from kd_edge.train.teachers.base import LabelLearner, Layer, Observation, Shape, Tap, Teacher
from kd_edge.train.teachers.images import image_places, observe

__all__ = ["Learner", "Observation", "Tap", "observe", "teach", "term_names"]

EMBEDDING = Tap("backbone", "mean")
"""The student feature that is monitored for collapse: the mean over a clip."""
SEGMENTS = Tap("backbone", "fold")
"""The student feature that regresses dense targets: that of every segment."""
DENSE = "dense"
"""Name of the dense loss."""


def teach(teacher: Teacher, inputs: Tensor, taps: Collection[Tap], *, ablate: bool = False) -> tuple[Observation, ...]:
    """Run the teacher on a batch, in eval mode and without gradients.

    Args:
        teacher: The teacher.
        inputs: Its inputs: clips (B, T, C, S, S) or signals (B, m, 3, n).
        taps: Layers whose output is needed.
        ablate: Also run each network on an input without content.

    Returns:
        One observation per network of the teacher.
    """
    teacher.eval()
    with torch.no_grad():
        return teacher.observe(inputs, taps, ablate=ablate)


class Learner(LabelLearner):
    """A student in training: the model, its losses and their adapters, that is everything with trainable parameters.

    Args:
        model: The network to train.
        losses: Distillation terms; empty trains on the labels alone.
        teacher: The teacher, used only to inspect its layers; required if there are losses.
        shapes: Input of one clip, (T, C, S, S), of the model and of the teacher ((m, 3, n) for sensors); required by
            terms on features.
        label_smoothing: Fraction of a label that the cross-entropy spreads over all classes.
        epochs: Length of the run, for terms with a schedule.
        class_vectors: (K, D) vectors of the class names, for terms that use them.
        black: (C,) normalised value of a black pixel, for a term whose ablated input is black.
        class_weights: (K,) class weights of the cross-entropy; None means 1. They do not apply to distillation terms.
        dense: The dense loss in addition to the labels; None without it.

    Attributes:
        source: Source of the fine-tuned model; None without one.

    Raises:
        TrainingError: A loss names a layer that does not exist or does not fit, or there is no teacher.
    """

    model: ClipModel
    black: Tensor | None
    source: SourceNote | None = None

    def __init__(
        self,
        model: ClipModel,
        losses: Sequence[Method] = (),
        teacher: Teacher | None = None,
        shapes: tuple[Shape, Shape] | None = None,
        label_smoothing: float = 0,
        epochs: int = 1,
        *,
        class_vectors: Tensor | None = None,
        black: Tensor | None = None,
        class_weights: Tensor | None = None,
        dense: DenseTerm | None = None,
    ) -> None:
        super().__init__(model, label_smoothing, class_weights)
        self.dense = dense
        self.regresses = dense is not None
        if self.regresses or any(isinstance(loss, FeatureMethod) for loss in losses):
            self.spread = SpreadMeter()
        self._student_taps: tuple[Tap, ...] = self._own_taps
        self._named: tuple[tuple[str, Term], ...] = ()
        blanks = {loss.blank for loss in losses}
        self.ablates = bool(blanks - {None})
        self.register_buffer("black", black if "black" in blanks else None, persistent=False)
        if not losses:
            return
        if teacher is None:
            raise TrainingError("losses without a teacher", "a teacher", "give a teacher, or no losses")
        places, (mine, theirs) = image_places(model), shapes or ((), ())
        self.student_layers = _probe(
            model,
            lambda clip, taps: observe(model, clip, taps),
            [path for loss in losses for path in loss.layers(places, "student")],
            mine,
        )
        self.teacher_layers = _probe(
            teacher,
            lambda clip, taps: teacher.observe(clip, taps)[0],
            [path for loss in losses for path in loss.layers(teacher.places, "teacher")],
            theirs,
            segments=teacher.has_segments,
        )
        layers = self.student_layers, self.teacher_layers
        terms = [Term(loss, places, teacher, layers, epochs, class_vectors) for loss in losses]
        term_taps = [tap for term in terms for tap in term.student_taps]
        self._student_taps = tuple(dict.fromkeys((*term_taps, *self._own_taps)))
        self.teacher_taps = tuple(dict.fromkeys(tap for term in terms for tap in term.teacher_taps))
        self._named = tuple(zip(term_names(losses), terms, strict=True))
        self.terms.update(dict(self._named))

    def weights(self, epoch: int) -> dict[str, float]:
        """Return the weights of the terms by name, in an epoch counted from 1."""
        dense = {} if self.dense is None else {DENSE: self.dense.loss.weight_in(epoch)}
        return {name: term.method.weight_in(epoch) for name, term in self._named} | dense

    @property
    def _own_taps(self) -> tuple[Tap, ...]:
        """Taps that no distillation term needs."""
        return (*((EMBEDDING,) if self.spread is not None else ()), *((SEGMENTS,) if self.regresses else ()))

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor,
        seen: Sequence[Observation] | None = None,
        epoch: int = 1,
        targets: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the losses of a batch of clips, one unweighted value per term; see ``LabelLearner.forward``.

        Args:
            inputs: Clips (B, T, C, S, S).
            labels: (B,) int64.
            seen: The teachers' observations; required if there are terms.
            epoch: Counted from 1.
            targets: (B, T, M) dense targets of the segments; required with a dense loss.

        Raises:
            TrainingError: Observations or targets are missing.
        """
        mine = observe(self.model, inputs, self._student_taps)
        if self.ablates:
            mine = mine._replace(ablated=self._ablated(inputs))
        if self.spread is not None and self.training:
            self.spread.add(mine.taps[EMBEDDING], mine.logits.shape[1])
        values = {"ce": self.cross_entropy(mine.logits, labels)}
        total = values["ce"]
        for name, term in self._named:
            if seen is None:
                raise TrainingError("losses without the teachers' observations", "both", "call teach")
            values[name] = term(mine, seen, labels, epoch)
            total = total + term.method.weight_in(epoch) * values[name]
        if self.dense is not None:
            if targets is None:
                raise TrainingError("a dense loss without targets", "targets (B, T, M)", "give targets")
            values[DENSE] = self.dense(mine.taps[SEGMENTS], targets)
            total = total + self.dense.loss.weight_in(epoch) * values[DENSE]
        return values | {"total": total}, mine.logits

    def _ablated(self, clip: Tensor) -> Tensor:
        """Logits (1, K) of a clip without content, in a separate pass so that it does not affect batch statistics."""
        blank = torch.zeros_like(clip[:1])
        if self.black is not None:
            blank = blank + self.black[:, None, None]
        with torch.no_grad(), evaluating(self.model):
            logits: Tensor = self.model(blank)
        return logits


def _probe(
    model: nn.Module,
    look: Callable[[Tensor, Collection[Tap]], Observation],
    named: Sequence[str],
    shape: Shape,
    *,
    segments: bool = True,
) -> Mapping[str, Layer]:
    """Inspect the layers that terms use by running the network on one clip of noise.

    Args:
        model: The network; not changed.
        look: Runs the network with taps.
        named: Module paths of all terms.
        shape: Input of one clip, (T, C, S, S), or (m, 3, n) for sensors.
        segments: Whether the output has a row for each of T segments, or a single one.

    Raises:
        TrainingError: The output of a layer is not one tensor with a row per frame.
    """
    paths = tuple(dict.fromkeys(named))
    if not paths:
        return {}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    clip = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    frames = shape[0] if segments else 1
    with torch.no_grad(), evaluating(model):
        found = look(clip, [Tap(path, "fold") for path in paths]).taps
    return {path: _layer(path, found.get(Tap(path, "fold")), frames) for path in paths}


def _layer(path: str, output: object, frames: int) -> Layer:
    """Shape and sign of a layer, from its output for one clip."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 4) or len(output) != frames:
        raise TrainingError(
            f"layer '{path}' outputs {tuple(output.shape) if isinstance(output, Tensor) else 'no single tensor'}",
            f"({frames}, features) or ({frames}, channels, height, width), a row per frame",
            "choose a layer of the backbone; kd-edge recipes layers RECIPE lists all with their shapes",
        )
    return Layer(tuple(output.shape[1:]), bool((output < 0).any()))
