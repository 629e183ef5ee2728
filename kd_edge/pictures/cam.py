"""Where a student looks: class activation maps of one clip."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.heads import ConsensusHead
from kd_edge.models.layers import check_layer, evaluating
from kd_edge.pictures.strips import Strip, draw_strips, heated, positive_share
from kd_edge.pictures.view import View
from kd_edge.train.teachers.base import Tap
from kd_edge.train.teachers.images import tap
from kd_edge.types import Float32


class Activations(NamedTuple):
    """Evidence for classes, place by place.

    Attributes:
        maps: (N, T, h, w) float32: for each of N classes and T segments what speaks for the class (above 0) and
            against it (below 0).
        logits: (K,) float32.
        method: How the maps came about.
        layer: Module path of the layer that was looked at.
    """

    maps: Float32
    logits: Float32
    method: Literal["CAM", "Grad-CAM"]
    layer: str


def last_stage(model: ClipModel) -> str:
    """Module path of a model's last maps before they are averaged over their places."""
    return f"backbone.{model.backbone.stages[-1]}"


def class_activations(
    model: ClipModel,
    clip: Tensor,
    classes: Sequence[int] | None = None,
    layer: str | None = None,
    *,
    method: Literal["CAM", "Grad-CAM"] | None = None,
) -> Activations:
    """Class activation maps of one clip.

    Of the last stage under a head that averages places and segments and is linear (``tsn``, ``tsm``, ``tsm_causal``),
    where the backbone only averages, too, the maps are CAM: the classifier's weights times the last maps. Their mean
    over segments and places, plus the classifier's bias, is the logit. Everywhere else they are Grad-CAM: each
    segment's channels weighted by the mean gradient of the logit. Both keep their negative part, where the papers'
    Grad-CAM rectifies it: whoever draws them decides. For a linear head Grad-CAM is CAM / (T h w).

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016; Selvaraju et al.,
    "Grad-CAM", ICCV 2017.

    Args:
        model: The clip model; mode, gradients and hooks are left as they were.
        clip: (T, C, S, S) float32, as the network sees it.
        classes: Positions of the N classes; None takes the likeliest one.
        layer: Module path; None takes the last stage.
        method: Which maps; None takes CAM where there is one.

    Raises:
        TrainingError: No such layer, one that does not put out a map per segment, or CAM where there is none.
    """
    path = last_stage(model) if layer is None else layer
    linear = path == last_stage(model) and model.backbone.is_mean and isinstance(model.head, ConsensusHead)
    if method == "CAM" and not linear:
        raise TrainingError(
            f"CAM of layer '{path}' under a {type(model.head).__name__}",
            "the last stage, averaged, under a linear head (tsn, tsm, tsm_causal)",
            "take Grad-CAM",
        )
    exact = linear and method != "Grad-CAM"
    with torch.set_grad_enabled(not exact):
        # An input with a gradient records the graph of any layer, whatever parameters are frozen.
        feature, logits = observed_maps(model, clip.detach().clone().requires_grad_(not exact), path)
        wanted = [int(logits.argmax())] if classes is None else list(classes)
        if exact:
            assert isinstance(model.head, ConsensusHead)
            weights = model.head.classifier.weight[wanted]  # (N, c)
            maps = torch.einsum("nc,tchw->nthw", weights, feature)
        else:
            maps = torch.stack([_gradient_map(feature, logits[label]) for label in wanted])
    return Activations(maps.detach().numpy(), logits.detach().numpy(), "CAM" if exact else "Grad-CAM", path)


def observed_maps(model: ClipModel, clip: Tensor, path: str) -> tuple[Tensor, Tensor]:
    """A layer's maps (T, c, h, w) of one clip (T, C, S, S), and the clip's logits (K,), in eval mode.

    Raises:
        TrainingError: No such layer, or one that does not put out a map per segment.
    """
    check_layer(model, path)
    wanted = Tap(path, "fold")
    with evaluating(model), tap(model, [wanted]) as seen:
        logits = model(clip[None])[0]
    feature = seen.get(wanted)
    if not isinstance(feature, Tensor) or feature.ndim != 4 or len(feature) != len(clip):
        shape = tuple(feature.shape) if isinstance(feature, Tensor) else "nothing that is one tensor"
        raise TrainingError(
            f"layer '{path}' puts out {shape}",
            f"({len(clip)}, channels, height, width), a map per segment",
            f"take a stage of the backbone, for example --layer {last_stage(model)}",
        )
    return feature, logits


def _gradient_map(feature: Tensor, logit: Tensor) -> Tensor:
    """Grad-CAM of a layer's maps (T, c, h, w), with its negative part: (T, h, w)."""
    (gradient,) = torch.autograd.grad(logit, feature, retain_graph=True)
    return torch.einsum("tc,tchw->thw", gradient.mean(dim=(2, 3)), feature)


def draw_cam(view: View, path: Path, layer: str | None = None) -> str:
    """Draw the activation maps of the predicted class over the segment frames, and of the true one if it is another.

    What speaks against a class is drawn as nothing; each row has its own highest value.

    Args:
        view: The sample.
        path: The PNG to write.
        layer: Module path; None takes the last stage.

    Returns:
        Empty: there is always such a picture.

    Raises:
        TrainingError: No such layer, or one without a map per segment.
        DataError: The picture cannot be written.
    """
    classes = list(dict.fromkeys((view.predicted, view.sample.label)))
    found = class_activations(view.student.model, torch.from_numpy(view.inputs), classes, layer)
    frames = view.frames
    strips = [Strip("input", frames)]
    for label, maps in zip(classes, found.maps, strict=True):
        role = "correct" if view.correct else "predicted" if label == view.predicted else "true"
        nothing = "" if maps.max() > 0 else "\n(nothing speaks for it)"
        name = "\n".join(textwrap.wrap(view.dataset.labels[label], 20))
        strips.append(Strip(f"{role}:\n{name}{nothing}", heated(frames, positive_share(maps))))
    height, width = found.maps.shape[2:]
    caption = (
        f"{found.method} of {found.layer}, {height} x {width} places: red speaks most for the class in this clip, "
        "blue not at all"
    )
    draw_strips(strips, view.stamps, view.title, caption, path)
    return ""
