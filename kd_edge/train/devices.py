"""Lightning Fabric: accelerator, devices, nodes and precision of a run."""

from __future__ import annotations

import logging

from lightning_fabric import Fabric

from kd_edge.train.recipe import Recipe


def make_fabric(recipe: Recipe, accelerator: str = "auto", devices: int | str = 1, nodes: int = 1) -> Fabric:
    """Fabric for a recipe, without its notices on standard error: only the command line prints."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=recipe.precision)
