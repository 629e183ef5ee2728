"""What the stages of one run share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from kd_edge.rundir import Selection
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import Recipe


@dataclass
class Session:
    """One run in one process.

    Attributes:
        fabric: Device, precision and processes.
        folder: The run directory.
        material: The recordings as they are used.
        state: What an interrupted run had saved last; None begins.
        selections: What each finished stage kept.
        teacher_run: A finished run with the very same teacher, whose weights are taken.
        dense_run: Likewise with the very same dense stage.
        not_taken: Where none of those that had either trained on the same clips: these runs.
    """

    fabric: Fabric
    folder: Path
    material: Material
    state: dict[str, Any] | None
    selections: dict[str, Selection]
    teacher_run: Path | None = None
    dense_run: Path | None = None
    not_taken: tuple[Path, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """What is run, as it was read for these recordings."""
        return self.material.recipe

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes and reports."""
        return bool(self.fabric.is_global_zero)
