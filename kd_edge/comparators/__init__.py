"""Methods that are compared with and are no distillation: each re-implemented from what its paper says."""

from kd_edge.comparators.config import TstddsConfig
from kd_edge.comparators.fusion_config import CnnLstmConfig, CrcConfig
from kd_edge.comparators.run import (
    AnyComparator,
    ComparatorConfig,
    check_comparator,
    comparator_fingerprints,
    comparator_model,
    run_comparator,
)

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
