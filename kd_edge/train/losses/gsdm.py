"""Graph-guided semantically discriminative mapping (GSDM): two networks should attend to the same decisive regions.

Source: Liu et al., "Semantics-aware Adaptive Knowledge Distillation for Sensor-to-Vision Action Recognition" (SAKDN),
Eq. 14-17. The public code computes its maps outside autograd, so that its loss has no gradient; this one has.
Differences between paper and code, and the choices made, are documented below.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_batch, check_choice, check_taps
from kd_edge.train.losses.geometry import unit
from kd_edge.train.losses.mgcam import normalize_graph, sample_graph
from kd_edge.train.losses.precision import as_float, full_precision
from kd_edge.train.options import ClassEmbedding, Reduction, Slope, Weighting

_SMALLEST = 1e-2
"""``stable``: the smallest denominator, as a fraction of the sample's root mean square."""


def semantic_weights(
    logits: Tensor,
    ablated_logits: Tensor,
    class_vectors: Tensor,
    *,
    slope: Slope = "official",
    embedding: ClassEmbedding = "hard",
) -> Tensor:
    """Compute ``omega``, how much each element of a sample's class embedding depends on the input (Eq. 14 and 15).

    ``F`` is the word vector of the predicted class, ``Q`` the normalised graph of the logits between the samples of
    the batch (squared distance mean over K, as in the public code; "D^{1/2} W D^{-1/2}" is read as
    ``D^-1/2 W D^-1/2``), ``QF`` and ``Q_a F_a`` the same for the ablated input; omega is
    ``(QF - Q_a F_a) / QF``, element by element. QF crosses zero, so the quotient needs a rule:

    * ``stable``: a denominator below a hundredth of its row's root mean square is replaced by that size, with its sign
      (+ for 0). Negative quotients stay, as in Eq. 15. A row of zeros has omega 0.
    * ``official``: ``max(0, quotient)`` with the denominator as it is; elements from -100 to +1000 and more are usual
      before the maximum. A quotient that is not finite (denominator 0) counts as 0.
    * ``norm``: ``||QF - Q_a F_a|| / ||QF||``, one number per sample, repeated D times.

    Args:
        logits: (b, K) of the inputs.
        ablated_logits: (b, K) of the blanked inputs, or (1, K) if one blank input stands for all b: equal rows have
            a graph of ones, for which ``Q_a F_a = F_a`` exactly.
        class_vectors: (K, D), one word vector per class.
        slope: One of the three rules.
        embedding: ``hard``: the row of the largest logit; ``soft``: ``softmax(logits) @ class_vectors``.

    Returns:
        omega (b, D), float32 or float64, without gradient. A batch of 1 has Q = 1.

    Raises:
        TrainingError: Shapes that do not fit, an unknown option.
    """
    check_choice("slope", slope, Slope)
    check_choice("embedding", embedding, ClassEmbedding)
    _check_logits(logits, ablated_logits, class_vectors)
    with torch.no_grad(), full_precision(logits):
        full = _graph_embedding(as_float(logits), class_vectors, embedding)
        change = full - _graph_embedding(as_float(ablated_logits), class_vectors, embedding)
        return _quotient(change, full, slope)


def _graph_embedding(logits: Tensor, class_vectors: Tensor, embedding: ClassEmbedding) -> Tensor:
    """QF (b, D)."""
    vectors = class_vectors.to(logits)
    embedded = vectors[logits.argmax(dim=1)] if embedding == "hard" else logits.softmax(dim=1) @ vectors
    return normalize_graph(sample_graph(logits)) @ embedded


def _quotient(change: Tensor, full: Tensor, slope: Slope) -> Tensor:
    """(b, D), 0 wherever it would not be finite."""
    if slope == "norm":
        change, full = (torch.linalg.vector_norm(v, dim=1, keepdim=True).expand_as(v) for v in (change, full))
    elif slope == "stable":
        smallest = _SMALLEST * full.square().mean(dim=1, keepdim=True).sqrt()
        full = torch.where(full.abs() < smallest, torch.where(full < 0, -smallest, smallest), full)
    quotient = change / full
    quotient = torch.where(quotient.isfinite(), quotient, 0)
    return quotient.clamp(min=0) if slope == "official" else quotient


def semantic_map(feature: Tensor, omega: Tensor, *, weighting: Weighting = "scalar") -> Tensor:
    """Compute where a feature map supports the predicted class, ``ReLU(sum over c of omega_c * A_c)`` (Eq. 16).

    omega has D elements and the map c channels ("adaptively adjusted", says the paper):

    * ``scalar`` (the public code): the mean over D, one weight per sample. **Once the map is scaled to length 1, as in
      ``gsdm``, only the sign of that weight remains**: a positive one gives the plain channel sum, whatever the
      word vectors are; zero (the class of the blank input) or, on a rectified map (channels >= 0), a negative one
      empties it. With the public class vectors ``stable`` gives a fifth to nearly half of all samples a negative mean,
      the other two give none.
    * ``channel``: omega averaged to c elements (``adaptive_avg_pool1d``), so that the weights shape the map. Which
      element of a word vector meets which channel is arbitrary.

    Args:
        feature: A (b, c, h, w), differentiable. Segments are averaged before.
        omega: (b, D), from ``semantic_weights``; no gradient flows into it.
        weighting: One of the two.

    Returns:
        (b, h, w), >= 0, float32 or float64.

    Raises:
        TrainingError: Shapes that do not fit, an unknown weighting.
    """
    check_choice("weighting", weighting, Weighting)
    if feature.ndim != 4 or omega.ndim != 2 or len(feature) != len(omega):
        raise TrainingError(
            f"a map {tuple(feature.shape)} and weights {tuple(omega.shape)}",
            "(b, c, h, w) and (b, D) of the same samples",
            "tap a layer that gives maps, and average maps and logits over the segments of a clip or neither",
        )
    with full_precision(feature):
        values = as_float(feature)
        weights, channels = omega.detach().to(values), values.shape[1]
        if weighting == "scalar":
            weights = weights.mean(dim=1, keepdim=True).expand(-1, channels)
        else:
            weights = F.adaptive_avg_pool1d(weights, channels)
        # (b, 1, c) @ (b, c, h * w): the weighted maps themselves are never stored
        return F.relu(weights[:, None, :] @ values.flatten(2)).view(len(values), *values.shape[2:])


def semantic_maps(
    features: Sequence[Tensor],
    logits: Tensor,
    ablated_logits: Tensor,
    class_vectors: Tensor,
    *,
    slope: Slope = "official",
    embedding: ClassEmbedding = "hard",
    weighting: Weighting = "scalar",
) -> list[Tensor]:
    """Compute ``semantic_map`` of several maps (b, c, h, w) of one network with a common omega (``semantic_weights``).

    Returns:
        One (b, h, w) per map. With several teachers those of the student are computed only once, see ``map_distance``.

    Raises:
        TrainingError: Shapes that do not fit, an unknown option.
    """
    omega = semantic_weights(logits, ablated_logits, class_vectors, slope=slope, embedding=embedding)
    return [semantic_map(feature, omega, weighting=weighting) for feature in features]


def map_distance(
    student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor], *, reduction: Reduction = "sum"
) -> Tensor:
    """Squared distance of maps scaled to length 1 over h * w, mean over samples and pairs (Eq. 17 for one teacher).

    A teacher's map of another size is resized to the student's: averaged if it is at least as large, interpolated if it
    is smaller (the public code repeats or truncates raw memory, which mixes samples). An empty map stays 0: its sample
    contributes the constant 1 (0 if both are empty) and no gradient.

    Args:
        student_maps: (b, h, w) each, matched in order.
        teacher_maps: As many (b, h', w'); no gradient flows into them.
        reduction: Over h * w: ``sum`` gives terms in [0, 2], since maps are >= 0; ``mean``, as in the code, is at most
            2 / (h w) and has almost no effect with a weight of 1.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: Unequal numbers of maps or batches, an unknown reduction.
    """
    check_taps(student_maps, teacher_maps)
    check_choice("reduction", reduction, Reduction)
    terms = []
    for student, teacher in zip(student_maps, teacher_maps, strict=True):
        check_batch(student, teacher)
        with full_precision(student):
            target = _resized(as_float(teacher.detach()), (student.shape[1], student.shape[2]))
            squared = (unit(target.flatten(1)) - unit(as_float(student).flatten(1))).square()
            terms.append(squared.sum(dim=1).mean() if reduction == "sum" else squared.mean())
    return torch.stack(terms).mean()


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(b, h, w) -> (b, *size)."""
    if tuple(maps.shape[1:]) == size:
        return maps
    if maps.shape[1] >= size[0] and maps.shape[2] >= size[1]:
        return F.adaptive_avg_pool2d(maps[:, None], size)[:, 0]
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False, antialias=True)[:, 0]


def gsdm(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    student_logits: Tensor,
    student_ablated: Tensor,
    teacher_logits: Tensor,
    teacher_ablated: Tensor,
    class_vectors: Tensor,
    *,
    slope: Slope = "official",
    embedding: ClassEmbedding = "hard",
    weighting: Weighting = "scalar",
    reduction: Reduction = "sum",
) -> Tensor:
    """GSDM loss for one teacher (Eq. 14-17): ``map_distance`` of both networks' ``semantic_maps``.

    The sum over the pairs is divided by their number; the mean over m teachers is the caller's. Only the student's
    features get a gradient: omega is a constant of both networks. With ``weighting="scalar"`` the loss compares plain
    channel sums, see ``semantic_map``.

    Args:
        student_features: Maps (b, c, h, w), one per layer. Segments are averaged before.
        teacher_features: As many maps (b, c', h', w'), matched in order; channels and sizes may differ.
        student_logits: (b, K).
        student_ablated: (b, K) or (1, K), logits of the blank input, from a pass in eval mode.
        teacher_logits: (b, K).
        teacher_ablated: (b, K) or (1, K).
        class_vectors: (K, D), one word vector per class.
        slope: Quotient of Eq. 15, see ``semantic_weights``.
        embedding: Eq. 14, see ``semantic_weights``.
        weighting: Eq. 16, see ``semantic_map``.
        reduction: Eq. 17, see ``map_distance``.

    Returns:
        Scalar >= 0, at most 2.

    Raises:
        TrainingError: Unequal numbers of maps or batches, shapes that do not fit, an unknown option.
    """
    check_taps(student_features, teacher_features)
    for student, teacher in zip(student_features, teacher_features, strict=True):
        check_batch(student, teacher)
    with torch.no_grad():
        teacher_maps = semantic_maps(
            teacher_features,
            teacher_logits,
            teacher_ablated,
            class_vectors,
            slope=slope,
            embedding=embedding,
            weighting=weighting,
        )
    student_maps = semantic_maps(
        student_features,
        student_logits,
        student_ablated,
        class_vectors,
        slope=slope,
        embedding=embedding,
        weighting=weighting,
    )
    return map_distance(student_maps, teacher_maps, reduction=reduction)


def _check_logits(logits: Tensor, ablated: Tensor, class_vectors: Tensor) -> None:
    """Check that logits (b, K), ablated logits (b | 1, K) and class vectors (K, D) match."""
    if logits.ndim != 2 or ablated.ndim != 2 or 0 in logits.shape or len(ablated) not in (1, len(logits)):
        raise TrainingError(
            f"logits {tuple(logits.shape)} and ablated logits {tuple(ablated.shape)}",
            "(b, K) and (b, K) or (1, K), b >= 1",
            "give one row per sample; one row of a blank input may stand for all",
        )
    classes = {logits.shape[1], ablated.shape[1]}
    if class_vectors.ndim != 2 or classes != {len(class_vectors)}:
        raise TrainingError(
            f"logits of {' and '.join(map(str, sorted(classes)))} classes, class vectors {tuple(class_vectors.shape)}",
            "one vector (D,) for each of the K classes, in the order of the logits",
            "make the class vectors from the labels of this run's data",
        )
