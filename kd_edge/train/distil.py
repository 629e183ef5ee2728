"""The student/teacher step: cross-entropy plus the recipe's distillation terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.models import ClipModel
from kd_edge.train.loss_config import Loss
from kd_edge.train.terms import Observation, Shape, Term, tap_shapes, tapped_layers

__all__ = ["Learner", "Observation", "observe", "tap", "teach"]


@contextmanager
def tap(model: nn.Module, paths: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of some layers of the forward pass inside the block, by module path."""
    seen: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(path).register_forward_hook(
            lambda _module, _input, output, path=path: seen.__setitem__(path, output)
        )
        for path in paths
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def observe(model: ClipModel, clip: Tensor, paths: Collection[str]) -> Observation:
    """Run a model over clips (B, T, C, S, S) and look at some of its layers."""
    with tap(model, paths) as seen:
        logits = model(clip)
    return Observation(logits, seen)


def teach(teacher: ClipModel, clip: Tensor, paths: Collection[str]) -> Observation:
    """The teacher's view of a batch: eval mode, no gradients, only the layers that are needed."""
    with torch.no_grad():
        return observe(teacher.eval(), clip, paths)


class Learner(nn.Module):
    """A model, the adapters its losses need, and the losses: everything that has parameters to train.

    Args:
        model: The network to train.
        losses: Distillation terms; none trains on the labels alone.
        teacher: The trained teacher, for the shapes of its layers only; needed when there are losses.
        shapes: Input of one clip, (T, C, S, S), of the model and of the teacher; needed by terms on features.
        label_smoothing: Of the cross-entropy.
        epochs: Length of the run, for terms on a schedule.

    Attributes:
        student_layers: Layers of the model that the losses look at, with their outputs' shapes for one frame.
        teacher_layers: Layers of the teacher, for ``teach``; likewise.

    Raises:
        TrainingError: A loss names a layer that does not exist or does not fit.
    """

    def __init__(
        self,
        model: ClipModel,
        losses: Sequence[Loss] = (),
        teacher: ClipModel | None = None,
        shapes: tuple[Shape, Shape] | None = None,
        label_smoothing: float = 0,
        epochs: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.terms = nn.ModuleDict()
        self.student_layers: Mapping[str, Shape] = {}
        self.teacher_layers: Mapping[str, Shape] = {}
        if not losses:
            return
        assert teacher is not None
        mine, theirs = shapes or ((), ())
        self.student_layers = _shapes(model, [tapped_layers(loss, model, "student") for loss in losses], mine)
        self.teacher_layers = _shapes(teacher, [tapped_layers(loss, teacher, "teacher") for loss in losses], theirs)
        for name, loss in zip(term_names(losses), losses, strict=True):
            self.terms[name] = Term(loss, model, teacher, (self.student_layers, self.teacher_layers), epochs)

    def forward(
        self, clip: Tensor, labels: Tensor, seen: Observation | None = None, epoch: int = 1
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of a batch.

        Args:
            clip: (B, T, C, S, S).
            labels: (B,) int64.
            seen: The teacher's observation of the same samples; needed when there are losses.
            epoch: Counted from 1, for warm-ups and schedules.

        Returns:
            Scalars by name (``ce``, one per distillation term before its weight, ``total``) and the logits (B, K).
        """
        mine = observe(self.model, clip, self.student_layers)
        values = {"ce": F.cross_entropy(mine.logits.float(), labels, label_smoothing=self.label_smoothing)}
        total = values["ce"]
        for name, term in self.terms.items():
            assert seen is not None
            assert isinstance(term, Term)
            values[name] = term(mine, seen, labels, epoch)
            total = total + term.weight(epoch) * values[name]
        return values | {"total": total}, mine.logits


def term_names(losses: Sequence[Loss]) -> list[str]:
    """One name per term: its kind, numbered from the second of the same kind on (``fitnet``, ``fitnet_2``)."""
    seen: Counter[str] = Counter()
    names = []
    for loss in losses:
        seen[loss.kind] += 1
        names.append(loss.kind if seen[loss.kind] == 1 else f"{loss.kind}_{seen[loss.kind]}")
    return names


def _shapes(model: ClipModel, layers: Sequence[tuple[str, ...]], clip_shape: Shape) -> dict[str, Shape]:
    """Output shapes of the layers that any term looks at, each layer once."""
    paths = tuple(dict.fromkeys(path for named in layers for path in named))
    assert clip_shape or not paths
    return tap_shapes(model, paths, clip_shape)
