"""A study's rows as points: what they set a key to, what was published and what the finished runs gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kd_edge.errors import ConfigError, DataError
from kd_edge.pictures.sensitivity import Setting
from kd_edge.study.plan import StudyConfig, load_study, plan
from kd_edge.study.sensitivity import settings, title

KEYS = ("soft_target", "at", "student.learning_rate")


def finished(study: StudyConfig, folder: Path, row: str, accuracy: float, seed: int = 0) -> None:
    """Leave the summary of a finished run of a row."""
    (planned,) = plan(study, rows=[row], seeds=[seed])
    stage = {"modality": "nir", "epochs": 1, "test": {"accuracy": accuracy}}
    summary = {
        "complete": True, "recipe_fingerprint": planned.config.fingerprint(), "stages": {"student": stage},
        "protocol": {"test_samples": 4},
    }  # fmt: skip
    (folder / planned.name).mkdir(parents=True)
    (folder / planned.name / "summary.json").write_text(json.dumps(summary))


def test_rows_are_points_of_what_was_measured_and_published(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    rate = plan(study)[0].config.student.learning_rate  # type: ignore[union-attr]
    finished(study, folder, "alone", 0.5)
    finished(study, folder, "st", 0.625)
    panels = settings(study, folder, KEYS)
    assert panels == {
        "subjects: measured": [Setting("alone", (0.0, 0.0, rate), 50.0), Setting("st", (1.0, 0.0, rate), 62.5)]
    }
    weight = plan(study, rows=["at"])[0].config.losses[0].weight  # type: ignore[union-attr]
    assert weight > 0
    assert settings(study, folder, KEYS, published=True) == {
        **panels,
        "subjects: published": [Setting("at", (0.0, weight, rate), 74.58)],
    }


def test_seeds_are_averaged_and_options_leave_out_rows_without_them(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    finished(study, folder, "st", 0.5, seed=0)
    finished(study, folder, "st", 0.75, seed=1)
    finished(study, folder, "alone", 0.25, seed=0)
    keys = ("soft_target", "soft_target.temperature", "segments")
    segments = float(plan(study)[0].config.segments)  # type: ignore[union-attr]
    panels = settings(study, folder, keys, seeds=[0, 1])
    assert panels == {"subjects: measured": [Setting("st", (1.0, 4.0, segments), 62.5)]}


def test_a_key_that_no_row_has_is_answered_with_the_closest(study: StudyConfig, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"sets a number 'soft_targt' \(did you mean 'soft_target'\?\).*soft_target, at"
    ):
        settings(study, tmp_path, ("soft_targt", "at", "seed"))
    with pytest.raises(ConfigError, match=r"sets a number 'student\.model\.backbone'"):
        settings(study, tmp_path, ("soft_target", "at", "student.model.backbone"))


def test_a_study_without_a_point_says_what_to_do(study: StudyConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no row of 'tiny methods' has a finished run.*--published"):
        settings(study, tmp_path / "nowhere", KEYS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "best"),
    [
        ("sakdn_table9_berkeley_mhad", "subjects", ((0.1, 0.1, 1.0), 99.33)),
        ("sakdn_table9_utd_mhad", "trials", ((0.1, 1.0, 1.0), 98.60)),
        ("sakdn_table9_mmact", "cross_scene", ((0.1, 1.0, 1.0), 62.37)),
    ],
)
def test_table_ix_of_the_paper(name: str, split: str, best: tuple[tuple[float, ...], float], tmp_path: Path) -> None:
    panels = settings(load_study(name), tmp_path, published=True)
    assert list(panels) == [f"{split}: published"]
    (points,) = panels.values()
    grid = {(a, b, g) for a in (0.01, 0.1, 1.0) for b in (0.1, 1.0) for g in (0.1, 1.0)}
    assert {point.values for point in points} == grid
    assert len(points) == 12
    winner = max(points, key=lambda point: point.result)
    assert (winner.values, winner.result) == best


def test_axes_name_the_papers_weights() -> None:
    assert [title(key) for key in ("soft_target", "gsdm", "semantic")] == [
        "α, weight of soft_target", "β, weight of gsdm", "γ, weight of semantic",
    ]  # fmt: skip
    assert title("student.learning_rate") == "student.learning_rate"
