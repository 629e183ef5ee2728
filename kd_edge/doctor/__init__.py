"""What is installed, what clashes, which engines, cameras and robot's parts are usable, and what to do about it."""

from kd_edge.doctor.examination import examine, import_each
from kd_edge.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine", "import_each"]
