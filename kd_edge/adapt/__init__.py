"""Add classes to a finished artifact on the robot: from recorded clips, with NumPy, without torch."""

from __future__ import annotations

from kd_edge.adapt.adaptation import Adapted, adapt

__all__ = ["Adapted", "adapt"]
