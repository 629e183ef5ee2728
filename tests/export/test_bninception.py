"""A relation student on BN-Inception through export: its ceil-mode and padded poolings are those of the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kd_edge import recipes
from kd_edge.engines import open_engine
from kd_edge.export import ExportProfile, export
from kd_edge.models import ModelConfig
from kd_edge.models.saved import SavedStudent
from kd_edge.preprocess import Preprocess
from tests.runs import write_run

FP32 = recipes.load("export", "fp32", ExportProfile, ["parity_clips=4", "health=false"])


@pytest.mark.slow  # torch's exporter takes its time for 69 convolutions
def test_relations_on_bninception_stream_exactly(tmp_path: Path) -> None:
    px = 48  # sides 24, 12, 6, 3, 2: the first block that halves sees an even map, the second an odd one
    preprocess = Preprocess(resize_px=px, input_px=px, motion_offsets_ms=(0, 70, 140), mean=(0.4,), std=(0.3,))
    config = ModelConfig(backbone="bninception", temporal="trn", bottleneck=16)
    run = write_run(tmp_path / "run", model=config, preprocess=preprocess, segments=4)
    artifact = export(run, FP32, tmp_path / "a.onnx").artifact
    assert artifact.manifest.parity is not None
    assert artifact.manifest.parity.max_abs_error <= artifact.manifest.parity.tolerance
    clips = np.random.default_rng(px).normal(size=(2, 4, 3, px, px)).astype(np.float32)
    with torch.inference_mode():
        expected = SavedStudent.load(run).model(torch.from_numpy(clips)).numpy()
    binding = open_engine(artifact).bind(2)
    for frame in clips.swapaxes(0, 1):
        binding.frame[:] = frame
        binding.run()
        binding.past[:] = np.concatenate([binding.past[:, 1:], binding.feature[:, None]], axis=1)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    np.testing.assert_allclose(binding.logits, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
