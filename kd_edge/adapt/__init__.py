"""Add classes to an exported artifact on the robot, from recorded clips, with NumPy and without torch."""

from __future__ import annotations

from kd_edge.adapt.adaptation import Adapted, adapt

__all__ = ["Adapted", "adapt"]
