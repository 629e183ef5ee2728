"""CNN + LSTM: shapes, the random changes, and whole runs on a data set whose classes differ in motion and signal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd_edge import recipes
from kd_edge.errors import TrainingError
from kd_edge.study.classical import CnnLstmConfig, run_comparator
from kd_edge.study.classical.fusion import cnn_lstm, recordings
from kd_edge.study.classical.fusion.networks import (
    MotionNetwork,
    SignalNetwork,
    changed_images,
    changed_signals,
    log_probabilities,
    train_network,
)
from tests.study.classical.moves import Moves


def small(**changes: Any) -> CnnLstmConfig:
    values: dict[str, Any] = {
        "data": {"kind": "synthetic"},
        "split": "subjects",
        "sensors": ["wrist", "ankle"],
        "motion": {"trim_frames": 1, "height": 12, "silhouette": True},
        "points": 16,
        "channels": 4,
        "hidden": 8,
        "epochs": 25,
        "batch_size": 8,
        "learning_rate": 0.01,
        "dropout": 0.0,
        "threads": 1,
    }
    return CnnLstmConfig.model_validate(values | changes)


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs on the moves."""

    def run(folder: str = "run", moves: Moves | None = None, **changes: Any) -> dict[str, Any]:
        monkeypatch.setattr(recordings, "open_dataset", lambda data, root: moves or Moves())
        return run_comparator(small(**changes), tmp_path / folder).model_dump(mode="json")

    return run


def test_networks_have_logits_and_every_parameter_a_gradient() -> None:
    torch.manual_seed(0)
    images, signals = torch.randn(5, 6, 9, 7), torch.randn(5, 4, 17)
    for network, inputs in ((MotionNetwork(6, 3, 4, 0.0), images), (SignalNetwork(4, 3, 4, 8, 0.0), signals)):
        logits = network(inputs)
        assert logits.shape == (5, 3)
        (logits * torch.randn(5, 3)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_signal_network_knows_the_order_of_time() -> None:
    torch.manual_seed(0)
    network = SignalNetwork(2, 3, 4, 8, 0.0).eval()
    signals = torch.randn(1, 2, 16)
    assert not torch.allclose(network(signals), network(signals.flip(2)), atol=1e-4)


def test_log_probabilities_are_those_of_evaluation_mode() -> None:
    torch.manual_seed(0)
    network = SignalNetwork(2, 3, 4, 8, 0.5).train()
    inputs = np.random.default_rng(0).normal(size=(70, 2, 16)).astype(np.float32)  # more than one batch
    found = log_probabilities(network, inputs)
    assert np.exp(found).sum(axis=1) == pytest.approx(np.ones(70))
    assert found[65] == pytest.approx(log_probabilities(network, inputs[65:66])[0], abs=1e-5)
    assert log_probabilities(network, inputs[:0]).shape == (0, 0)


class Fixed:
    """In place of a generator: every draw is the middle, the low or the high end of its range."""

    def __init__(self, share: float) -> None:
        self._share = share

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        value = low + self._share * (high - low)
        return value if size is None else np.full(size, value)


def test_the_middle_of_the_random_changes_is_no_change() -> None:
    rng = np.random.default_rng(0)
    images, signals = rng.random((3, 8, 6), dtype=np.float32), rng.random((2, 10), dtype=np.float32)
    assert changed_images(images, Fixed(0.5)) == pytest.approx(images, abs=1e-6)  # type: ignore[arg-type]
    assert changed_signals(signals, Fixed(0.5)) == pytest.approx(signals, abs=1e-6)  # type: ignore[arg-type]


def test_signals_change_by_hand() -> None:
    """Highest draws: 1.15 times as fast about the middle, 8 % of 11 points earlier, 1.15 times as strong."""
    ramp = np.arange(11, dtype=np.float32)[None]
    found = changed_signals(ramp, Fixed(1.0))  # type: ignore[arg-type]
    expected = 1.15 * np.clip((np.arange(11) - 5) * 1.15 + 5 + 0.88, 0, 10)
    assert found[0] == pytest.approx(expected, abs=1e-5)


def test_images_move_together_and_zeros_come_in() -> None:
    images = np.ones((2, 50, 50), dtype=np.float32)
    found = changed_images(images, Fixed(0.0))  # type: ignore[arg-type]
    assert np.array_equal(found[0], found[1])
    # 0.85 times as large about the centre, 4 pixels up and left, 0.85 times as bright
    assert found[0, :40, :40] == pytest.approx(np.full((40, 40), 0.85))
    assert not found[0, :, 43:].any()
    assert not found[0, 43:].any()


@pytest.mark.slow
def test_a_network_learns_and_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    inputs = rng.normal(size=(24, 3, 16)).astype(np.float32)
    inputs[np.arange(24), labels] += 3

    def trained() -> tuple[dict[str, float], torch.Tensor]:
        torch.manual_seed(1)
        network = SignalNetwork(3, 3, 4, 8, 0.0)
        figures = train_network(network, inputs, labels, small(epochs=15), changed_signals, lambda done: None)
        return figures, network.classifier[1].weight.detach()

    (first, weights), (second, same) = trained(), trained()
    assert first == second
    assert torch.equal(weights, same)
    assert first["accuracy"] == 1
    assert first["loss"] < 0.5


@pytest.mark.slow
def test_a_run_tells_the_moves_apart(run: Run, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    summary = run(validation_subjects=["2"])
    assert torch.equal(torch.random.get_rng_state(), before)
    student = summary["stages"]["student"]
    assert student["test"]["accuracy"] == 1
    assert student["validation"]["accuracy"] == 1
    assert student["networks"].keys() == {"depth", "sensors"}
    assert student["networks"]["sensors"]["test_accuracy"] == 1
    assert (student["modality"], student["backbone"], student["temporal"]) == ("depth+wrist+ankle", "cnn", "lstm")
    assert (student["epochs"], student["selected_epoch"]) == (25, 25)
    assert 0 <= student["test"]["ece"] <= 1
    assert [summary["protocol"][f"{side}_samples"] for side in ("train", "validation", "test")] == [12, 12, 12]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["recipe.toml", "summary.json"]
    assert recipes.load("train", str(tmp_path / "run" / "recipe.toml"), CnnLstmConfig) == small(
        validation_subjects=["2"]
    )


def test_the_pool_is_the_weighted_sum_of_log_probabilities(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both networks' answers are replaced: depth says class 0 with 0.6, the sensors class 1 with 0.9."""
    answers = {6: np.log([0.6, 0.3, 0.1]), 3: np.log([0.05, 0.9, 0.05])}  # by the number of channels
    monkeypatch.setattr(cnn_lstm, "log_probabilities", lambda network, x: np.tile(answers[x.shape[1]], (len(x), 1)))

    def first_answer(folder: str, depth_weight: float) -> int:
        student = run(folder, epochs=1, sensors=["wrist"], depth_weight=depth_weight)["stages"]["student"]
        confusion = np.array(student["test"]["confusion"])
        assert (confusion.sum(axis=0) > 0).sum() == 1
        return int(confusion.sum(axis=0).argmax())

    # the balance: w ln(0.6 / 0.3) = (1 - w) ln(0.9 / 0.05), w = 0.8066
    assert (first_answer("a", 0.80), first_answer("b", 0.82)) == (1, 0)


@pytest.mark.parametrize(("changes", "names"), [({"sensors": []}, ("cnn", "alone")), ({"depth": ""}, ("cnn", "lstm"))])
def test_one_modality_alone(run: Run, changes: dict[str, Any], names: tuple[str, str]) -> None:
    student = run(epochs=1, augment=False, **changes)["stages"]["student"]
    assert (student["backbone"], student["temporal"]) == names
    assert len(student["networks"]) == 1


def test_a_run_repeats_with_its_seed_and_incomplete_clips_are_named(run: Run) -> None:
    moves = Moves(lacking=("down_s1_t2",))

    def figures(folder: str, seed: int) -> dict[str, Any]:
        torch.rand(1)  # what the caller draws in between must not matter
        summary = run(folder, moves, epochs=2, seed=seed)
        assert summary["protocol"]["skipped"].keys() == {"down_s1_t2"}
        student: dict[str, Any] = summary["stages"]["student"]
        del student["seconds"]
        return student

    assert figures("one", 3) == figures("two", 3)
    assert figures("other", 4)["networks"] != figures("again", 3)["networks"]


def test_an_unfinished_run_of_another_kind_is_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text('name = "student"\nsplit = "subjects"\n', encoding="utf-8")
    with pytest.raises(TrainingError, match="already contains a run"):
        run()
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["recipe.toml"]
