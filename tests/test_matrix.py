from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge.bench import Latency, Process
from kd_edge.bench.matrix import COLUMNS, Matrix, MatrixRow, cells, markdown, measured, write_matrix
from kd_edge.errors import ExportError
from tests.runs import write_run

ROW = MatrixRow(
    profile="int8",
    engine="onnxruntime 1.32.0",
    file_bytes=11_600_000,
    accuracy=0.75,
    flips=2,
    max_abs_error=0.0312,
    step=Latency(p50=9.9, p90=10.0, p95=10.1, p99=11.0, minimum=9.8),
    process=Process(ready_seconds=0.25, peak_rss_mb=83.4, imports_torch=False),
)
MATRIX = Matrix(
    model="runs/mine",
    side="validation clips (subjects 7)",
    clips=51,
    accuracy=0.76,
    cpu="A|B",
    threads=1,
    rows=(ROW, MatrixRow(profile="int8", engine="ncnn", missing="carries no ncnn model | none")),
)


def test_rows_and_what_is_missing(tmp_path: Path) -> None:
    assert cells(MATRIX)[0] == (
        "int8", "onnxruntime 1.32.0", "11.6", "75.0%", "2", "3.1e-02", "9.90", "10.10", "11.00", "0.25", "83"
    )  # fmt: skip
    assert cells(MATRIX)[1][:3] == ("int8", "ncnn", "carries no ncnn model | none")
    text = markdown(MATRIX)
    assert text.startswith("runs/mine: 51 validation clips (subjects 7), of which the trained model has 76.0%")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.replace("\\|", "").count("|") for line in rows] == [len(COLUMNS) + 1] * 4  # no cell breaks its row
    write_matrix(MATRIX, tmp_path)
    assert (tmp_path / "matrix.md").read_text() == text
    assert Matrix.model_validate_json((tmp_path / "matrix.json").read_text()) == MATRIX
    with pytest.raises(ExportError):
        write_matrix(MATRIX, tmp_path / "matrix.md")


@pytest.mark.slow
def test_every_precision_on_every_engine(tmp_path: Path) -> None:
    run = write_run(tmp_path / "thin")
    found = measured(run, profiles=("fp32", "int8"), frames=5, repeats=1)
    assert [row.profile for row in found.rows] == ["fp32"] * 3 + ["int8"] * 3
    ran = [row for row in found.rows if not row.missing]
    assert all(row.step is not None and 0 < row.step.p50 <= row.step.p95 <= row.step.p99 for row in ran)
    assert {row.engine.split()[0] for row in ran} >= {"onnxruntime"}
    exact = next(row for row in ran if row.profile == "fp32" and row.engine.startswith("onnxruntime"))
    assert exact.accuracy == found.accuracy
    assert exact.flips == 0
    absent = [row for row in found.rows if row.missing]
    assert any("ncnn" in row.missing for row in absent if row.profile == "int8")


@pytest.mark.slow
def test_a_clip_graph_has_no_recogniser_to_start(tmp_path: Path) -> None:
    profile = tmp_path / "clip.toml"
    profile.write_text('name = "clip"\ngraph = "clip"\n')
    found = measured(write_run(tmp_path / "thin"), profiles=(str(profile),), frames=5, repeats=1)
    ran = [row for row in found.rows if not row.missing]
    assert ran[0].engine.startswith("onnxruntime")
    assert all(row.step is not None and row.process is None for row in ran)
    assert cells(found)[0][-2:] == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"clip.toml", "thin"}  # nothing beside the profile
