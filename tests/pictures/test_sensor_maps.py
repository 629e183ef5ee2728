"""The sensor teachers' semantically discriminative maps of one sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kd_edge.data import SignalFormat
from kd_edge.errors import TrainingError
from kd_edge.pictures.sensor_maps import draw_sensor_maps, sensor_maps
from kd_edge.rundir import TEACHER
from kd_edge.train.distil.methods import GsdmLoss
from kd_edge.train.gaf import gramian_angular_field
from kd_edge.train.recipe import SensorTeacherConfig
from kd_edge.train.teachers.sensors import SensorTeacher
from tests.pictures.conftest import picture, view_of
from tests.pictures.runs import SENSORS, write_student


@pytest.mark.slow
def test_maps_follow_the_equations() -> None:
    """Against the equations written out in float64 for one sample, and without the sensor that it lacks."""
    config = SensorTeacherConfig.model_validate({**SENSORS, "sensors": ["accelerometer", "gyroscope"]})
    torch.manual_seed(0)
    teacher = SensorTeacher(config, [SignalFormat("g", (-8.0, 8.0), 50.0)] * 2, 5).eval()
    signals = torch.randn(1, 2, 3, 32)
    vectors = torch.randn(5, 6)
    options = GsdmLoss(slope="stable", embedding="soft", weighting="channel")
    both = sensor_maps(teacher, signals, vectors, options)
    assert [one.sensor for one in both] == ["accelerometer", "gyroscope"]
    np.testing.assert_allclose(both[1].image, gramian_angular_field(signals[0, 1]).numpy(), atol=1e-5)
    with torch.no_grad():
        images = gramian_angular_field(signals)
        seen, black = teacher.networks(images), teacher.networks(-torch.ones_like(images))
    for k, one in enumerate(both):
        embedded, without = ((out.logits[0, k].double().softmax(0) @ vectors.double()).numpy() for out in (seen, black))
        least = 0.01 * np.sqrt(np.mean(embedded**2))
        assert (np.abs(embedded) > least).all()  # so that the equation itself is meant
        omega = (embedded - without) / embedded
        feature = seen.stages["block5"][k][0].double().numpy()  # (512, 1, 1)
        weights = torch.nn.functional.adaptive_avg_pool1d(torch.from_numpy(omega)[None], len(feature))[0].numpy()
        expected = np.maximum(np.einsum("c,chw->hw", weights, feature), 0)
        np.testing.assert_allclose(one.maps[0], expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(one.probabilities.sum(), 1, rtol=1e-5)
    signals[0, 0] = torch.nan
    (alone,) = sensor_maps(teacher, signals, vectors, options)
    assert alone.sensor == "gyroscope"
    assert np.isfinite(alone.maps).all()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a sensor teacher and class vectors."""
    folder = tmp_path_factory.mktemp("taught")
    np.save(folder / "words.npy", np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32))
    semantics = {"vectors": str(folder / "words.npy")}
    losses = [{"kind": "gsdm", "embedding": "soft", "slope": "norm"}]
    return write_student(folder / "run", teacher=SENSORS, semantics=semantics, losses=losses)


@pytest.mark.slow
def test_the_picture_shows_image_map_and_product(taught: Path, tmp_path: Path) -> None:
    assert draw_sensor_maps(view_of(taught), tmp_path / "a.png") == ""
    assert draw_sensor_maps(view_of(taught, 7), tmp_path / "b.png") == ""
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    assert a.shape == b.shape
    assert (a != b).any()


@pytest.mark.slow
def test_reasons_for_having_none(run: Path, taught: Path, tmp_path: Path) -> None:
    assert draw_sensor_maps(view_of(run), tmp_path / "a.png") == "the run has no sensor teacher"
    weights = taught / TEACHER
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:1000])
        with pytest.raises(TrainingError, match=r"teacher\.safetensors"):
            draw_sensor_maps(view_of(taught), tmp_path / "a.png")
        weights.unlink()
        assert draw_sensor_maps(view_of(taught), tmp_path / "a.png") == f"the run has no {TEACHER}"
    finally:
        weights.write_bytes(kept)
    lean = {**SENSORS, "model": {"network": "conv1d", "width": 6}, "semantic_weight": 0.0}
    signals = write_student(tmp_path / "signals", teacher=lean, losses=[{"kind": "soft_target"}])
    why = draw_sensor_maps(view_of(signals), tmp_path / "a.png")
    assert why == "the teachers' network 'conv1d' sees signals, not images"
    images = write_student(
        tmp_path / "wordless", teacher={**SENSORS, "semantic_weight": 0.0}, losses=[{"kind": "soft_target"}]
    )
    assert draw_sensor_maps(view_of(images), tmp_path / "a.png").startswith("the run's recipe has no [semantics]")
    assert not (tmp_path / "a.png").exists()
