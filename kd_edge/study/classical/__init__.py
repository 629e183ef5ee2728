"""Methods that are compared with and are no distillation: each re-implemented from what its paper says."""

from kd_edge.study.classical.fusion.config import CnnLstmConfig, CrcConfig
from kd_edge.study.classical.methods import (
    AnyComparator,
    ComparatorConfig,
    check_comparator,
    comparator_fingerprints,
    comparator_model,
    run_comparator,
)
from kd_edge.study.classical.tstdds.config import TstddsConfig

__all__ = [
    "AnyComparator",
    "CnnLstmConfig",
    "ComparatorConfig",
    "CrcConfig",
    "TstddsConfig",
    "check_comparator",
    "comparator_fingerprints",
    "comparator_model",
    "run_comparator",
]
