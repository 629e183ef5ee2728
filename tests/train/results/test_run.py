from __future__ import annotations

import errno
import fcntl
import json
from pathlib import Path

import pytest

from kd_edge import rundir
from kd_edge.errors import TrainingError
from kd_edge.train.recipe import Recipe
from kd_edge.train.results import run


def make(folder: Path, recipe: Recipe, finished: str | None) -> Path:
    run.begin(folder, recipe)
    if finished is not None:
        rundir.write_summary(folder, {"complete": True, "finished": finished})
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


def test_metrics_are_cut_after_the_resumed_epoch_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    for stage, epoch in (("teacher", 1), ("teacher", 2), ("student", 1), ("student", 2)):
        run.append_metrics(tmp_path, {"stage": stage, "epoch": epoch})
    with (tmp_path / rundir.METRICS).open("a") as file:
        file.write('{"stage": "stud')
    run.truncate_metrics(tmp_path, "student", 1)
    assert [(m["stage"], m["epoch"]) for m in rundir.read_metrics(tmp_path)] == [
        ("teacher", 1),
        ("teacher", 2),
        ("student", 1),
    ]
    run.truncate_metrics(tmp_path, "teacher", 0)
    assert rundir.read_metrics(tmp_path) == []


def test_a_damaged_state_says_what_to_do(tmp_path: Path, tiny: Recipe) -> None:
    make(tmp_path / "r", tiny, None)
    assert run.load_state(tmp_path / "r", tiny) is None
    (tmp_path / "r" / rundir.STATE).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(TrainingError, match=r"state.pt is damaged.*remove it"):
        run.load_state(tmp_path / "r", tiny)


def test_new_run_paths_do_not_collide(tmp_path: Path) -> None:
    first = rundir.new_run_path(tmp_path, "x")
    first.mkdir()
    assert rundir.new_run_path(tmp_path, "x") != first
    assert first.name.startswith("x-20")


def test_summary_is_strict_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        rundir.write_summary(tmp_path, {"x": float("nan")})
    assert not (tmp_path / rundir.SUMMARY).exists()
    rundir.write_summary(tmp_path, {"x": 1})
    assert json.loads((tmp_path / rundir.SUMMARY).read_text()) == {"x": 1}


def test_a_run_belongs_to_one_process_and_half_written_files_vanish(tmp_path: Path) -> None:
    (tmp_path / ".state.pt.abc.tmp").write_bytes(b"half")
    with run.locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        with pytest.raises(TrainingError, match="is being trained by another process"), run.locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with run.locked(tmp_path):  # free again
        pass


def test_a_run_on_a_file_system_without_locks_belongs_to_one_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        run.locked(tmp_path),
        pytest.raises(TrainingError, match="is being trained by another process"),
        run.locked(tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_be_locked_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(TrainingError) as caught, run.locked(tmp_path):
        pass
    assert caught.value.found == f"run {tmp_path} cannot be locked (Input/output error)"
