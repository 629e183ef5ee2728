"""How fast and how large a model is on this machine: latency per stage, ratios to a bare backbone pass, memory."""

from kd_edge.bench.measure import bench
from kd_edge.bench.process import fresh_process
from kd_edge.bench.report import BenchReport, Latency, Process, Ratio

__all__ = ["BenchReport", "Latency", "Process", "Ratio", "bench", "fresh_process"]
