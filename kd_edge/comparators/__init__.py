"""Methods that are compared with and are no distillation: each re-implemented from what its paper says."""

from kd_edge.comparators.config import TstddsConfig
from kd_edge.comparators.tstdds import check as check_tstdds
from kd_edge.comparators.tstdds import run as run_tstdds

__all__ = ["TstddsConfig", "check_tstdds", "run_tstdds"]
