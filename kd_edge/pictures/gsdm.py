"""Where a student finds what its class means: the SAKDN paper's semantically discriminative map of one clip."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kd_edge.data.words.class_vectors import class_vectors
from kd_edge.errors import ConfigError
from kd_edge.models import ClipModel
from kd_edge.models.layers import evaluating
from kd_edge.pictures.cam import last_stage, observed_maps
from kd_edge.pictures.strips import Strip, coloured, draw_strips, positive_share, weighted
from kd_edge.pictures.view import View
from kd_edge.preprocess import Preprocess
from kd_edge.train.distil.methods import GsdmLoss
from kd_edge.train.losses.gsdm import semantic_map, semantic_weights
from kd_edge.train.results.run import load_recipe
from kd_edge.types import Float32


class SemanticMaps(NamedTuple):
    """A student's semantically discriminative maps of one clip.

    Attributes:
        maps: (T, h, w) float32, >= 0.
        weight: Mean of omega (Eq. 15), which is all that ``scalar`` weighting takes of it.
        layer: Module path of the layer that was looked at.
    """

    maps: Float32
    weight: float
    layer: str


def semantically_discriminative_maps(
    model: ClipModel, clip: Tensor, ablated: Tensor, vectors: Tensor, options: GsdmLoss, layer: str | None = None
) -> SemanticMaps:
    """Eq. 14 to 16 of the SAKDN paper for one clip, segment by segment.

    The clip stands alone: its graph has one vertex, Q = Q_a = 1, and omega compares the vector of its own predicted
    class with that of the ablated clip's, so that the picture does not change with what else is looked at. In training
    Q joins the clips of a batch, and the loss looks at the mean over the segments.

    Args:
        model: The clip model, left as it was.
        clip: (T, C, S, S) float32, as the network sees it.
        ablated: (T, C, S, S) float32, the clip with nothing to see, from ``without_content``.
        vectors: (K, D) word vectors of the class names.
        options: Slope, embedding and weighting.
        layer: Module path; None takes the last stage.

    Raises:
        TrainingError: No such layer, or one that does not put out a map per segment.
    """
    path = last_stage(model) if layer is None else layer
    with torch.no_grad(), evaluating(model):
        feature, logits = observed_maps(model, clip, path)
        omega = semantic_weights(
            logits[None], model(ablated[None]), vectors, slope=options.slope, embedding=options.embedding
        )  # (1, D)
        maps = semantic_map(feature, omega.expand(len(feature), -1), weighting=options.weighting)
    return SemanticMaps(maps.numpy(), float(omega.mean()), path)


def without_content(clip: Tensor, spec: Preprocess, ablation: Literal["zeros", "black"]) -> Tensor:
    """A clip of the same shape with nothing to see: zeros of the normalised input, or black pixels."""
    if ablation == "zeros":
        return torch.zeros_like(clip)
    mean, std = (torch.tensor(values).expand(spec.input_channels) for values in (spec.mean, spec.std))
    return (-mean / std)[:, None, None].expand_as(clip)


def run_semantics(view: View, data_root: Path | None) -> tuple[Tensor, GsdmLoss] | str:
    """Vectors (K, D) of a run's class names and the options of its ``gsdm`` loss, or why there are no vectors.

    Raises:
        DataError: The recipe's vectors cannot be read.
    """
    try:
        recipe = load_recipe(view.student.path)
    except ConfigError as error:
        return f"the run's recipe cannot be read: {error.found}"
    if recipe.semantics is None:
        return "the run's recipe has no [semantics], vectors of the class names"
    vectors = class_vectors(recipe.semantics, view.dataset.labels, data_root).vectors
    options = next((loss for loss in recipe.losses if isinstance(loss, GsdmLoss)), GsdmLoss())
    return torch.from_numpy(vectors), options


def draw_gsdm(view: View, path: Path, layer: str | None = None, data_root: Path | None = None) -> str:
    """Draw the segment frames weighted by the student's semantically discriminative maps (Fig. 6).

    Options are those of the recipe's ``gsdm`` loss, or that loss' defaults.

    Args:
        view: The sample.
        path: The PNG to write.
        layer: Module path; None takes the last stage.
        data_root: Where vectors of class names are looked for too.

    Returns:
        Why there is no such picture; empty when there is one.

    Raises:
        DataError: The recipe's vectors cannot be read, or the picture not be written.
    """
    semantics = run_semantics(view, data_root)
    if isinstance(semantics, str):
        return semantics
    vectors, options = semantics
    clip = torch.from_numpy(view.inputs)
    ablated = without_content(clip, view.student.spec.preprocess, options.ablation)
    found = semantically_discriminative_maps(view.student.model, clip, ablated, vectors, options, layer)
    frames, shares = view.frames, positive_share(found.maps)
    rows = (
        Strip("input", frames),
        Strip("its map", coloured(shares, (frames.shape[1], frames.shape[2]))),
        Strip("input\ntimes the map", weighted(frames, shares)),
    )
    draw_strips(rows, view.stamps, view.title, _caption(found, options), path)
    return ""


def _caption(found: SemanticMaps, options: GsdmLoss) -> str:
    height, width = found.maps.shape[1:]
    how = f"GSDM of {found.layer}, {height} x {width} places ({options.slope}, {options.embedding}, {options.weighting}"
    empty = "" if found.maps.any() else ": empty, as no less is left of the class without the clip's content"
    return f"{how}; mean omega {found.weight:+.2f}){empty or ': yellow most'}"
