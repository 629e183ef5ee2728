"""The whole way: on forty clips of the generated data set, and on squares that differ in nothing but their motion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd_edge import recipes
from kd_edge.data import ImageFormat, Sample, Split
from kd_edge.data.splits import split_by_subject
from kd_edge.errors import DataError, TrainingError
from kd_edge.study.classical import TstddsConfig, run_comparator
from kd_edge.types import Clip

pytestmark = pytest.mark.slow


def small(**changes: Any) -> TstddsConfig:
    values = {
        "data": {"kind": "synthetic", "clips_per_class": 4, "subjects": 4, "height_px": 40, "width_px": 48, "fps": 12},
        "split": "subjects",
        "modality": "nir",
        "frame_px": 32,
        "threads": 1,
        "streams": {"backbone": "tiny", "epochs": 2, "learning_rate": 0.01, "flow_fields": 4},
        "tracks": {"frames": 6},
        "coding": {"codewords": 24, "dimensions": 12, "sampled_clips": 20, "sampled_descriptors": 1000},
    }
    return TstddsConfig.model_validate(values | changes)


Finished = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Finished:
    """One run, shared by the tests that only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_EDGE_CACHE", str(cache_folder))
        folder = tmp_path_factory.mktemp("runs") / "tstdds"
        seen: list[tuple[str, int, int]] = []
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        summary = run_comparator(small(), folder, progress=lambda *event: seen.append(event))
        assert torch.equal(torch.random.get_rng_state(), before)  # the caller's generator is left alone
    # every phase reaches its end
    last = {what: (done, total) for what, done, total in seen}
    assert set(last) == {
        "decoding",
        "training the spatial stream",
        "training the local stream",
        "training the global stream",
        "sampling descriptors",
        "making codebooks",
        "coding the train clips",
        "coding the test clips",
    }
    assert all(done == total for done, total in last.values())
    return folder, summary.model_dump(mode="json")


def test_the_run_directory_is_that_of_a_finished_run(finished: Finished) -> None:
    folder, summary = finished
    assert sorted(file.name for file in folder.iterdir()) == ["recipe.toml", "summary.json"]
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8")) == summary
    assert recipes.load("train", str(folder / "recipe.toml"), TstddsConfig) == small()
    assert summary["complete"] is True
    assert summary["recipe_fingerprint"] == small().fingerprint()
    assert summary["protocol"] == {
        "dataset": "synthetic",
        "split": "subjects",
        "validation_subjects": [],
        "train_samples": 30,
        "validation_samples": 0,
        "test_samples": 10,
        "skipped": {},
    }


def test_the_student_is_described_like_a_trained_one(finished: Finished) -> None:
    student = finished[1]["stages"]["student"]
    assert (student["modality"], student["backbone"], student["temporal"]) == ("nir", "tstdds", "svm")
    assert (student["epochs"], student["selected_epoch"]) == (2, 2)
    assert student["selected_by"] == "last epoch; C = 1, fixed"
    assert student["validation"] is None
    assert set(student["streams"]) == {"spatial", "local", "global"}
    assert student["without_tracks"] == {"train": 0, "validation": 0, "test": 0}
    test = student["test"]
    assert sum(map(sum, test["confusion"])) == 10
    assert test["accuracy"] == sum(test["confusion"][c][c] for c in range(10)) / 10
    assert set(test) == {"accuracy", "top5", "macro_f1", "map", "ece", "per_class", "confusion", "sakdn_f", "right"}


def test_the_parameters_are_counted(finished: Finished) -> None:
    # Twelve kinds: layers 2 and 3 of tiny (12 and 16 channels) of three streams under two normalisations; 12 axes each.
    books = 6 * ((12 + 12 * 12 + 24 * 12) + (16 + 12 * 16 + 24 * 12))
    svm = 10 * (12 * 24) + 10
    convolutions = 9 * (8 * 12 + 12 * 16 + 16 * 24) + 2 * (8 + 12 + 16 + 24)
    networks = sum(9 * channels * 8 + convolutions + 24 * 10 + 10 for channels in (1, 2 * 4, 2))
    assert finished[1]["stages"]["student"]["parameters"] == books + svm + networks


def test_a_study_can_tabulate_it(finished: Finished) -> None:
    from kd_edge.study.table import rows

    (row,) = rows([finished[0]])
    assert (row.network, row.modality, row.split, row.test_samples) == ("tstdds + svm", "nir", "subjects", 10)


def test_colour_frames_and_sum_pooling(tmp_path: Path) -> None:
    config = small(modality="rgb")
    coding = config.coding.model_copy(update={"pooling": "sum"})
    streams = config.streams.model_copy(update={"epochs": 1})
    summary = run_comparator(config.model_copy(update={"coding": coding, "streams": streams}), tmp_path / "run")
    assert summary.stages["student"].modality == "rgb"


def test_an_unknown_modality_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no modality 'nirr' \(did you mean 'nir'\?\)"):
        run_comparator(small(modality="nirr"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'subject' \(did you mean 'subjects'\?\)"):
        run_comparator(small(split="subject"), tmp_path / "run")


def test_a_test_subject_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="validation subject '4' is not on the training side"):
        run_comparator(small(validation_subjects=["4"]), tmp_path / "run")


class Squares:
    """A textured square moves to the right, downwards or upwards; three subjects have three textures.

    Args:
        still: Trials whose square does not move.
        short: Trials of a single frame.
    """

    name = "squares"
    labels = ("right", "down", "up")
    modalities = ("nir",)
    flip_labels = None

    def __init__(self, still: tuple[str, ...] = (), short: tuple[str, ...] = ()) -> None:
        self._still, self._short = still, short
        self.samples = tuple(
            Sample(f"{name}_s{subject}_t{trial}", f"{subject}", "front", f"{trial}", label)
            for label, name in enumerate(self.labels)
            for subject in (1, 2, 3)
            for trial in (1, 2, 3)
        )

    def open(self, sample: Sample, modality: str) -> Clip:
        rng = np.random.default_rng([int(sample.subject), int(sample.trial), sample.label])
        texture = rng.integers(120, 256, (12, 12))
        frames = np.full((1 if sample.trial in self._short else 14, 32, 32), 40, dtype=np.uint8)
        place, step = rng.integers(8, 12, 2), [(0, 1), (1, 0), (-1, 0)][sample.label]
        for t, frame in enumerate(frames):
            moved = 0 if sample.trial in self._still else t * 2 // 3
            row, column = place + moved * np.array(step)
            frame[row : row + 12, column : column + 12] = texture
        return Clip(frames, np.arange(len(frames)) * 33_000_000)

    def content_key(self, sample: Sample, modality: str) -> str:
        return f"{sample.id} {self._still} {self._short}"

    def image_format(self, modality: str) -> ImageFormat:
        return ImageFormat("nir", "uint8", 1, "gray level", (0, 255), 30)

    def gaps(self) -> dict[str, str]:
        return {}

    def splits(self) -> tuple[str, ...]:
        return ("subjects",)

    def split(self, name: str) -> Split:
        return split_by_subject(name, self.samples, ["3"])


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run_squares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs on a data set of squares."""

    def run(folder: str = "run", squares: Squares | None = None, epochs: int = 1, **changes: Any) -> dict[str, Any]:
        monkeypatch.setattr("kd_edge.study.classical.tstdds.run.open_dataset", lambda data, root: squares or Squares())
        streams = {"backbone": "tiny", "epochs": epochs, "learning_rate": 0.01, "flow_fields": 4}
        config = small(streams=streams, **changes)
        return run_comparator(config, tmp_path / folder).model_dump(mode="json")

    return run


def test_motions_are_told_apart_whatever_moves(run_squares: Run) -> None:
    student = run_squares(epochs=4)["stages"]["student"]
    assert student["test"]["accuracy"] == 1  # nine clips of an unseen texture; chance is a third
    assert student["test"]["map"] == 1
    assert student["test"]["top5"] == 1


def test_c_is_chosen_on_validation_subjects_alone(run_squares: Run) -> None:
    summary = run_squares(epochs=4, validation_subjects=["2"], c_choices=[10.0, 0.5])
    assert [summary["protocol"][f"{side}_samples"] for side in ("train", "validation", "test")] == [9, 9, 9]
    student = summary["stages"]["student"]
    assert student["selected_by"] == "last epoch; C = 0.5, by validation accuracy"  # both are right: the smaller
    assert student["validation"] == {"accuracy": 1.0}


def test_clips_without_a_moving_track_are_counted_and_single_frames_are_skipped(run_squares: Run) -> None:
    summary = run_squares(squares=Squares(still=("2",), short=("3",)))
    assert summary["stages"]["student"]["without_tracks"] == {"train": 6, "validation": 0, "test": 3}
    skipped = summary["protocol"]["skipped"]
    assert sorted(skipped) == sorted(f"{name}_s{s}_t3" for name in Squares.labels for s in (1, 2, 3))
    assert set(skipped.values()) == {"it has a single frame"}
    assert summary["protocol"]["train_samples"] == 12


def test_clips_without_any_motion_are_refused(run_squares: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="18 training clips have no moving tracks of 6 frames"):
        run_squares(squares=Squares(still=("1", "2", "3")))
    assert not (tmp_path / "run" / "summary.json").exists()


def test_an_interrupted_run_starts_again_and_repeats_with_its_seed(
    run_squares: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def killed(*arguments: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("kd_edge.study.classical.tstdds.run._train_streams", killed)
        with pytest.raises(KilledError):
            run_squares("interrupted", seed=7)
    assert [file.name for file in (tmp_path / "interrupted").iterdir()] == ["recipe.toml"]

    def figures(folder: str, seed: int) -> dict[str, Any]:
        torch.rand(1)  # what the caller draws in between must not matter
        student: dict[str, Any] = run_squares(folder, seed=seed)["stages"]["student"]
        del student["seconds"]
        return student

    again = figures("interrupted", 3)
    assert recipes.load("train", str(tmp_path / "interrupted" / "recipe.toml"), TstddsConfig).seed == 3
    assert figures("fresh", 3) == again
    assert figures("other", 4)["streams"] != again["streams"]


def test_finished_runs_and_those_of_another_kind_are_kept(finished: Finished, tmp_path: Path) -> None:
    before = (finished[0] / "summary.json").read_bytes()
    with pytest.raises(TrainingError, match="already contains a run"):
        run_comparator(small(), finished[0])
    assert (finished[0] / "summary.json").read_bytes() == before

    (tmp_path / "recipe.toml").write_text('name = "student"\nsplit = "subjects"\n', encoding="utf-8")
    with pytest.raises(TrainingError, match="already contains a run"):
        run_comparator(small(), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["recipe.toml"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be written"):
        run_comparator(small(), tmp_path / "file" / "run")
