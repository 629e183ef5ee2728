"""Semantically discriminative maps of one clip, by hand, and the reasons for having none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd_edge.errors import DataError, TrainingError
from kd_edge.pictures.gsdm import draw_gsdm, semantically_discriminative_maps, without_content
from kd_edge.preprocess import Preprocess
from kd_edge.train.distil.methods import GsdmLoss
from tests.pictures.conftest import by_hand, picture, pixels, view_of
from tests.pictures.runs import write_student

VECTORS = torch.tensor([[1.0, 2.0], [0.5, 4.0]])


def bright() -> torch.Tensor:
    """A clip of class 0, of which the clip without content is not: 4 x means 9, against 0.5."""
    return pixels().abs() * 1.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # F = (1, 2), F_a = (0.5, 4): omega = (0.5, -1); the channels are x and 2 x
        ({"slope": "official", "weighting": "scalar"}, 0.25 * 3),
        ({"slope": "official", "weighting": "channel"}, 0.5),
        ({"slope": "stable", "weighting": "scalar"}, 0.0),  # mean -0.25
        ({"slope": "stable", "weighting": "channel"}, 0.0),  # 0.5 x - 2 x
        ({"slope": "norm", "weighting": "scalar"}, 3 * math.sqrt(4.25 / 5)),
    ],
)
def test_maps_by_hand(options: dict[str, Any], expected: float) -> None:
    clip = bright()
    found = semantically_discriminative_maps(
        by_hand(), clip, torch.zeros_like(clip), VECTORS, GsdmLoss(embedding="hard", **options)
    )
    np.testing.assert_allclose(found.maps, expected * clip[:, 0].numpy(), rtol=1e-6, atol=1e-7)
    assert found.layer == "backbone.last"


def test_the_weight_is_the_mean_of_omega() -> None:
    clip = bright()
    found = semantically_discriminative_maps(
        by_hand(), clip, torch.zeros_like(clip), VECTORS, GsdmLoss(slope="stable", embedding="hard")
    )
    assert found.weight == pytest.approx(-0.25)


def test_a_clip_of_the_class_of_nothing_has_an_empty_map() -> None:
    clip = -bright()  # class 1, as the empty clip
    found = semantically_discriminative_maps(
        by_hand(), clip, torch.zeros_like(clip), VECTORS, GsdmLoss(slope="official", embedding="hard")
    )
    assert not found.maps.any()
    assert found.weight == 0


def test_gradients_modes_and_hooks_are_left_alone() -> None:
    model = by_hand().train()
    semantically_discriminative_maps(model, bright(), torch.zeros_like(bright()), VECTORS, GsdmLoss())
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(TrainingError, match=r"no layer 'backbone.lst'"):
        semantically_discriminative_maps(model, bright(), bright(), VECTORS, GsdmLoss(), "backbone.lst")


def test_nothing_to_see_is_zeros_or_black_pixels() -> None:
    spec = Preprocess(channels=3, resize_px=8, input_px=8, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.1))
    clip = torch.ones(2, 3, 8, 8)
    assert not without_content(clip, spec, "zeros").any()
    black = without_content(clip, spec, "black")
    assert black.shape == clip.shape
    torch.testing.assert_close(black[1, :, 3, 3], torch.tensor([-2.0, -2.0, -3.0]))


def test_the_picture_of_a_run_with_class_vectors(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    np.save(tmp_path / "words.npy", vectors)
    run = write_student(tmp_path / "run", semantics={"vectors": str(tmp_path / "words.npy")})
    view = view_of(run)
    assert draw_gsdm(view, tmp_path / "gsdm.png") == ""
    last = picture(tmp_path / "gsdm.png")
    assert draw_gsdm(view, tmp_path / "early.png", "backbone.layer1") == ""
    assert (picture(tmp_path / "early.png") != last).any()
    (tmp_path / "words.npy").unlink()
    with pytest.raises(DataError, match=r"words\.npy"):
        draw_gsdm(view, tmp_path / "never.png")
    assert not (tmp_path / "never.png").exists()


@pytest.mark.slow
def test_a_run_without_class_vectors_says_so(run: Path, tmp_path: Path) -> None:
    assert (
        draw_gsdm(view_of(run), tmp_path / "a.png") == "the run's recipe has no [semantics], vectors of the class names"
    )
    damaged = write_student(tmp_path / "damaged")
    (damaged / "recipe.toml").write_text("name = 3\n")
    assert draw_gsdm(view_of(damaged), tmp_path / "a.png").startswith("the run's recipe cannot be read: ")
    assert not (tmp_path / "a.png").exists()
