"""An image network observed by losses while it classifies clips, as a student or as a teacher."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from kd_edge.data import Dataset
from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel, build_model
from kd_edge.models.backbones import build_backbone, start_from_motion
from kd_edge.models.bninception import SAKDN_LAYERS
from kd_edge.models.heads import RelationHead
from kd_edge.models.layers import Layer as NamedLayer
from kd_edge.models.layers import check_layer, list_layers
from kd_edge.train.recipe.stages import StageConfig
from kd_edge.train.teachers.base import Observation, Places, Shape, Tap, Teacher, per_clip


def image_network(config: StageConfig, segments: int, classes: int, *, initial_weights: bool = True) -> ClipModel:
    """An image stage's network.

    Args:
        config: The stage.
        segments: T.
        classes: Number of classes K.
        initial_weights: Whether the backbone starts from the stage's ``initial_weights``; at random otherwise.
    """
    weights = config.initial_weights if initial_weights else None
    spec = config.preprocess
    model = build_model(config.model, spec.input_channels, classes, segments, weights)
    if spec.has_motion and config.initial_weights is None:
        start_from_motion(model.backbone, spec.channels)
    return model


def frame_feature_size(config: StageConfig) -> int:
    """Feature size of the backbone."""
    with torch.device("meta"):
        return build_backbone(config.model.backbone, in_channels=config.preprocess.input_channels).feature_size


def image_places(model: ClipModel) -> Places:
    """The layers of an image network that losses observe."""
    return Places(
        image_stages(model), five_stages(model), "backbone", semantic_layer(model), partial(check_layer, model)
    )


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
    """Collect the outputs of some layers during the forward pass inside the block.

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
    """Run a model on clips (B, T, C, S, S) and collect the outputs of some of its layers."""
    with tap(model, taps) as seen:
        logits = model(clip)
    return Observation(logits, seen)


class ImageTeacher(ClipModel, Teacher):
    """A clip model that teaches; the weights are named as the clip model's.

    Args:
        model: Whose backbone and head these are from now on.
    """

    def __init__(self, model: ClipModel) -> None:
        super().__init__(model.backbone, model.head, model.segments)

    @classmethod
    def build(cls, config: StageConfig, segments: int, classes: int, dataset: Dataset | None) -> ImageTeacher:
        """See ``Teacher.build``."""
        return cls(image_network(config, segments, classes, initial_weights=dataset is not None))

    @property
    def places(self) -> Places:
        """See ``image_places``."""
        return image_places(self)

    def layers(self, shape: Shape) -> list[NamedLayer]:
        """Every submodule with its output for one clip."""
        return list_layers(self, (1, *shape))

    def observe(self, inputs: Tensor, taps: Collection[Tap], *, ablate: bool = False) -> tuple[Observation, ...]:
        """Outputs of the network for clips (B, T, C, S, S); with ``ablate`` also for one clip of zeros."""
        seen = observe(self, inputs, taps)
        return (seen._replace(ablated=self(torch.zeros_like(inputs[:1]))) if ablate else seen,)
