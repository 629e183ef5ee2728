"""Every check that this machine's devices support, in one report to share; see ``kd-edge doctor --hardware``."""

from kd_edge.hardware.report import Checked, HardwareReport, examine_hardware

__all__ = ["Checked", "HardwareReport", "examine_hardware"]
