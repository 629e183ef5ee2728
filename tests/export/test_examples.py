from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kd_edge.export import make_reference_artifact
from kd_edge.models import Temporal

EXAMPLES = Path(__file__).parents[2] / "export" / "examples"


@pytest.mark.parametrize(("backbone", "temporal"), [("tiny", "tsn"), ("resnet10_thin", "tsm_causal")])
def test_infer_onnx_needs_neither_kd_edge_nor_torch(backbone: str, temporal: Temporal, tmp_path: Path) -> None:
    make_reference_artifact(backbone, 32, tmp_path / "tiny.onnx", temporal=temporal)
    script = (
        f"import sys, runpy; sys.argv = ['x', {str(tmp_path / 'tiny.onnx')!r}]\n"
        f"runpy.run_path({str(EXAMPLES / 'infer_onnx.py')!r}, run_name='__main__')\n"
        "assert not {'kd_edge', 'torch', 'cv2', 'onnx'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    first, second = done.stdout.splitlines()
    assert first == f"{backbone}@32 (random weights): 10 labels, one segment every 0.250 s, input 3x32x32"
    assert second.startswith("class ")
