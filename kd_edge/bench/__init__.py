"""Benchmarks of a model on this machine: latency, memory, and live labelling, also overloaded and long-running."""

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
