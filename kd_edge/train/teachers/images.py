"""An image network that is looked at while it classifies clips."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.bninception import SAKDN_LAYERS
from kd_edge.models.heads import RelationHead
from kd_edge.train.teachers.base import Observation, Tap, per_clip


def image_stages(model: ClipModel) -> tuple[str, ...]:
    """The four stage outputs of an image network."""
    return tuple(f"backbone.{path}" for path in model.backbone.stages)


def five_stages(model: ClipModel) -> tuple[str, ...]:
    """Five layers that correspond to the five blocks of a VGG (Eq. 22 for BN-Inception)."""
    parts = dict(model.backbone.named_children())
    if "inception_5b" in parts:
        return tuple(f"backbone.{path}" for path in SAKDN_LAYERS)
    if {"relu", "layer1"} <= parts.keys():
        return ("backbone.relu", *image_stages(model))
    return (image_stages(model)[0], *image_stages(model))  # the first stage twice: there is nothing before it


def semantic_layer(model: ClipModel) -> str:
    """The layer whose values a semantic loss compares: a relation head's projection, else the feature vector."""
    return "head.project" if isinstance(model.head, RelationHead) else "backbone"


@contextmanager
def tap(model: ClipModel, taps: Collection[Tap]) -> Iterator[dict[Tap, Tensor]]:
    """Collect what some layers put out in the forward pass inside the block.

    Segments are averaged at once: the maps of all frames are an order larger, and nobody else keeps a teacher's.

    Raises:
        TrainingError: A layer whose output the next one overwrites (a batch normalisation before an in-place ReLU).
    """
    seen: dict[Tap, Tensor] = {}
    versions: dict[Tap, int] = {}

    def remember(tapped: Tap, output: Tensor) -> None:
        # A head's layer puts out (B, T, D), a backbone's (B*T, ...).
        rows = output.flatten(0, 1) if isinstance(output, Tensor) and output.ndim == 3 else output
        seen[tapped] = per_clip(rows, model.segments, tapped.segments)
        versions[tapped] = getattr(seen[tapped], "_version", 0)

    hooks = [
        model.get_submodule(tapped.path).register_forward_hook(
            lambda _module, _input, output, tapped=tapped: remember(tapped, output)
        )
        for tapped in taps
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
    for tapped, output in seen.items():
        if getattr(output, "_version", 0) != versions[tapped]:
            raise TrainingError(
                f"the output of layer '{tapped.path}' is overwritten in place by a later one",
                "a layer whose output stays as it is",
                "look at the layer after it, or at the whole block: kd-edge recipes layers RECIPE",
            )


def observe(model: ClipModel, clip: Tensor, taps: Collection[Tap]) -> Observation:
    """Run a model over clips (B, T, C, S, S) and look at some of its layers."""
    with tap(model, taps) as seen:
        logits = model(clip)
    return Observation(logits, seen)
