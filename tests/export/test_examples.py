from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kd_edge.export import make_reference_artifact

EXAMPLES = Path(__file__).parents[2] / "export" / "examples"


def inferred(artifact: Path, folder: Path) -> list[str]:
    """What the example prints of an artifact; it must need neither kd_edge nor torch."""
    script = (
        f"import sys, runpy; sys.argv = ['x', {str(artifact)!r}]\n"
        f"runpy.run_path({str(EXAMPLES / 'infer_onnx.py')!r}, run_name='__main__')\n"
        "assert not {'kd_edge', 'torch', 'cv2', 'onnx'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.splitlines()


@pytest.mark.slow
def test_infer_onnx_runs_a_step(tmp_path: Path) -> None:
    make_reference_artifact("tiny", 32, tmp_path / "tiny.onnx", temporal="tsn")
    first, second = inferred(tmp_path / "tiny.onnx", tmp_path)
    assert first == "tiny@32 (random weights): 10 labels, one segment every 0.250 s, input 3x32x32"
    assert second.startswith("class ")


@pytest.mark.slow
def test_infer_onnx_carries_states(causal_reference: Path, tmp_path: Path) -> None:
    first, second = inferred(causal_reference, tmp_path)
    assert first == "resnet10_thin@32 (random weights): 10 labels, one segment every 0.250 s, input 3x32x32"
    assert second.startswith("class ")
