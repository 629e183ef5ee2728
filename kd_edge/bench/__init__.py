"""How fast and how large a model is on this machine, and how its labels come: live, overloaded, and for long."""

from kd_edge.bench.endurance import SoakReport, soak
from kd_edge.bench.live import LiveReport, OverloadReport, overload, watch
from kd_edge.bench.measure import bench
from kd_edge.bench.process import fresh_process
from kd_edge.bench.report import BenchReport, Latency, Process, Ratio

__all__ = [
    "BenchReport",
    "Latency",
    "LiveReport",
    "OverloadReport",
    "Process",
    "Ratio",
    "SoakReport",
    "bench",
    "fresh_process",
    "overload",
    "soak",
    "watch",
]
