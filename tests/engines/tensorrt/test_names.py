"""What the source uses of TensorRT's Python API exists in its releases.

By what ``tools/check_tensorrt_names.py`` found in their wheels.
"""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("names", HERE.parents[2] / "tools/check_tensorrt_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_name_is_in_every_release(script: ModuleType) -> None:
    found = json.loads((HERE / "names.json").read_text())
    assert len(found) == len(script.WHEELS) == 3
    used = script.used()
    assert {"build_serialized_network", "execute_async_v3", "create_timing_cache", "INPUT"} <= used
    for wheel, names in found.items():
        new = used - {*names["there"]} - script.GUARDED
        assert not new, f"{wheel} is not known to have {new}: tools/check_tensorrt_names.py --write looks for them"


def test_what_weakly_typed_networks_had_is_not_used(script: ModuleType) -> None:
    """TensorRT 11 has none of it."""
    gone = {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "platform_has_fast_fp16", "int8_calibrator", "EXPLICIT_BATCH"}
    assert not gone & script.used()


def test_the_real_tensorrt_rtx_has_them_too(script: ModuleType) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    kinds = [value for value in vars(trt).values() if isinstance(value, type)]
    there = {name for kind in (trt, *kinds, trt.ILogger.Severity) for name in dir(kind)}
    assert script.used() - there == set()
