"""State shared by the stages of a run."""

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
        material: The prepared recordings.
        state: Last saved state of an interrupted run; None for a new run.
        selections: Selected weights of each finished stage.
        teacher_run: A finished run whose teacher is used.
        dense_run: A finished run whose dense stage is used.
        not_taken: Runs with the same teacher or dense stage that are not used because their clips differ.
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
        """The recipe as resolved for these recordings."""
        return self.material.recipe

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes and reports."""
        return bool(self.fabric.is_global_zero)
