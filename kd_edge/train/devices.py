"""Lightning Fabric: accelerator, devices, nodes and precision of a run, and what its processes tell one another."""

from __future__ import annotations

import logging

import torch
from lightning_fabric import Fabric
from torch import nn

from kd_edge.train.recipe import Recipe


def make_fabric(recipe: Recipe, accelerator: str = "auto", devices: int | str = 1, nodes: int = 1) -> Fabric:
    """Fabric for a recipe, without its notices on standard error: only the command line prints."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=recipe.precision)


def share_statistics(fabric: Fabric, module: nn.Module) -> None:
    """Give every process the first one's running statistics: each has gathered them from its own share of the clips."""
    if fabric.world_size == 1:
        return
    first = fabric.broadcast({name: buffer.cpu() for name, buffer in module.named_buffers()})
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(first[name])


def averaged(fabric: Fabric, *values: float) -> list[float]:
    """The mean of each value over all processes."""
    if fabric.world_size == 1:
        return list(values)
    means = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    fabric.all_reduce(means, reduce_op="mean")  # in place
    return list(means.tolist())
