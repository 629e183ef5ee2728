"""The layers of a model by module path, with the shapes they put out: what a feature tap may name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd_edge.errors import TrainingError, did_you_mean, reason


@dataclass(frozen=True, slots=True)
class Layer:
    """One named submodule.

    Attributes:
        path: Module path, as ``get_submodule`` takes it.
        kind: Name of its class.
        shape: Shape of the output of its first call, batch (and segments) included; None when it was not called or does
            not put out one tensor.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None


def list_layers(model: nn.Module, clip_shape: tuple[int, ...]) -> list[Layer]:
    """Every submodule of a model, in the order of ``named_modules``, with its output shape for one input of zeros.

    The model is left as it was: mode, statistics and hooks.

    Args:
        model: A clip model, or any module of one tensor.
        clip_shape: Shape of its input; (B, T, C, S, S) of a clip model.

    Raises:
        TrainingError: The model cannot be run on an input of this shape.
    """
    names = {module: path for path, module in model.named_modules() if path}
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(module: nn.Module, _inputs: Any, output: object) -> None:
        if isinstance(output, Tensor):
            shapes.setdefault(names[module], tuple(output.shape))

    parameter = next(model.parameters(), None)
    clip = torch.zeros(clip_shape, device=None if parameter is None else parameter.device)
    try:
        with ExitStack() as stack, torch.no_grad(), evaluating(model):
            for module in names:
                stack.callback(module.register_forward_hook(remember).remove)
            model(clip)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"{type(model).__name__} cannot be run on an input of {clip_shape} ({reason(error)})",
            "(batch, segments, channels, size, size) of the model",
            "change the shape",
        ) from error
    return [Layer(path, type(module).__name__, shapes.get(path)) for module, path in names.items()]


def check_layer(model: nn.Module, path: str) -> None:
    """Raise when a model has no submodule of this path.

    Raises:
        TrainingError: With the closest path there is.
    """
    paths = [name for name, _ in model.named_modules() if name]
    if path not in paths:
        raise TrainingError(
            f"{type(model).__name__} has no layer '{path}'{did_you_mean(path, paths)}",
            "the path of a submodule, such as " + (f"'{paths[0]}'" if paths else "none: it has no submodule"),
            "change the path; list_layers names all",
        )


_NEW = "begins_new"


def mark_new(module: nn.Module) -> None:
    """Note of a module, and all inside it, that nothing was taken for it: it may learn faster than the rest."""
    for each in module.modules():
        each.__dict__[_NEW] = True


def is_new(module: nn.Module) -> bool:
    """Whether ``mark_new`` was told of a module."""
    return _NEW in module.__dict__


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in eval mode, every submodule's own mode restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
