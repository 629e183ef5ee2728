"""The builder on the real TensorRT-RTX, which needs no GPU to build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from kd_edge import artifact
from kd_edge.adapt.gate import Gate
from kd_edge.engines.tensorrt.builder import BuildSettings, build
from kd_edge.engines.tensorrt.library import load_library, unsuited
from kd_edge.errors import ArtifactError, ConfigError
from tests.adapt.test_graph import added

from ..conftest import step_model

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
BUNDLED = artifact.load(artifact.BUNDLED)


@pytest.mark.parametrize("capability", [(8, 6), (12, 0)])
def test_the_bundled_student_builds_in_half_precision(capability: tuple[int, int]) -> None:
    built = build(BUNDLED, load_library("tensorrt-rtx"), BuildSettings(), capability=capability)
    shares = built.figures.shares
    assert (shares.told_by, shares.half, shares.float32, shares.int8) == ("network", 14 + 1, 0, 0)  # and the classifier
    assert shares.share("half") == 1.0
    assert str(shares) == f"100% half of {shares.layers} layers (from the network)"
    assert len(built.content) == built.figures.plan_bytes > 1_000_000
    assert built.timing_cache == b""


@pytest.mark.parametrize(
    ("capability", "message"), [((8, 7), r"8\.7\. Expected one of SM120.* Fix: use the engine tensorrt on this GPU")]
)
def test_a_gpu_it_cannot_build_for_is_told(capability: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(BUNDLED, load_library("tensorrt-rtx"), BuildSettings(), capability=capability)


def test_a_student_with_a_class_that_was_added_builds(tmp_path: Path) -> None:
    gate = Gate(np.ones(BUNDLED.manifest.feature_size, dtype=np.float32), 0.0)
    adapted = added(BUNDLED, tmp_path / "adapted.onnx", "wave", gate)
    built = build(adapted, load_library("tensorrt-rtx"), BuildSettings(), capability=(8, 6))
    shares = built.figures.shares
    assert (shares.half, shares.float32, shares.int8) == (14 + 1, 1, 0)  # the new row alone is in float32
    assert len(built.content) > 1_000_000


def test_settings_are_taken() -> None:
    settings = BuildSettings(max_batch=2, workspace_mb=64, optimisation_level=1)
    assert build(BUNDLED, load_library("tensorrt-rtx"), settings, capability=(8, 6)).content


def test_a_graph_it_cannot_read_is_refused_in_its_own_words(unchecked) -> None:
    model = step_model()
    model.graph.node[2].CopyFrom(helper.make_node("NoSuchOperator", ["mean4"], ["mean"]))
    odd = unchecked(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"is refused by tensorrt-rtx [\d.]+: .*NoSuchOperator"):
        build(odd, load_library("tensorrt-rtx"), BuildSettings(), capability=(8, 6))


def test_eight_bits_of_a_cpu_are_not_for_it(save, step) -> None:
    assert unsuited(step) is None
    assert "int8-tensorrt" in str(unsuited(save(step_model(), precision="int8")))
    assert unsuited(save(step_model(), precision="int8-tensorrt")) is None
