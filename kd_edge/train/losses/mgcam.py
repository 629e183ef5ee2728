"""The multi-scale graph cross-attention loss (MGCAM).

Source: Quan et al., "A Cross-Modal Knowledge Distillation Approach for RGB-to-Infrared Video Action Recognition",
Eq. 1-6. No code is public; the choices that the paper leaves open are documented below.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_batch, check_choice, check_maps
from kd_edge.train.losses.geometry import project, to_smaller, unit
from kd_edge.train.losses.precision import as_float, full_precision
from kd_edge.train.options import Align, Graph, Pairs, Reduction, Scale

_IDENTITY = 1e-6
"""Edges between different samples below this carry no information in float32."""


def sample_graph(features: Tensor, *, scale: Scale = "mean") -> Tensor:
    """Compute the Gaussian similarity between the samples of a batch, ``E[m, n] = exp(-d2(m, n) / 2)`` (Eq. 1).

    The paper writes a distance between the student's and the teacher's feature, but Eq. 3 needs one graph per network,
    and the two features differ in size. The distance is therefore between samples of one modality.

    Args:
        features: (b, ...) one feature per sample.
        scale: Definition of d2. ``mean``: squared distance over the number of elements; ``l2norm``: squared distance of
            the features scaled to length 1; ``median``: squared distance over the median between different samples;
            ``sum``: the literal squared distance, which makes E the identity for real feature maps (exp underflows).

    Returns:
        (b, b), symmetric, diagonal 1, entries in [0, 1].
    """
    with full_precision(features):
        vectors = _scaled(features, scale)
        vectors = vectors - vectors.mean(dim=0)  # same distances, far less cancellation in the Gram matrix
        gram = vectors @ vectors.T
        norms = gram.diagonal()
        distance = (norms[:, None] + norms[None, :] - gram - gram.T).clamp(min=0)
        distance = distance * (1 - torch.eye(len(distance), dtype=distance.dtype, device=distance.device))
        return _edges(distance, _off_diagonal(distance), vectors.shape[1], scale)


def cross_graph(student: Tensor, teacher: Tensor, *, scale: Scale = "mean") -> Tensor:
    """Compute the Gaussian similarity of every student sample to every teacher sample (Eq. 1 read literally).

    Args:
        student: (b, ...).
        teacher: (b, ...) with as many elements per sample; no gradient flows into it.
        scale: Definition of the squared distance, see ``sample_graph``; ``median`` is over all b^2 pairs.

    Returns:
        (b, b), row = student sample; neither symmetric nor 1 on the diagonal, entries in [0, 1].

    Raises:
        TrainingError: Unequal batches or numbers of elements.
    """
    check_batch(student, teacher)
    if student[0].numel() != teacher[0].numel():
        raise TrainingError(
            f"graph='cross' between {tuple(student.shape[1:])} student and {tuple(teacher.shape[1:])} teacher elements",
            "features of equal size, since Eq. 1 subtracts them",
            "use graph='intra'",
        )
    with full_precision(student):
        s, t = _scaled(student, scale), _scaled(teacher.detach(), scale)
        centre = t.mean(dim=0)
        s, t = s - centre, t - centre
        distance = (s.square().sum(1)[:, None] + t.square().sum(1)[None, :] - 2 * s @ t.T).clamp(min=0)
        return _edges(distance, distance.flatten(), s.shape[1], scale)


def _scaled(features: Tensor, scale: Scale) -> Tensor:
    """(b, ...) -> (b, d), of length 1 for ``l2norm``."""
    check_choice("scale", scale, Scale)
    vectors = as_float(features).flatten(1)
    return unit(vectors) if scale == "l2norm" else vectors


def _edges(distance: Tensor, pairs: Tensor, elements: int, scale: Scale) -> Tensor:
    """exp(-distance / 2) after scaling; the median is that of the distances ``pairs``."""
    if scale == "mean":
        distance = distance / elements
    elif scale == "median" and len(pairs):
        distance = distance / pairs.median().clamp(min=torch.finfo(distance.dtype).tiny)
    return torch.exp(-distance / 2)


def normalize_graph(edges: Tensor) -> Tensor:
    """Laplacian normalisation ``Q = D^-1/2 E D^-1/2`` with D the row sums (Eq. 2).

    Args:
        edges: E (b, b), symmetric with diagonal 1 (``sample_graph``), or any entries in [0, 1] (``cross_graph``).

    Returns:
        Q (b, b); for a symmetric E with diagonal 1 symmetric, entries in [0, 1]. A row without edges (sum below 1e-6,
        possible across modalities only) becomes 0 instead of infinite.
    """
    with full_precision(edges):
        root = as_float(edges).sum(dim=1).clamp(min=_IDENTITY).rsqrt()
        return root[:, None] * edges * root[None, :]


class MgcamAdapters(nn.Module):
    """1x1 convolutions without bias from student to teacher channels, trained with the student and dropped at export.

    The paper subtracts feature maps with different numbers of channels without saying how. Pairs of stages with equal
    channels are passed through.

    Args:
        student_channels: Channels of the student's stages.
        teacher_channels: Channels of the teacher's stages.
        pairs: Compared stages: ``matched`` ones, or ``all`` pairs.
    """

    def __init__(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int], pairs: Pairs = "matched"
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleDict()
        for i, j in stage_pairs(len(student_channels), len(teacher_channels), pairs):
            c_s, c_t = student_channels[i], teacher_channels[j]
            if c_s != c_t:
                self.projections[f"{i}_{j}"] = nn.Conv2d(c_s, c_t, 1, bias=False)

    def forward(self, feature: Tensor, student_stage: int, teacher_stage: int) -> Tensor:
        """Project a student stage (b, c_S, h, w) to the channels of a teacher stage, (b, c_T, h, w)."""
        key = f"{student_stage}_{teacher_stage}"
        if key not in self.projections:
            return feature
        convolution = self.projections[key]
        assert isinstance(convolution, nn.Conv2d)
        return project(convolution, feature)


def mgcam(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    adapters: Callable[[Tensor, int, int], Tensor] | None = None,
    align: Align = "conv",
    scale: Scale = "mean",
    tau: float = 1.0,
    reduction: Reduction = "sum",
    pairs: Pairs = "matched",
    graph: Graph = "intra",
    detach_attention: bool = False,
) -> Tensor:
    """Multi-scale graph cross-attention loss (Eq. 1-6).

    For a student stage i and a teacher stage j: graphs ``Q_S``, ``Q_T`` (b, b) of their own features;
    ``A = softmax(tau * Q_S Q_T^T / sqrt(b))`` over the last axis; ``W_T = A F_T`` and ``W_S = A F_S`` mix the samples'
    feature maps; the loss is ``||W_T / ||W_T|| - W_S / ||W_S||||^2``, norms per sample over (c, h, w).

    Choices where the paper is silent or ambiguous: the graphs use the unprojected features; d in sqrt(d) is b, the
    length of the contracted axis; the "feature activation map A_j" is the feature map itself; stages are matched,
    i = j, and averaged (k terms); where heights and widths differ both maps are average-pooled to the smaller. The
    entries of A differ by at most a factor e^(tau / sqrt(b)), so with ``tau`` = 1 attention is close to a batch mean.
    With a batch of 1, A is 1 and the loss is the distance of the two normalised feature maps.

    Args:
        student_features: k_S maps (b, c, h, w), one per stage. Segments are averaged before (see ``distil``).
        teacher_features: k_T maps (b, c, h, w); no gradient flows into them.
        adapters: ``adapters(feature, i, j)`` projects student stage i to the channels of teacher stage j; needed with
            ``align="conv"`` where the channels differ, see ``MgcamAdapters``.
        align: ``conv`` uses ``adapters``; ``channel_mean`` compares the means over the channels, without parameters.
        scale: Distance of the graphs, see ``sample_graph``.
        tau: Factor on the attention's logits; above 1 sharpens it.
        reduction: Over (c, h, w): ``sum`` gives terms in [0, 4]; ``mean`` is the paper's "MSE calculation" read
            literally, at most 4 / (c h w), which has next to no effect with a weight of 1.
        pairs: ``matched`` stages, or ``all`` k_S * k_T of them (the double sum read literally, then averaged).
        graph: ``intra``: one graph per network. ``cross``: Eq. 1 read literally, one graph E (b, b) from the student's
            to the teacher's samples, then ``Q_S = Q_T = D^-1/2 E D^-1/2``; only for stages of equal c * h * w.
        detach_attention: Keep the student's gradient out of A.

    Returns:
        Scalar >= 0, mean over batch and pairs.

    Raises:
        TrainingError: Batches, stages or channels that do not fit, ``graph="cross"`` between sizes that differ.
    """
    check_choice("graph", graph, Graph)
    check_choice("align", align, Align)
    check_choice("reduction", reduction, Reduction)
    terms = []
    for i, j in stage_pairs(len(student_features), len(teacher_features), pairs):
        student, teacher = as_float(student_features[i]), as_float(teacher_features[j].detach())
        check_maps(student, teacher)
        with full_precision(student):
            attention = _attention(student, teacher, scale, tau, graph)
            if detach_attention:
                attention = attention.detach()
            if align == "channel_mean":
                student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
            elif adapters is not None:
                student = adapters(student, i, j)
            terms.append(_mixed_distance(attention, *_same_size(student, teacher, i, j), reduction))
    return torch.stack(terms).mean()


def stage_pairs(student_stages: int, teacher_stages: int, pairs: Pairs) -> list[tuple[int, int]]:
    """Return the pairs of stages (i, j) to compare.

    Raises:
        TrainingError: ``matched`` with different numbers of stages, or there is no stage.
    """
    check_choice("pairs", pairs, Pairs)
    if min(student_stages, teacher_stages) < 1 or (pairs == "matched" and student_stages != teacher_stages):
        raise TrainingError(
            f"{student_stages} student and {teacher_stages} teacher stages for pairs='{pairs}'",
            "equal numbers for matched pairs, at least one each",
            "tap as many stages of the teacher, or use pairs='all'",
        )
    if pairs == "matched":
        return [(i, i) for i in range(student_stages)]
    return list(itertools.product(range(student_stages), range(teacher_stages)))


def _attention(student: Tensor, teacher: Tensor, scale: Scale, tau: float, graph: Graph) -> Tensor:
    """A (b, b), rows sum to 1 (Eq. 3)."""
    if graph == "cross":
        edges = cross_graph(student, teacher, scale=scale)
        q_s = q_t = _normalized(edges, edges, f"the cross graph has no edges (scale='{scale}')")
    else:
        e_s, e_t = sample_graph(student, scale=scale), sample_graph(teacher, scale=scale)
        q_s = _normalized(e_s, _off_diagonal(e_s), f"the student's sample graph is the identity (scale='{scale}')")
        q_t = _normalized(e_t, _off_diagonal(e_t), f"the teacher's sample graph is the identity (scale='{scale}')")
    return torch.softmax(tau * (q_s @ q_t.T) / math.sqrt(len(student)), dim=-1)


def _normalized(edges: Tensor, between: Tensor, trouble: str) -> Tensor:
    """Q (b, b), with a warning if no edge between samples is left."""
    if between.numel() and bool(between.detach().max() < _IDENTITY):
        advice = "attention carries no information; use scale='mean', 'l2norm' or 'median'"
        warnings.warn(f"{trouble}: {advice}", stacklevel=4)
    return normalize_graph(edges)


def _same_size(student: Tensor, teacher: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
    if student.shape[:2] != teacher.shape[:2]:
        raise TrainingError(
            f"student stage {i} with (batch, channels) {tuple(student.shape[:2])}, teacher stage {j} with "
            f"{tuple(teacher.shape[:2])}",
            "the same",
            "pass adapters=MgcamAdapters(student_channels, teacher_channels), or use align='channel_mean'",
        )
    return to_smaller(student, teacher)


def _mixed_distance(attention: Tensor, student: Tensor, teacher: Tensor, reduction: str) -> Tensor:
    """Eq. 4-6 for one pair of stages of equal shape (b, c, h, w)."""
    mixed_s = unit(attention @ student.flatten(1))
    mixed_t = unit(attention @ teacher.flatten(1))
    squared = (mixed_t - mixed_s).square()
    return squared.sum(dim=1).mean() if reduction == "sum" else squared.mean()


def _off_diagonal(matrix: Tensor) -> Tensor:
    """(b, b) -> (b * (b - 1),)."""
    return matrix[~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)]
