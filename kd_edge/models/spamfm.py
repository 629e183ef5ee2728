"""Similarity-preserving adaptive multi-modal fusion (SPAMFM): the features of m networks gate each other's channels.

Source: Liu et al., "Semantics-aware Adaptive Knowledge Distillation for Sensor-to-Vision Action Recognition", IEEE TIP
2021, Eq. 4-13. The text and the authors' code differ; both variants are implemented, see ``SPAMFM``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_edge.errors import ConfigError, TrainingError, did_you_mean
from kd_edge.models.config import Similarity, Variant

LARGEST_FACTOR = 1e4
"""Clipping limit of the product's factors, far above real features: six larger ones would exceed float32's range."""

MOMENTUM = 0.1
"""Weight of a batch in the running scale, as in batch norm."""


class SPAMFM(nn.Module):
    """Fuse the features A_k of m modalities at one layer: all modalities together gate the channels of each.

    With b samples, ``[,]`` for concatenation, and all sums and products over the modalities k = 1..m::

        R_k = A_k as (b, c_k h_k w_k)                                      similarity of the samples
        G_k[i, :] = (R_k R_k^T)[i, :] / ||(R_k R_k^T)[i, :]||_2            (4), (5)
        S_k = mean of A_k over h_k, w_k, (b, c_k)                          squeeze (6)
        Z_con = W_con1 [G_1 S_1, ..., G_m S_m] + b_con1                    relations (7)
        Z_sum = W_sum1 sum_k G_k S_k + b_sum1                              (8)
        Z_had = W_had1 prod_k G_k S_k + b_had1                             (9)
        E_r,k = W_r2,k Z_r + b_r2,k,   r = con, sum, had                   excitation (10)-(12)
        A~_k = (d(E_con,k) + d(E_sum,k) + d(E_had,k)) * A_k                gate per channel (13)

    ``paper``: as printed, with d = ReLU and no activation between the two layers; Z_r is shared by the modalities (it
    has no index in the text), and W_r2,k is specific to each modality (E is in R^{c_k}); Z has sum c / (2m) elements
    for con and c for sum and had. The gate is not bounded.
    ``official``: the authors' code. Both layers are specific to each modality, with a ReLU between them; Z_r,k has
    sum c / (2m) elements for con and c / (2m) for sum and had; d is ReLU(sigmoid), where the ReLU has no effect, and
    the gate lies in (0, 3).

    G mixes the samples of a batch. In training it is always computed from the batch. In evaluation, a prediction should
    not depend on the other samples: ``identity`` uses G = I, which is exactly the result of Eq. 5 for a batch of one.
    However, the rows of G have length 1, not sum 1: for b similar samples G S is sqrt(b) S, so that gates trained on
    batches are evaluated at another scale and lose accuracy. ``running`` uses G_k = r_k I, where r_k is the mean of
    ||G_k S_k|| / ||S_k|| over the training batches: every sample is fused with its own sensors, at the scale of
    training. ``batch`` computes G from the batch, as the authors' code does.

    If the c_k are unequal (the text adds and multiplies them regardless), a linear map without bias reduces the wider
    ones to min c_k for sum and product. With m = 1 the three relations have the same input G_1 S_1, and the module is a
    squeeze-and-excitation block with three branches.

    Everything up to the gate is computed in float32 (or float64 for float64 inputs), also inside autocast. Outputs for
    float16 inputs are float32, too: the gate of ``paper`` grows with the features, and features of 100 times gates of
    1000 exceed the range of float16.

    Args:
        channels: Number c_k of channels of each modality.
        variant: ``paper`` or ``official``.
        similarity: Choice of G in evaluation; can be changed at any time.

    Raises:
        ConfigError: There is no modality, or variant or similarity is unknown.
    """

    def __init__(
        self, channels: Sequence[int], *, variant: Variant = "paper", similarity: Similarity = "identity"
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ConfigError(f"channels {tuple(channels)} to fuse", "one modality or more", "pass their channels")
        _check_choice("variant", variant, get_args(Variant))
        self.channels = tuple(channels)
        self.variant = variant
        self.similarity = similarity
        least, reduced = min(channels), max(1, sum(channels) // (2 * len(channels)))
        hidden = max(1, least // (2 * len(channels))) if variant == "official" else least
        self.to_least = nn.ModuleList(
            nn.Identity() if c == least else nn.Linear(c, least, bias=False) for c in self.channels
        )
        self.concatenation = _Excitation(sum(channels), reduced, self.channels, variant)
        self.summation = _Excitation(least, hidden, self.channels, variant)
        self.product = _Excitation(least, hidden, self.channels, variant)
        self.register_buffer("batches", torch.zeros(len(channels), dtype=torch.int64))
        self.register_buffer("stretch", torch.ones(len(channels)))

    @property
    def similarity(self) -> Similarity:
        """G in evaluation: ``identity``, ``batch`` or ``running``."""
        return self._similarity

    @similarity.setter
    def similarity(self, value: Similarity) -> None:
        _check_choice("similarity", value, get_args(Similarity))
        self._similarity: Similarity = value

    def forward(self, features: Sequence[Tensor], present: Tensor | None = None) -> list[Tensor]:
        """Gate the features of every modality.

        Args:
            features: m tensors (b, c_k, h_k, w_k) or (b, c_k).
            present: (b, m) bool, False where a sample lacks a modality; None if none is missing. Missing features may
                contain anything, including NaN: they are treated as 0, as 1 in the product, their output is 0, and they
                do not affect the similarities of the other samples.

        Returns:
            m tensors with the shapes and dtypes of the inputs, except that float16 becomes float32.

        Raises:
            TrainingError: Features or ``present`` have a wrong shape.
        """
        self._check(features, present)
        if present is not None:
            features = [_zero_missing(feature, ~present[:, k]) for k, feature in enumerate(features)]
        with _full_precision(features[0].device.type):
            gates = self._gates(features, present)
        return [_apply_gate(feature, gate) for feature, gate in zip(features, gates, strict=True)]

    def extra_repr(self) -> str:
        """The options as shown by ``print``."""
        return f"channels={self.channels}, variant='{self.variant}', similarity='{self.similarity}'"

    def _gates(self, features: Sequence[Tensor], present: Tensor | None) -> list[Tensor]:
        """The gates of Eq. 13, m of (b, c_k)."""
        mixing = self.training or self.similarity == "batch"
        contexts: list[Tensor] = []
        for feature in features:
            squeezed = _squeeze(feature)  # (b, c_k)
            # in a batch of one, G is [[1]], or [[0]] if S is 0, too
            mixed = _similarities(feature) @ squeezed if mixing and len(feature) > 1 else squeezed
            if self.training and len(feature) > 1:
                self._remember(len(contexts), squeezed, mixed)
            elif not self.training and self.similarity == "running":
                mixed = mixed * self.get_buffer("stretch")[len(contexts)]
            contexts.append(mixed)
        equal = [project(context) for project, context in zip(self.to_least, contexts, strict=True)]  # (b, min c)
        excitations = (
            self.concatenation(torch.cat(contexts, dim=1)),
            self.summation(torch.stack(equal).sum(dim=0)),
            self.product(_product(equal, present)),
        )
        return [con + added + had for con, added, had in zip(*excitations, strict=True)]

    @torch.no_grad()
    def _remember(self, k: int, squeezed: Tensor, mixed: Tensor) -> None:
        """Move r_k towards this batch's ||G_k S_k|| / ||S_k||: the plain mean at first, then by ``MOMENTUM``."""
        length = squeezed.norm()
        if length > 0:  # 0 if no sample of this batch has the modality
            batches = self.get_buffer("batches")[k].add_(1)
            weight = (1 / batches).clamp(min=MOMENTUM).to(mixed.dtype)
            stretch = self.get_buffer("stretch")
            stretch[k].lerp_((mixed.norm() / length).to(stretch.dtype), weight.to(stretch.dtype))

    def _check(self, features: Sequence[Tensor], present: Tensor | None) -> None:
        sizes = tuple(feature.shape[1] if feature.ndim in (2, 4) else -1 for feature in features)
        batches = {len(feature) for feature in features}
        if sizes != self.channels or len(batches) != 1 or 0 in batches:
            raise TrainingError(
                f"features {', '.join(str(tuple(f.shape)) for f in features)} to fuse",
                f"(b, c, h, w) or (b, c) with the same b and c of {self.channels}",
                "pass one feature per modality in the order of their channels",
            )
        if present is not None and (present.dtype is not torch.bool or present.shape != (*batches, len(features))):
            raise TrainingError(
                f"present {tuple(present.shape)} of {present.dtype}",
                f"({batches.pop()}, {len(features)}) of torch.bool",
                "pass one truth value per sample and modality",
            )


class _Excitation(nn.Module):
    """The two layers of one relation, (b, inputs) -> m gates (b, c_k): Eq. 7 and 10, followed by d of Eq. 13."""

    def __init__(self, inputs: int, hidden: int, channels: Sequence[int], variant: Variant) -> None:
        super().__init__()
        self.official = variant == "official"
        firsts = len(channels) if self.official else 1
        self.first = nn.ModuleList(nn.Linear(inputs, hidden) for _ in range(firsts))
        self.second = nn.ModuleList(nn.Linear(hidden, c) for c in channels)

    def forward(self, joined: Tensor) -> list[Tensor]:
        if self.official:
            pairs = zip(self.first, self.second, strict=True)
            return [torch.sigmoid(second(F.relu(first(joined)))) for first, second in pairs]
        shared = self.first[0](joined)
        return [F.relu(second(shared)) for second in self.second]


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    """Context without autocast; the meta device does not support autocast."""
    available = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type=device_type, enabled=False) if available else nullcontext()


def _squeeze(feature: Tensor) -> Tensor:
    """(b, c, h, w) or (b, c) -> (b, c) of at least float32, Eq. 6."""
    dtype = torch.promote_types(feature.dtype, torch.float32)
    return feature.to(dtype) if feature.ndim == 2 else feature.mean(dim=(2, 3), dtype=dtype)


def _similarities(feature: Tensor) -> Tensor:
    """(b, ...) -> G (b, b), Eq. 4 and 5; the row and column of a sample of zeros are 0.

    G does not depend on the scale of the feature, which is therefore divided by its largest element first, so that the
    products of Eq. 4 neither overflow nor vanish.
    """
    if feature.ndim == 4 and feature.is_contiguous(memory_format=torch.channels_last):
        feature = feature.permute(0, 2, 3, 1)  # the order of the elements does not matter; this one needs no copy
    rows = feature.flatten(1).to(torch.promote_types(feature.dtype, torch.float32))  # (b, c h w)
    least, most = torch.aminmax(rows.detach())
    rows = rows / torch.maximum(-least, most).clamp(min=torch.finfo(rows.dtype).tiny)
    return F.normalize(rows @ rows.T, dim=1)


def _product(equal: Sequence[Tensor], present: Tensor | None) -> Tensor:
    """Compute the product of m contexts (b, c), with 1 in place of a missing one."""
    product = torch.ones_like(equal[0])
    for k, context in enumerate(equal):
        factor = context.clamp(-LARGEST_FACTOR, LARGEST_FACTOR)
        product = product * (factor if present is None else factor.masked_fill(~present[:, k, None], 1.0))
    return product


def _zero_missing(feature: Tensor, missing: Tensor) -> Tensor:
    """Return a feature (b, ...) with missing samples set to 0."""
    return feature.masked_fill(missing.view(-1, *[1] * (feature.ndim - 1)), 0.0)


def _apply_gate(feature: Tensor, gate: Tensor) -> Tensor:
    feature = feature.float() if feature.dtype is torch.float16 else feature
    gate = gate.to(feature.dtype)
    return feature * (gate[:, :, None, None] if feature.ndim == 4 else gate)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(
            f"{name} '{value}'{did_you_mean(value, choices)}", f"one of {', '.join(choices)}", f"change {name}"
        )
