"""Multi-scale TRN against the definition, written out in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.models.heads import RelationHead, TemporalConvolutionHead, relation


def head(segments: int = 4, per_scale: int = 3, dropout: float = 0.0, **options: object) -> RelationHead:
    torch.manual_seed(0)
    sizes = {"projected": 6, "hidden": 4, "segments": segments, "per_scale": per_scale}
    return RelationHead(5, 3, dropout, **sizes, **options).double()  # type: ignore[arg-type]


def by_definition(module: RelationHead, features: torch.Tensor, chosen: dict[int, list[tuple[int, ...]]]) -> np.ndarray:
    """Sum over the scales of the chosen relations' logits; plain numpy, sample by sample."""
    weights = {k: v.detach().numpy() for k, v in module.state_dict().items()}
    scales = sorted(chosen, reverse=True)
    result = []
    for clip in features.numpy():
        projected = clip @ weights["project.weight"].T + weights["project.bias"]
        logits = np.zeros(3)
        for position, scale in enumerate(scales):
            for frames in chosen[scale]:
                joined = np.maximum(np.concatenate([projected[f] for f in frames]), 0)
                hidden = joined @ weights[f"relate.{position}.weight"].T + weights[f"relate.{position}.bias"]
                last = weights[f"classifiers.{position}.weight"], weights[f"classifiers.{position}.bias"]
                logits += np.maximum(hidden, 0) @ last[0].T + last[1]
        result.append(logits)
    return np.array(result)


@settings(max_examples=100, deadline=None)
@given(segments=st.integers(1, 9), data=st.data())
def test_relations_are_numbered_as_combinations_are(segments: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(1, segments))
    every = list(itertools.combinations(range(segments), scale))
    assert [relation(segments, scale, rank) for rank in range(len(every))] == every


def test_evaluation_takes_evenly_spread_relations_of_every_scale() -> None:
    features = torch.randn(2, 4, 5, dtype=torch.float64)
    module = head().eval()
    # of 4 triples the ranks 0, 2, 3 and of 6 pairs the ranks 1, 3, 5
    chosen = {4: [(0, 1, 2, 3)], 3: [(0, 1, 2), (0, 2, 3), (1, 2, 3)], 2: [(0, 2), (1, 2), (2, 3)]}
    with torch.no_grad():
        np.testing.assert_allclose(module(features).numpy(), by_definition(module, features, chosen), atol=1e-12)


def test_all_relations_count_as_many_as_are_drawn_in_training() -> None:
    features = torch.randn(2, 4, 5, dtype=torch.float64)
    module = head(evaluate="all").eval()
    expected = np.zeros((2, 3))
    for scale, share in ((4, 1), (3, 3 / 4), (2, 3 / 6)):
        one = {k: [] for k in (4, 3, 2)} | {scale: list(itertools.combinations(range(4), scale))}
        expected += share * by_definition(module, features, one)
    with torch.no_grad():
        np.testing.assert_allclose(module(features).numpy(), expected, atol=1e-12)


@pytest.mark.slow
def test_training_draws_from_torch_alone_and_averages_to_all_relations() -> None:
    features = torch.randn(1, 5, 5, dtype=torch.float64)
    module, every = head(5, 2).train(), head(5, 2, evaluate="all").eval()
    np.random.seed(3)  # noqa: NPY002 - the generator that the public code draws from
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    with torch.no_grad():
        torch.manual_seed(7)
        first = [module(features) for _ in range(600)]
        torch.manual_seed(7)
        again = [module(features) for _ in range(5)]
        expected = every(features)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=False))
    drawn = torch.cat(first)
    assert len(torch.unique(drawn, dim=0)) > 100
    error = (drawn.mean(0) - expected[0]).abs() / (drawn.std(0) / 600**0.5)
    assert error.max() < 4  # standard errors


def test_evaluation_draws_nothing_and_a_scale_is_never_drawn_beyond_its_relations() -> None:
    features = torch.randn(2, 3, 5, dtype=torch.float64)
    module = head(3, 3).eval()  # one triple, three pairs: nothing to choose
    state = torch.get_rng_state()
    with torch.no_grad():
        expected = module(features)
        assert torch.equal(torch.get_rng_state(), state)
        torch.testing.assert_close(module.train()(features), expected, rtol=0, atol=1e-12)


def test_gradients_against_finite_differences_and_the_order_matters() -> None:
    module = head().eval()
    features = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (features,), atol=1e-6)
    with torch.no_grad():
        assert (module(features) - module(features.flip(1))).abs().max() > 1e-3


def test_long_windows_and_only_the_weights_are_saved() -> None:
    module = RelationHead(5, 3, 0.5, projected=4, hidden=4, segments=40, per_scale=3).train()
    assert module(torch.randn(2, 40, 5)).shape == (2, 3)
    assert module.eval()(torch.randn(2, 40, 5)).isfinite().all()
    assert {k.split(".")[0] for k in head().state_dict()} == {"project", "relate", "classifiers"}


def test_impossible_choices_are_one_line() -> None:
    with pytest.raises(ConfigError, match="'trn' with 1 segment"):
        head(1)
    with pytest.raises(ConfigError, match=r"all 65519 relations of 16 segments.*'fixed'"):
        head(16, evaluate="all")


def test_dropout_at_features_drops_a_share_of_the_features_once() -> None:
    """At 0.8 four of five features are 0 and the others times 5; what the classifiers see is whole."""
    torch.manual_seed(0)
    module = RelationHead(1000, 3, 0.8, projected=6, hidden=4, segments=4, per_scale=3, dropout_at="features").train()
    seen: dict[str, torch.Tensor] = {}
    module.project.register_forward_pre_hook(lambda _m, inputs: seen.update(features=inputs[0]))
    module.classifiers[0].register_forward_pre_hook(lambda _m, inputs: seen.update(hidden=inputs[0]))
    module.relate[0].register_forward_hook(lambda _m, _i, output: seen.update(related=output))
    with torch.no_grad():
        module(torch.ones(2, 4, 1000))
    assert set(seen["features"].unique().tolist()) == {0.0, 5.0}
    assert (seen["features"] == 0).float().mean().item() == pytest.approx(0.8, abs=0.02)  # 8000 draws: 0.0045
    torch.testing.assert_close(seen["hidden"], seen["related"].relu(), rtol=0, atol=0)


@pytest.mark.parametrize("dropout_at", ["features", "all"])
@pytest.mark.parametrize("temporal", ["trn", "tconv"])
def test_only_all_drops_out_before_the_classifiers_too(temporal: str, dropout_at: str) -> None:
    values = {"backbone": "tiny", "temporal": temporal, "dropout": 0.8, "dropout_at": dropout_at}
    head = build_model(ModelConfig.model_validate(values), in_channels=1, classes=3, segments=3).head
    assert isinstance(head, RelationHead | TemporalConvolutionHead)
    seen = []
    head.dropout.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    head.train()(torch.randn(2, 3, head.project.in_features if temporal == "trn" else head.convolution1.in_channels))
    later = {"features": 0, "all": 2 if temporal == "trn" else 1}[dropout_at]  # TRN: a triple, and pairs
    assert len(seen) == 1 + later


def test_a_relations_hidden_layer_has_a_size_of_its_own() -> None:
    """SAKDN's sizes: features of 1024 to 300; 8 segments, scales 8 to 2 of k * 300 to 256 to 27 classes."""
    values = {"backbone": "bninception", "temporal": "trn", "bottleneck": 300, "relation_hidden": 256}
    model = build_model(ModelConfig.model_validate(values), in_channels=3, classes=27, segments=8)
    relate = (8 + 7 + 6 + 5 + 4 + 3 + 2) * 300 * 256 + 7 * 256
    parameters = sum(p.numel() for p in model.head.parameters())
    assert parameters == (1024 * 300 + 300) + relate + 7 * (256 * 27 + 27)
    assert tuple(model.head.get_parameter("relate.0.weight").shape) == (256, 2400)


def test_a_model_of_before_keeps_its_shapes() -> None:
    saved = {"backbone": "tiny", "temporal": "trn", "dropout": 0.8, "bottleneck": 300}
    config = ModelConfig.model_validate(saved)
    assert (config.dropout_at, config.relation_hidden) == ("all", None)
    head = build_model(config, in_channels=1, classes=3, segments=3).head
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {
        "project.weight": (300, 24), "project.bias": (300,),
        "relate.0.weight": (300, 900), "relate.0.bias": (300,), "relate.1.weight": (300, 600), "relate.1.bias": (300,),
        "classifiers.0.weight": (3, 300), "classifiers.0.bias": (3,),
        "classifiers.1.weight": (3, 300), "classifiers.1.bias": (3,),
    }  # fmt: skip


@pytest.mark.parametrize("segments", [3, 5])
def test_features_of_another_number_are_refused(segments: int) -> None:
    """A fifth of four was ignored: relations are indices."""
    with pytest.raises(
        TrainingError, match=rf"features of shape \(2, {segments}, 5\)\. Expected \(batch, 4 segments, 5\)"
    ):
        head()(torch.zeros(2, segments, 5, dtype=torch.float64))
