"""Diagnosis of an installation: conflicting packages, usable engines, cameras and robot parts, and fixes."""

from kd_edge.doctor.examination import examine, import_each
from kd_edge.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine", "import_each"]
