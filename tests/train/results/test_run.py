from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd_edge import rundir
from kd_edge.errors import TrainingError
from kd_edge.train.recipe import Recipe
from kd_edge.train.results import run

NOISE = np.random.default_rng(0).bytes(3000)


def make(folder: Path, recipe: Recipe, finished: str | None) -> Path:
    with run.begun(folder, recipe):
        pass
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


STATES: dict[str, Any] = {
    "data_fingerprint": "d",
    "threads": 1,
    "stage": "student",
    "epoch": 2,
    "learner": {},
    "optimiser": {},
    "best": {"epoch": 0, "score": -1.0, "model": {}},
    "seconds": 0.5,
    "report": {"teacher": {"selected_epoch": 3, "selected_by": "last epoch", "seconds": 1.5}},
}


def test_a_state_is_read_as_it_was_saved(tmp_path: Path, tiny: Recipe) -> None:
    make(tmp_path / "r", tiny, None)
    assert run.load_state(tmp_path / "r", tiny) is None
    assert run.selections(None) == {}
    run.save_state(tmp_path / "r", STATES)
    state = run.load_state(tmp_path / "r", tiny)
    assert state == STATES
    kept = rundir.Selection(selected_epoch=3, selected_by="last epoch", seconds=1.5)
    assert run.selections(state) == {"teacher": kept}


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 torn", "PytorchStreamReader failed"),
        (NOISE, "it is truncated, or was not written by torch.save"),
        ([1, 2], "Input should be a valid dictionary"),
        ({}, "data_fingerprint: Field required"),
        ({"w": torch.ones(2)}, "data_fingerprint: Field required"),
        (
            STATES | {"stage": "pupil"},
            "stage: should be teacher, dense, fold1 and so on, student or head",
        ),
        (STATES | {"epoch": "two"}, "epoch: Input should be a valid integer"),
        (STATES | {"best": {"epoch": 1}}, "best.score: Field required"),
        (STATES | {"report": {"teacher": 3}}, "report.teacher: Input should be a valid dictionary"),
    ],
)
def test_a_damaged_state_says_what_to_do(damaged: Any, why: str, tmp_path: Path, tiny: Recipe) -> None:
    place = make(tmp_path / "r", tiny, None) / rundir.STATE
    if isinstance(damaged, bytes):
        place.write_bytes(damaged)
    else:
        torch.save(damaged, place)
    with pytest.raises(TrainingError) as caught:
        run.load_state(tmp_path / "r", tiny)
    assert f"{place} is damaged ({why}" in caught.value.found
    assert caught.value.fix == "remove it to start this run again"
    assert len(str(caught.value).splitlines()) == 1


def test_a_state_that_was_cut_and_one_that_is_a_folder(tmp_path: Path, tiny: Recipe) -> None:
    place = make(tmp_path / "r", tiny, None) / rundir.STATE
    run.save_state(tmp_path / "r", STATES)
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
    with pytest.raises(TrainingError, match="PytorchStreamReader failed"):
        run.load_state(tmp_path / "r", tiny)
    place.unlink()
    place.mkdir()
    with pytest.raises(TrainingError, match="it is a folder"):
        run.load_state(tmp_path / "r", tiny)


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


def test_a_run_that_cannot_start_leaves_nothing_behind(tmp_path: Path, tiny: Recipe) -> None:
    with pytest.raises(TrainingError), run.begun(tmp_path / "new", tiny):
        raise TrainingError("a fault", "none", "mend it")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "mine").touch()
    with pytest.raises(TrainingError), run.begun(tmp_path / "old", tiny):
        raise TrainingError("a fault", "none", "mend it")
    assert [file.name for file in (tmp_path / "old").iterdir()] == ["mine"]


def test_of_two_that_begin_a_run_at_once_one_is_refused_and_undoes_nothing(tmp_path: Path, tiny: Recipe) -> None:
    place = tmp_path / "run"
    with run.locked(place):  # the other one has the folder and is about to write its recipe
        with pytest.raises(TrainingError, match="is being trained by another process"), run.begun(place, tiny):
            pass
        assert [file.name for file in place.iterdir()] == [".lock"]
    with run.begun(place, tiny):
        with pytest.raises(TrainingError, match="contains a run already"), run.begun(place, tiny):
            pass
        with pytest.raises(TrainingError, match="is being trained by another process"), run.locked(place):
            pass
        assert (place / rundir.RECIPE).is_file()
    assert [file.name for file in place.iterdir()] == [rundir.RECIPE]


def test_a_run_that_was_stopped_or_has_an_epoch_can_go_on(tmp_path: Path, tiny: Recipe) -> None:
    with pytest.raises(KeyboardInterrupt), run.begun(tmp_path / "stopped", tiny):
        raise KeyboardInterrupt
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / rundir.METRICS).touch()
    with pytest.raises(TrainingError), run.begun(tmp_path / "late", tiny):
        raise TrainingError("a fault", "none", "mend it")
    assert [(tmp_path / name / rundir.RECIPE).exists() for name in ("stopped", "late")] == [True, True]
