from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runs import tiny_values
from tests.shared import Once, Trained


def alone(**student: Any) -> dict[str, Any]:
    """The tiny student without a teacher."""
    values = tiny_values(teacher=None, losses=[])
    values["student"] |= student
    return values


@pytest.fixture
def finished(trained: Trained) -> Path:
    """The complete run of the tiny student alone."""
    return trained(alone())


@pytest.fixture
def exported(once: Once, finished: Path) -> Path:
    """Its artifact, in float32."""

    def make(folder: Path) -> None:
        from kd_edge.export.exporter import export
        from kd_edge.export.profile import ExportProfile

        folder.mkdir()
        export(finished, ExportProfile(name="tiny", health=False), folder / "student.onnx")

    return once("finetune-artifact", make) / "student.onnx"
