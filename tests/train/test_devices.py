"""Two processes on the CPU: one reports, and what it reports is what is saved."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_edge.errors import DataError
from kd_edge.rundir import TEACHER, read_metrics
from kd_edge.train.devices import averaged, first_alone, make_fabric, share_statistics
from kd_edge.train.given import load_trained
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.networks import build_teacher
from kd_edge.train.recipe import Recipe
from kd_edge.train.results import scores
from kd_edge.train.results.run import Run

SPIED = """
import sys
from hashlib import sha256
from pathlib import Path
from kd_edge.train import fit

share = fit.share_statistics

def spy(fabric, module):
    def digest():
        return sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values())).hexdigest()
    before = digest()
    share(fabric, module)
    with Path("seen", f"{fabric.global_rank}.txt").open("a") as file:
        file.write(f"{before} {digest()}\\n")

fit.share_statistics = spy
if __name__ == "__main__":
    from kd_edge.cli import main
    main()
"""

SETTINGS = [
    "data.clips_per_class=4",
    "data.subjects=4",
    "data.height_px=40",
    "data.width_px=48",
    "threads=1",
    "workers=0",
    *(
        f"{stage}.{key}"
        for stage in ("teacher", "student")
        for key in ("epochs=1", "batch_size=4", "preprocess.resize_px=36", "preprocess.input_px=32")
    ),
]


def two_processes(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "seen").mkdir()
    (folder / "kd_edge_spied.py").write_text(SPIED, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "kd_edge_spied.py", "train", *arguments, "--devices", "2"]
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_process_reports_and_what_it_reports_is_what_is_saved(tmp_path: Path) -> None:
    done = two_processes(tmp_path, "quickstart", "--out", "run", *(p for s in SETTINGS for p in ("--set", s)))
    assert done.returncode == 0, done.stderr
    assert [len(re.findall(line, done.stdout, re.M)) for line in ("^teacher", "^student", "^run run$")] == [1, 1, 1]
    told = [line.split(":")[0] for line in done.stderr.splitlines()]
    assert told == ["run", "teacher epoch 1", "student epoch 1"]

    seen = [[line.split() for line in (tmp_path / "seen" / f"{rank}.txt").read_text().splitlines()] for rank in (0, 1)]
    assert [len(lines) for lines in seen] == [2, 2]
    for first, second in zip(*seen, strict=True):
        assert first[0] == first[1], "the first process keeps its own"
        assert second[0] != first[0], "each process gathered statistics of its own clips"
        assert second[1] == first[1], "and goes on with the first one's"

    run = Run.load(tmp_path / "run")
    material = gather_material(run.recipe)
    config = run.recipe.teacher
    assert config is not None
    teacher = build_teacher(material, config)
    load_trained(teacher, tmp_path / "run" / TEACHER)
    logits, truth = scores.predict(teacher, material.evaluation_loader("teacher", material.test), torch.device("cpu"))
    figures = run.summary.stages["teacher"].test
    assert figures is not None
    assert figures.accuracy == pytest.approx((logits.argmax(1) == truth).mean())
    confusion = np.zeros((10, 10), dtype=int)
    np.add.at(confusion, (truth, logits.argmax(1)), 1)
    assert np.array(figures.confusion).tolist() == confusion.tolist()
    assert [line.stage for line in read_metrics(tmp_path / "run")] == ["teacher", "student"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_process_tells_why_nothing_can_be_read(tmp_path: Path) -> None:
    done = two_processes(tmp_path, "utd_mhad_depth_alone", "--data", str(tmp_path / "nowhere"), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(" ")[:3] for line in done.stderr.splitlines()] == [["error:", "no", "folder"]]


def test_alone_there_is_nothing_to_share(tiny: Recipe) -> None:
    fabric = make_fabric(tiny, "cpu")
    norm = torch.nn.BatchNorm1d(2)
    share_statistics(fabric, norm)
    assert norm.running_var is not None
    assert norm.running_var.tolist() == [1, 1]
    assert averaged(fabric, 0.1, 3) == [0.1, 3]
    assert first_alone(fabric, lambda: "made") == "made"

    def fail() -> str:
        raise DataError("nothing", "something", "look")

    with pytest.raises(DataError, match="nothing"):
        first_alone(fabric, fail)
