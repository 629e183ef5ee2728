"""Export: a trained student becomes one self-describing ONNX file that reproduces it."""

from kd_edge.export.export import Exported, export
from kd_edge.export.profile import ExportProfile
from kd_edge.export.reference import make_reference_artifact
from kd_edge.export.report import ExportReport

__all__ = ["ExportProfile", "ExportReport", "Exported", "export", "make_reference_artifact"]
