"""List the layers of a model by module path, with their output shapes, as candidates for feature taps."""

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
        path: Module path, as for ``get_submodule``.
        kind: Name of its class.
        shape: Output shape of its first call, including batch (and segments); None if it was not called or does not
            output a single tensor.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None


def list_layers(model: nn.Module, clip_shape: tuple[int, ...]) -> list[Layer]:
    """List every submodule of a model, in the order of ``named_modules``, with its output shape for an input of zeros.

    The model's mode, statistics and hooks are left unchanged.

    Args:
        model: A clip model, or any module with one input tensor.
        clip_shape: Shape of the input; (B, T, C, S, S) for a clip model.

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
    """Check that a model has a submodule with this path.

    Raises:
        TrainingError: There is no such submodule; the error suggests the closest path.
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
    """Mark a module and its submodules as newly initialised, so that they can have a higher learning rate."""
    for submodule in module.modules():
        submodule.__dict__[_NEW] = True


def is_new(module: nn.Module) -> bool:
    """Whether a module was marked by ``mark_new``."""
    return _NEW in module.__dict__


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and restore the mode of every submodule afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
