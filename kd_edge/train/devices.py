"""Lightning Fabric: accelerator, devices, nodes and precision of a run, and communication of its processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import nn

from kd_edge.errors import KdEdgeError
from kd_edge.train.recipe import Recipe

Made = TypeVar("Made")


def make_fabric(recipe: Recipe, accelerator: str = "auto", devices: int | str = 1, nodes: int = 1) -> Fabric:
    """Make Fabric for a recipe, without its messages on standard error: only the command line prints."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=recipe.precision)


def first_alone(fabric: Fabric, make: Callable[[], Made]) -> Made | None:
    """Call a function in every process, in the first one before the others, which then find its files.

    Returns:
        The result; None in a process that should end because the first one failed and reports why.

    Raises:
        KdEdgeError: The call failed in this process, which is the first one or the only one that failed.
    """
    failure: KdEdgeError | None = None
    with fabric.rank_zero_first():
        try:
            made = make()
        except KdEdgeError as error:
            failure = error
    if fabric.broadcast(failure is not None) and not fabric.is_global_zero:
        return None
    if failure is not None:
        raise failure
    return made


def share_statistics(fabric: Fabric, module: nn.Module) -> None:
    """Copy the running statistics of the first process to all, as each has seen only its own clips."""
    if fabric.world_size == 1:
        return
    first = fabric.broadcast({name: buffer.cpu() for name, buffer in module.named_buffers()})
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(first[name])


def averaged(fabric: Fabric, *values: float) -> list[float]:
    """Return the mean of each value over all processes."""
    if fabric.world_size == 1:
        return list(values)
    means = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    fabric.all_reduce(means, reduce_op="mean")  # in place
    return list(means.tolist())
