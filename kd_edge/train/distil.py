"""The student/teacher step: cross-entropy plus the recipe's distillation terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.models import ClipModel
from kd_edge.train.losses import MgcamAdapters, dkd, mgcam, soft_target
from kd_edge.train.recipe import DkdLoss, MgcamLoss, SoftTargetLoss

Loss = SoftTargetLoss | DkdLoss | MgcamLoss


class Observation(NamedTuple):
    """What a network made of a batch of clips.

    Attributes:
        logits: (B, K).
        maps: Stage outputs (B*T, c, h, w), one per stage; empty when nobody needs them.
    """

    logits: Tensor
    maps: list[Tensor]


@contextmanager
def stage_taps(model: ClipModel, active: bool = True) -> Iterator[list[Tensor]]:
    """Collect the backbone's stage outputs of the forward passes inside the block."""
    maps: list[Tensor] = []
    paths = model.backbone.stages if active else ()
    hooks = [
        model.backbone.get_submodule(path).register_forward_hook(lambda _module, _input, output: maps.append(output))
        for path in paths
    ]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def observe(model: ClipModel, clip: Tensor, *, maps: bool) -> Observation:
    """Run a model over clips (B, T, C, S, S), with or without its stage outputs."""
    with stage_taps(model, maps) as tapped:
        logits = model(clip)
    return Observation(logits, tapped)


def teach(teacher: ClipModel, clip: Tensor, losses: Sequence[Loss]) -> Observation:
    """The teacher's view of a batch: eval mode, no gradients, stage outputs only where a loss needs them."""
    with torch.no_grad():
        return observe(teacher.eval(), clip, maps=needs_maps(losses))


def needs_maps(losses: Sequence[Loss]) -> bool:
    """Whether a loss compares stage outputs."""
    return any(isinstance(loss, MgcamLoss) for loss in losses)


class Learner(nn.Module):
    """A model, the adapters its losses need, and the losses: everything that has parameters to train.

    Args:
        model: The network to train.
        losses: Distillation terms; none trains on the labels alone.
        teacher: The observed teacher, for its channel counts only.
        label_smoothing: Of the cross-entropy.
    """

    def __init__(
        self,
        model: ClipModel,
        losses: Sequence[Loss] = (),
        teacher: ClipModel | None = None,
        label_smoothing: float = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.losses = tuple(losses)
        self.label_smoothing = label_smoothing
        self.adapters = nn.ModuleDict()
        for loss in losses:
            if isinstance(loss, MgcamLoss) and loss.align == "conv" and teacher is not None:
                channels = model.backbone.stage_channels, teacher.backbone.stage_channels
                self.adapters[loss.kind] = MgcamAdapters(*channels, loss.pairs)

    def forward(
        self, clip: Tensor, labels: Tensor, seen: Observation | None = None, epoch: int = 1
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of a batch.

        Args:
            clip: (B, T, C, S, S).
            labels: (B,) int64.
            seen: The teacher's observation of the same samples; needed when there are losses.
            epoch: Counted from 1, for warm-ups.

        Returns:
            Scalars by name (``ce``, one per distillation term before its weight, ``total``) and the logits (B, K).
        """
        mine = observe(self.model, clip, maps=needs_maps(self.losses))
        terms = {"ce": F.cross_entropy(mine.logits.float(), labels, label_smoothing=self.label_smoothing)}
        total = terms["ce"]
        for loss in self.losses:
            assert seen is not None
            terms[loss.kind] = self._term(loss, mine, seen, labels)
            total = total + _weight(loss, epoch) * terms[loss.kind]
        return terms | {"total": total}, mine.logits

    def _term(self, loss: Loss, mine: Observation, seen: Observation, labels: Tensor) -> Tensor:
        if isinstance(loss, SoftTargetLoss):
            return soft_target(mine.logits, seen.logits, temperature=loss.temperature)
        if isinstance(loss, DkdLoss):
            weights = {"target_weight": loss.target_weight, "nontarget_weight": loss.nontarget_weight}
            return dkd(mine.logits, seen.logits, labels, **weights, temperature=loss.temperature)
        segments = self.model.segments
        adapters = dict(self.adapters.items()).get(loss.kind)
        return mgcam(
            [per_clip(m, segments, loss.segments) for m in mine.maps],
            [per_clip(m, segments, loss.segments) for m in seen.maps],
            adapters=adapters,
            align=loss.align,
            scale=loss.scale,
            tau=loss.tau,
            reduction=loss.reduction,
            pairs=loss.pairs,
            detach_attention=loss.detach_attention,
        )


def per_clip(stage_map: Tensor, segments: int, how: Literal["mean", "fold"]) -> Tensor:
    """Stage output (B*T, c, h, w) as graph vertices: the mean over a clip's segments (B, c, h, w), or all of them."""
    if how == "fold":
        return stage_map
    return stage_map.float().reshape(-1, segments, *stage_map.shape[1:]).mean(dim=1)


def _weight(loss: Loss, epoch: int) -> float:
    if isinstance(loss, DkdLoss) and loss.warmup_epochs:
        return loss.weight * min(epoch / loss.warmup_epochs, 1.0)
    return loss.weight
