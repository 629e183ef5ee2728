"""The student/teacher step: cross-entropy plus the recipe's distillation terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.layers import evaluating
from kd_edge.train.distil.terms import Teacher, Term, tapped_layers
from kd_edge.train.recipe.losses import Loss
from kd_edge.train.teachers.base import Layer, Observation, Shape, Tap
from kd_edge.train.teachers.images import observe, tap
from kd_edge.train.teachers.sensors import SensorTeacher

__all__ = ["Learner", "Observation", "Tap", "observe", "tap", "teach"]


def teach(teacher: Teacher, inputs: Tensor, taps: Collection[Tap], *, ablate: bool = False) -> tuple[Observation, ...]:
    """The teachers' view of a batch: eval mode, no gradients, only the layers that are needed.

    Args:
        teacher: One image network, or those of several sensors.
        inputs: Clips (B, T, C, S, S), or signals (B, m, 3, n).
        taps: Layers to look at.
        ablate: Also ask what each makes of an input without content.

    Returns:
        One observation per network.
    """
    with torch.no_grad():
        if isinstance(teacher, SensorTeacher):
            return teacher.eval().observe(inputs, taps, ablate=ablate)
        seen = observe(teacher.eval(), inputs, taps)
        return (seen._replace(ablated=teacher(torch.zeros_like(inputs[:1]))) if ablate else seen,)


class Learner(nn.Module):
    """A model, the adapters its losses need, and the losses: everything that has parameters to train.

    Args:
        model: The network to train.
        losses: Distillation terms; none trains on the labels alone.
        teacher: The trained teacher, for the shapes of its layers only; needed when there are losses.
        shapes: Input of one clip, (T, C, S, S), of the model and of the teacher (of sensors (m, 3, n)); needed by terms
            on features.
        label_smoothing: Of the cross-entropy.
        epochs: Length of the run, for terms on a schedule.
        class_vectors: (K, D) of the class names, for terms that compare with them.
        black: The model's input, (C,), of a black pixel, for a term whose ablated input is black.

    Attributes:
        student_layers: Layers of the model that the losses look at, with what was found of them.
        teacher_layers: Layers of the teacher; likewise.
        teacher_taps: What ``teach`` has to look at.
        ablates: Whether ``teach`` has to look at an input without content too.

    Raises:
        TrainingError: A loss names a layer that does not exist or does not fit.
    """

    def __init__(
        self,
        model: ClipModel,
        losses: Sequence[Loss] = (),
        teacher: Teacher | None = None,
        shapes: tuple[Shape, Shape] | None = None,
        label_smoothing: float = 0,
        epochs: int = 1,
        *,
        class_vectors: Tensor | None = None,
        black: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.terms = nn.ModuleDict()
        self.student_layers: Mapping[str, Layer] = {}
        self.teacher_layers: Mapping[str, Layer] = {}
        self._student_taps: tuple[Tap, ...] = ()
        self.teacher_taps: tuple[Tap, ...] = ()
        self.ablates = False
        as_black = any(getattr(loss, "ablation", "zeros") == "black" for loss in losses)
        self.register_buffer("black", black if as_black else None, persistent=False)
        if not losses:
            return
        assert teacher is not None
        mine, theirs = shapes or ((), ())
        self.student_layers = _probe(model, [tapped_layers(loss, model, "student") for loss in losses], mine)
        self.teacher_layers = _probe(teacher, [tapped_layers(loss, teacher, "teacher") for loss in losses], theirs)
        for name, loss in zip(term_names(losses), losses, strict=True):
            term = Term(loss, model, teacher, (self.student_layers, self.teacher_layers), epochs, class_vectors)
            self._student_taps = tuple(dict.fromkeys((*self._student_taps, *term.student_taps)))
            self.teacher_taps = tuple(dict.fromkeys((*self.teacher_taps, *term.teacher_taps)))
            self.ablates = self.ablates or term.ablates
            self.terms[name] = term

    def forward(
        self, clip: Tensor, labels: Tensor, seen: Sequence[Observation] | None = None, epoch: int = 1
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of a batch.

        Args:
            clip: (B, T, C, S, S).
            labels: (B,) int64.
            seen: The teachers' observations of the same samples; needed when there are losses.
            epoch: Counted from 1, for warm-ups and schedules.

        Returns:
            Scalars by name (``ce``, one per distillation term before its weight, ``total``) and the logits (B, K).
        """
        mine = observe(self.model, clip, self._student_taps)
        if self.ablates:
            mine = mine._replace(ablated=self._ablated(clip))
        values = {"ce": F.cross_entropy(mine.logits.float(), labels, label_smoothing=self.label_smoothing)}
        total = values["ce"]
        for name, term in self.terms.items():
            assert seen is not None
            assert isinstance(term, Term)
            values[name] = term(mine, seen, labels, epoch)
            total = total + term.weight(epoch) * values[name]
        return values | {"total": total}, mine.logits

    def _ablated(self, clip: Tensor) -> Tensor:
        """Logits (1, K) of a clip without content, apart from the batch: it must not enter the batch statistics."""
        blank = torch.zeros_like(clip[:1])
        if self.black is not None:
            blank = blank + self.get_buffer("black")[:, None, None]
        with torch.no_grad(), evaluating(self.model):
            logits: Tensor = self.model(blank)
        return logits


def term_names(losses: Sequence[Loss]) -> list[str]:
    """One name per term: its kind, numbered from the second of the same kind on (``fitnet``, ``fitnet_2``)."""
    seen: Counter[str] = Counter()
    names = []
    for loss in losses:
        seen[loss.kind] += 1
        names.append(loss.kind if seen[loss.kind] == 1 else f"{loss.kind}_{seen[loss.kind]}")
    return names


def _probe(model: Teacher, named: Sequence[tuple[str, ...]], clip_shape: Shape) -> dict[str, Layer]:
    """The layers that any term looks at, each once, found by showing the model one clip of noise.

    Args:
        model: The network; left as it was.
        named: Module paths, term by term.
        clip_shape: (T, C, S, S), or of sensors (m, 3, n).

    Raises:
        TrainingError: A layer that does not put out one tensor with a row per frame.
    """
    paths = tuple(dict.fromkeys(path for layers in named for path in layers))
    if not paths:
        return {}
    device = next(model.parameters()).device
    clip = torch.randn(1, *clip_shape, generator=torch.Generator().manual_seed(0)).to(device)
    taps = [Tap(path, "fold") for path in paths]
    frames = 1 if isinstance(model, SensorTeacher) else clip_shape[0]
    with torch.no_grad(), evaluating(model):
        found = model.observe(clip, taps)[0] if isinstance(model, SensorTeacher) else observe(model, clip, taps)
    layers: dict[str, Layer] = {}
    for path in paths:
        output = found.taps.get(Tap(path, "fold"))
        rows = isinstance(output, Tensor) and output.ndim in (2, 4) and len(output) == frames
        if output is None or not rows:
            raise TrainingError(
                f"layer '{path}' puts out {tuple(output.shape) if isinstance(output, Tensor) else 'no single tensor'}",
                f"({frames}, features) or ({frames}, channels, height, width), a row per frame",
                "kd-edge recipes layers RECIPE shows every layer and its shape; those in the backbone fit",
            )
        layers[path] = Layer(tuple(output.shape[1:]), bool((output < 0).any()))
    return layers
