"""Export a trained student to one self-describing ONNX file that reproduces it; profiles can be read without torch."""

from typing import TYPE_CHECKING

from kd_edge.export.profile import ExportProfile
from kd_edge.lazy import lazily

if TYPE_CHECKING:
    from kd_edge.export.exporter import Exported, export
    from kd_edge.export.reference import make_reference_artifact
    from kd_edge.export.report import ExportReport

__all__ = ["ExportProfile", "ExportReport", "Exported", "export", "make_reference_artifact"]

__getattr__ = lazily(
    __name__,
    {
        "ExportReport": "report",
        "Exported": "exporter",
        "export": "exporter",
        "make_reference_artifact": "reference",
    },
)
