"""Options of a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from kd_edge.engines import CudaBinding, EngineName, Provider
from kd_edge.errors import ConfigError
from kd_edge.runtime.clip_recorder import MAX_MB, RecordOn
from kd_edge.runtime.recognizer import SelfTest
from kd_edge.runtime.sinks import Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """See ``kd_edge.runtime.stream``, which has the same defaults."""

    realtime: bool = False
    sinks: tuple[str | Path | Sink, ...] = ()
    engine: EngineName = "onnxruntime"
    threads: int | None = None
    provider: Provider | None = None
    strict: bool = False
    cuda_binding: CudaBinding = "auto"
    self_test: SelfTest = "raise"
    valid_ms: float | None = None
    max_age_ms: float | None = None
    smooth_ms: float | None = None
    notify: bool = False
    trust: Path | str | None = None
    record: Path | str | None = None
    record_on: RecordOn | None = None
    record_dir: Path | str | None = None
    record_max_mb: float = MAX_MB

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: ``max_age_ms`` or ``record_max_mb`` is not a positive number, or only one of ``record_on`` and
                ``record_dir`` is given.
        """
        if self.max_age_ms is not None and not 0 < self.max_age_ms < math.inf:
            raise ConfigError(f"max_age_ms {self.max_age_ms}", "a positive number of milliseconds", "correct it")
        if not 0 < self.record_max_mb < math.inf:
            raise ConfigError(f"record_max_mb {self.record_max_mb}", "a positive number of 10^6 bytes", "correct it")
        if (self.record_on is None) != (self.record_dir is None):
            one, other = ("record_dir", "record_on") if self.record_on is None else ("record_on", "record_dir")
            raise ConfigError(f"{one} without {other}", "both", f"add {other}")
