from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge import rundir
from kd_edge.errors import TrainingError
from kd_edge.train.recipe import Recipe
from kd_edge.train.results import run


def make(folder: Path, recipe: Recipe, finished: str | None) -> Path:
    run.begin(folder, recipe)
    if finished is not None:
        rundir.write_summary(folder, rundir.Summary(complete=True, finished=finished))
    return folder


def test_latest_is_the_newest_complete_run_and_ignores_the_rest(tmp_path: Path, tiny: Recipe) -> None:
    make(tmp_path / "b", tiny, "2026-01-02T00:00:00+00:00")
    make(tmp_path / "a", tiny, "2026-01-03T00:00:00+00:00")
    make(tmp_path / "c", tiny, None)
    make(tmp_path / "studies" / "d", tiny, "2026-01-04T00:00:00+00:00")
    (tmp_path / "stray").mkdir()
    latest = run.Run.latest(tmp_path)
    assert latest.path == tmp_path / "a"
    assert latest.recipe == tiny
    assert run.latest_unfinished(tmp_path) == tmp_path / "c"


def test_without_a_run_the_fix_is_to_train(tmp_path: Path, tiny: Recipe) -> None:
    with pytest.raises(TrainingError, match="Fix: kd-edge train"):
        run.Run.latest(tmp_path / "absent")
    with pytest.raises(TrainingError, match="no run"):
        run.Run.load(tmp_path)
    with pytest.raises(TrainingError, match="--resume"):
        run.Run.load(make(tmp_path / "r", tiny, None))
    with pytest.raises(TrainingError, match="no unfinished run"):
        run.latest_unfinished(tmp_path / "absent")


def test_a_damaged_state_says_what_to_do(tmp_path: Path, tiny: Recipe) -> None:
    make(tmp_path / "r", tiny, None)
    assert run.load_state(tmp_path / "r", tiny) is None
    (tmp_path / "r" / rundir.STATE).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(TrainingError, match=r"state.pt is damaged.*remove it"):
        run.load_state(tmp_path / "r", tiny)


def test_a_run_belongs_to_one_process_and_half_written_files_vanish(tmp_path: Path) -> None:
    (tmp_path / ".state.pt.abc.tmp").write_bytes(b"half")
    with run.locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(TrainingError, match="is being trained by another process"), run.locked(tmp_path):
            pass
    with run.locked(tmp_path):  # free again
        pass
