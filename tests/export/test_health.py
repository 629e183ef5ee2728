from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from kd_edge import artifact, recipes
from kd_edge.artifact import Artifact, Manifest
from kd_edge.data import Sample, open_dataset
from kd_edge.errors import ArtifactError, DataError
from kd_edge.export import Exported, ExportProfile, export, health
from kd_edge.export.health import (
    _Measured,
    fit_artifact,
    fit_bounds,
    fit_reference,
    fit_segment_error,
    refit,
    saturation_of,
)
from kd_edge.health import Picture
from kd_edge.preprocess import Preprocess
from kd_edge.window import FixedWindow, PercentileWindow
from tests.runs import DATA
from tests.runtime.conftest import tiny_manifest

FP32 = recipes.load("export", "fp32", ExportProfile, ["parity_clips=2"])
NO_STAMPS = np.empty(0, dtype=np.int64)
TRAIN = 30  # clips of three of the four subjects


class Watched:
    """The run's data set; remembers what was opened, and some recordings of it are damaged."""

    def __init__(self, damaged: set[str] = frozenset()) -> None:
        self._inside, self._damaged = open_dataset(DATA), damaged
        self.opened: list[str] = []
        self.split = self._inside.split

    def open(self, sample, modality):
        self.opened.append(sample.id)
        if sample.id in self._damaged or "all" in self._damaged:
            raise DataError(f"{sample.id} is damaged", "a recording", "record it again")
        return self._inside.open(sample, modality)


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(run, FP32, tmp_path_factory.mktemp("out") / "student.onnx")


@pytest.fixture
def exported(made: Exported) -> Artifact:
    return made.artifact


def test_export_fits_bounds_and_a_reference(exported):
    health, familiar = exported.manifest.health, exported.manifest.familiar
    assert health is not None
    assert (health.clips, health.side, health.moves) == (TRAIN, "training side of subjects", True)
    assert health.frames > 5 * TRAIN
    assert 0 < health.mean < 60
    assert 0 < health.contrast < health.mean
    assert health.saturation == pytest.approx(0.98 * 255, rel=1e-3)
    assert familiar is not None
    assert (familiar.classes, familiar.size, familiar.rank, familiar.clips) == (10, 24, 6, TRAIN)
    assert familiar.fitted_on == "training clips, 3 groups of subjects left out in turn"
    assert familiar.windows >= TRAIN


def shown(what):
    console = Console(width=400, file=io.StringIO())
    console.print(what)
    return console.file.getvalue()


def test_the_report_tells_what_was_fitted(made):
    from kd_edge.cli.export import export_summary

    told = shown(export_summary(made))
    assert "uncalibrated: no recordings were held out" in told
    assert f"healthy pictures, by {TRAIN} clips" in told
    assert "subjects left out in turn" in told


@pytest.mark.slow
def test_only_training_clips_are_looked_at_and_the_fit_repeats(exported):
    dataset = Watched()
    fitted = fit_artifact(exported, dataset)
    test = {sample.id for sample in dataset.split("subjects").test}
    assert len(dataset.opened) == TRAIN
    assert not test & set(dataset.opened)
    manifest = exported.manifest
    assert fitted == (manifest.health, manifest.familiar, manifest.segment_error_ms)
    assert manifest.segment_error_ms == 16.67, "half a frame of 30 a second"


@pytest.mark.slow
def test_validation_clips_decide_the_threshold_and_nothing_else(exported):
    dataset = Watched()
    train = dataset.split("subjects").train
    held_out = [sample for sample in train if sample.subject == train[0].subject]
    fitted = fit_artifact(exported, dataset, validation=held_out, clips=12)
    assert fitted.familiar.fitted_on == "validation clips of 1 person: a wide bound"
    assert (fitted.familiar.clips, fitted.health.clips) == (12, 12)
    assert set(dataset.opened[:12]).isdisjoint(sample.id for sample in held_out)
    assert set(dataset.opened[12:]) <= {sample.id for sample in held_out}


def test_the_fewer_people_were_left_out_the_wider_is_the_bound(monkeypatch: pytest.MonkeyPatch):
    """Windows as far away whoever they are of; of one, two and more people: 2, 1.5 and 1 times the margin."""
    rng = np.random.default_rng(0)
    known = [
        _Measured(Sample(str(k), "a", "", "1", k % 2), NO_STAMPS, [], rng.random((6, 8), np.float32)) for k in range(12)
    ]
    monkeypatch.setattr(health, "_distances", lambda reference, proof: np.full(len(proof), 3.0))
    found = {}
    for people in (1, 2, 3, 8):
        proof = [
            _Measured(Sample(str(k), str(k % people), "", "1", 0), NO_STAMPS, [], known[0].features) for k in range(8)
        ]
        found[people] = fit_reference(known, proof)
    assert [found[n].threshold for n in (1, 2, 3, 8)] == pytest.approx([6.6, 4.95, 3.3, 3.3], rel=1e-3)
    assert found[2].fitted_on == "validation clips of 2 people: a wide bound"
    assert found[3].fitted_on == "validation clips"


@pytest.mark.parametrize(
    ("stamps_ms", "error_ms"),
    [
        (range(0, 2000, 10), 0.0),  # a frame at every moment
        (range(0, 2000, 30), 10.0),  # 100, 200 and 300 ms back: frames 90, 210 and 300 ms back
        (range(0, 250, 10), 0.0),  # shorter than a window: nothing is known
        ([*range(0, 1100, 100), 1140, *range(1200, 2000, 100)], 40.0),  # the one that came late is every segment once
        ([*range(0, 600, 10), *range(900, 1500, 10)], 0.0),  # over a gap there is no window
    ],
)
def test_how_far_frames_lie_from_their_moments(stamps_ms: list[int], error_ms: float) -> None:
    manifest = tiny_manifest(segments=4, clip_seconds=0.4)  # moments 100 ms apart
    stamps = np.array(stamps_ms, dtype=np.int64) * 1_000_000
    assert fit_segment_error([stamps, stamps], manifest) == pytest.approx(error_ms)


def test_a_recording_that_lost_frames_decides_nothing() -> None:
    """Four of five are even; of none nothing is known."""
    manifest = tiny_manifest(segments=4, clip_seconds=0.4)
    even = np.arange(0, 2_000_000_000, 10_000_000, dtype=np.int64)
    torn = np.delete(even, range(100, 107))
    assert fit_segment_error([torn], manifest) == pytest.approx(40.0)
    assert fit_segment_error([even] * 4 + [torn], manifest) == 0.0
    assert fit_segment_error([], manifest) == fit_segment_error([NO_STAMPS, even[:1]], manifest) == 0.0


@pytest.mark.slow
def test_damaged_recordings_are_passed_over_unless_all_are(exported):
    first = Watched().split("subjects").train[0].id
    assert fit_artifact(exported, Watched({first})).health.clips == TRAIN - 1
    with pytest.raises(DataError, match="is damaged"):
        fit_artifact(exported, Watched({"all"}), clips=3)


@pytest.mark.slow
def test_refit_keeps_the_graph_and_the_golden_clip(exported, tmp_path):
    nothing = exported.manifest.model_copy(update={"health": None, "familiar": None})
    artifact.rewrite(exported, nothing, tmp_path / "bare.onnx")
    bare = artifact.load(tmp_path / "bare.onnx")
    assert (bare.manifest.health, bare.manifest.familiar) == (None, None)
    refit(bare, Watched(), tmp_path / "again.onnx")
    again = artifact.load(tmp_path / "again.onnx")
    assert again.manifest.sha256 == bare.manifest.sha256
    assert again.manifest.health == exported.manifest.health
    assert again.golden is not None
    assert bare.golden is not None
    assert np.array_equal(again.golden.logits, bare.golden.logits)
    same = {"health", "familiar", "manifest_sha256"}
    assert again.manifest.model_dump(exclude=same) == bare.manifest.model_dump(exclude=same)
    Path(bare.path).write_bytes(exported.path.read_bytes()[:-1])
    with pytest.raises(ArtifactError):
        artifact.rewrite(bare, again.manifest, tmp_path / "never.onnx")
    assert not (tmp_path / "never.onnx").exists()


def bounds_of(window, **changes: float):
    manifest = SimpleNamespace(preprocess=Preprocess(window=window), value_range=(0, 1000), split="s")
    pictures = [Picture(80, 40, 0.0, 0.8, 0.6, 0.8, 0.1, 2.0)._replace(**changes)] * 4
    return fit_bounds(pictures, manifest, 1)  # type: ignore[arg-type]


def test_margins():
    follows = bounds_of(PercentileWindow())
    assert (follows.mean, follows.contrast, follows.saturated, follows.measured) == (20, 10, 0.1, 0)
    assert (follows.grain, follows.noise, follows.moves) == (0.8, 0.2, True)
    assert follows.sharpness == pytest.approx(0.6)
    assert follows.saturation == 980
    fixed = bounds_of(FixedWindow(low=0, high=500))
    assert (fixed.mean, fixed.contrast, fixed.saturation) == (40, 20, 500)
    depth = bounds_of(PercentileWindow(ignore_value=0))
    assert (depth.mean, depth.measured, depth.ignore_value) == (0, 0.4, 0)


def test_recordings_without_noise_do_not_forbid_any():
    assert bounds_of(PercentileWindow(), noise=0.0).noise == 0.1


def test_pictures_that_may_stand_still_are_never_called_static():
    assert not bounds_of(PercentileWindow(), change=0.0).moves


def test_saturation_is_of_the_sensor_or_of_a_fixed_window(exported):
    manifest: Manifest = exported.manifest
    assert saturation_of(manifest) == pytest.approx(249.9)
    narrow = manifest.model_copy(update={"preprocess": Preprocess(window=FixedWindow(low=10, high=90))})
    assert saturation_of(narrow) == 90
