"""Batch normalisation that an export folded into its convolutions, put back for training.

Folding leaves w' = w g / s and b' = b - g m / s of a convolution w and its normalisation (g, b) with mean m and
deviation s, and what those were cannot be told from it. A normalisation that undoes itself computes the same: with the
mean m' and the deviation s' of what the convolution w' puts out, the weight s' and the bias b' + m'. Taken over
training clips they are also what a batch of them has, so that training begins where the source ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_edge.models import ClipModel
from kd_edge.models.backbones import first_convolution
from kd_edge.models.layers import evaluating

_PROBE_PX = 64
"""Side of the picture that is shown to find which normalisation follows which convolution."""


def folded_pairs(model: ClipModel) -> dict[str, str]:
    """Path of every convolution whose output goes to a batch normalisation and nowhere before -> path of that one."""
    made: dict[int, tuple[str, Tensor]] = {}
    pairs: dict[str, str] = {}

    def remember(path: str, output: Tensor) -> None:
        made[id(output)] = (path, output)  # held, so that no other tensor gets its identity

    def meet(path: str, seen: Tensor) -> None:
        if id(seen) in made:
            pairs[made[id(seen)][0]] = path

    hooks = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda _m, _i, output, path=path: remember(path, output)))
        elif isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(lambda _m, inputs, path=path: meet(path, inputs[0])))
    channels = first_convolution(model.backbone)[1].in_channels
    try:
        with torch.no_grad(), evaluating(model):
            model(torch.zeros(1, model.segments, channels, _PROBE_PX, _PROBE_PX))
    finally:
        for hook in hooks:
            hook.remove()
    return pairs


def unfolded(model: ClipModel, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a graph, with a normalisation for each one of the model's that was folded: it adds b' alone.

    Args:
        model: Whose modules the weights are for.
        found: What ``graph_weights`` read; names of modules that the model does not have stay as they are, and what
            modules without weights compute with is left out.
    """
    weightless = {name for name, module in model.named_modules() if not any(True for _ in module.parameters())}
    state = {name: weights for name, weights in found.items() if name.rpartition(".")[0] not in weightless}
    for name, module in model.named_modules():
        if f"{name}.weight" in state and f"{name}.bias" not in state and getattr(module, "bias", None) is not None:
            state[f"{name}.bias"] = torch.zeros(len(state[f"{name}.weight"]))  # an export leaves out what adds nothing
    for convolution, norm in folded_pairs(model).items():
        if f"{convolution}.weight" not in found or f"{norm}.weight" in found:
            continue
        size = len(found[f"{convolution}.weight"])
        added = state.pop(f"{convolution}.bias", torch.zeros(size))
        if getattr(model.get_submodule(convolution), "bias", None) is not None:
            state[f"{convolution}.bias"] = torch.zeros(size)
        epsilon = _norm(model, norm).eps
        state |= {
            f"{norm}.weight": torch.full((size,), (1 + epsilon) ** 0.5),
            f"{norm}.bias": added,
            f"{norm}.running_mean": torch.zeros(size),
            f"{norm}.running_var": torch.ones(size),
        }
    return state


def calibrate(model: ClipModel, norms: Iterable[str], batches: Iterable[Tensor]) -> None:
    """Give normalisations that do nothing the statistics of what they see; the model computes what it did.

    Args:
        model: The clip model.
        norms: Paths of normalisations with mean 0 and variance 1.
        batches: Clips (B, T, C, S, S).
    """
    sums: dict[str, Any] = {}

    def add(path: str, seen: Tensor) -> None:
        values = seen.double().transpose(0, 1).flatten(1)  # (N, C, ...) -> (C, values)
        count, total, squares = sums.get(path, (0, 0.0, 0.0))
        sums[path] = (count + values.shape[1], total + values.sum(1), squares + values.square().sum(1))

    hooks = [
        _norm(model, path).register_forward_pre_hook(lambda _m, inputs, path=path: add(path, inputs[0]))
        for path in norms
    ]
    try:
        with torch.no_grad(), evaluating(model):
            for batch in batches:
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        for path, (count, total, squares) in sums.items():
            norm, mean = _norm(model, path), total / count
            variance = (squares / count - mean.square()).clamp(min=0)
            norm.get_buffer("running_mean").copy_(mean)
            norm.get_buffer("running_var").copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(norm.bias + mean)


def _norm(model: nn.Module, path: str) -> _BatchNorm:
    module = model.get_submodule(path)
    assert isinstance(module, _BatchNorm)
    return module
