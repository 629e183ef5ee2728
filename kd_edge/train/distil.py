"""The student/teacher step: cross-entropy plus the recipe's distillation terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.layers import evaluating
from kd_edge.train.loss_config import Loss
from kd_edge.train.terms import Layer, Observation, Shape, Term, tapped_layers

__all__ = ["Learner", "Observation", "observe", "tap", "teach"]


@contextmanager
def tap(model: nn.Module, paths: Collection[str]) -> Iterator[dict[str, tuple[Tensor, int]]]:
    """Collect the outputs of some layers of the forward pass inside the block, by module path.

    Yields:
        Path -> the output and its version when it was put out: it rises when something writes to it in place.
    """
    seen: dict[str, tuple[Tensor, int]] = {}
    hooks = [
        model.get_submodule(path).register_forward_hook(
            lambda _module, _input, output, path=path: seen.__setitem__(path, (output, getattr(output, "_version", 0)))
        )
        for path in paths
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def observe(model: ClipModel, clip: Tensor, paths: Collection[str]) -> Observation:
    """Run a model over clips (B, T, C, S, S) and look at some of its layers.

    Raises:
        TrainingError: A layer whose output the next one overwrites (a batch normalisation before an in-place ReLU).
    """
    with tap(model, paths) as seen:
        logits = model(clip)
    for path, (output, version) in seen.items():
        if getattr(output, "_version", 0) != version:
            raise TrainingError(
                f"the output of layer '{path}' is overwritten in place by a later one",
                "a layer whose output stays as it is",
                "look at the layer after it, or at the whole block: kd-edge recipes layers RECIPE",
            )
    return Observation(logits, {path: output for path, (output, _) in seen.items()})


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
        student_layers: Layers of the model that the losses look at, with what was found of them.
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
        self.student_layers: Mapping[str, Layer] = {}
        self.teacher_layers: Mapping[str, Layer] = {}
        if not losses:
            return
        assert teacher is not None
        mine, theirs = shapes or ((), ())
        self.student_layers = _probe(model, [tapped_layers(loss, model, "student") for loss in losses], mine)
        self.teacher_layers = _probe(teacher, [tapped_layers(loss, teacher, "teacher") for loss in losses], theirs)
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


def _probe(model: ClipModel, named: Sequence[tuple[str, ...]], clip_shape: Shape) -> dict[str, Layer]:
    """The layers that any term looks at, each once, found by showing the model one clip of noise.

    Args:
        model: The network; left as it was.
        named: Module paths, term by term.
        clip_shape: (T, C, S, S).

    Raises:
        TrainingError: A layer that does not put out one tensor with a row per frame.
    """
    paths = tuple(dict.fromkeys(path for layers in named for path in layers))
    if not paths:
        return {}
    device = next(model.parameters()).device
    clip = torch.randn(1, *clip_shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad(), evaluating(model):
        seen = observe(model, clip, paths).taps
    layers: dict[str, Layer] = {}
    for path in paths:
        output = seen.get(path)
        rows = isinstance(output, Tensor) and output.ndim in (2, 4) and len(output) == clip_shape[0]
        if output is None or not rows:
            raise TrainingError(
                f"layer '{path}' puts out {tuple(output.shape) if isinstance(output, Tensor) else 'no single tensor'}",
                f"({clip_shape[0]}, features) or ({clip_shape[0]}, channels, height, width), a row per frame",
                "kd-edge recipes layers RECIPE shows every layer and its shape; those in the backbone fit",
            )
        layers[path] = Layer(tuple(output.shape[1:]), bool((output < 0).any()))
    return layers
