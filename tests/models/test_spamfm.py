"""SPAMFM against Eq. 4-13 written out in numpy, sample by sample and channel by channel, in float64."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.config import Variant
from kd_edge.models.spamfm import SPAMFM, _product, _similarities

VARIANTS: tuple[Variant, ...] = ("paper", "official")
RELATIONS = ("concatenation", "summation", "product")


def module(channels: Sequence[int], variant: Variant = "paper", **options: str) -> SPAMFM:
    torch.manual_seed(1)
    return SPAMFM(channels, variant=variant, **options).double()  # type: ignore[arg-type]


def features_of(channels: Sequence[int], maps: bool, samples: int = 4) -> list[Tensor]:
    torch.manual_seed(2)
    sizes = [(samples, c, 3 + k, 2) if maps else (samples, c) for k, c in enumerate(channels)]
    return [torch.randn(size, dtype=torch.float64) + 0.5 for size in sizes]


def similarity_by_definition(rows: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Eq. 4 and 5 with plain loops; what is not there is similar to nothing."""
    b = len(rows)
    g = np.zeros((b, b))
    for i, j in itertools.product(range(b), range(b)):
        if there[i] and there[j]:
            g[i, j] = np.sum(rows[i] * rows[j])
    for i in range(b):
        length = np.sqrt(np.sum(g[i] ** 2))
        if length > 0:
            g[i] /= length
    return g


def by_definition(fusion: SPAMFM, features: list[Tensor], present: np.ndarray, mixing: bool) -> list[np.ndarray]:
    w = {k: v.numpy() for k, v in fusion.state_dict().items()}
    m, b = len(features), len(features[0])
    contexts = []  # G_k S_k
    for k, feature in enumerate(features):
        a = feature.numpy()
        squeezed = a.mean(axis=(2, 3)) if a.ndim == 4 else a.copy()
        squeezed[~present[:, k]] = 0
        g = similarity_by_definition(a.reshape(b, -1), present[:, k]) if mixing else np.eye(b)
        contexts.append(g @ squeezed)
    gates = [np.zeros((b, c)) for c in fusion.channels]
    for i in range(b):
        least = [
            w[f"to_least.{k}.weight"] @ contexts[k][i] if f"to_least.{k}.weight" in w else contexts[k][i]
            for k in range(m)
        ]
        product = np.ones(min(fusion.channels))
        for k in range(m):
            product = product * (least[k] if present[i, k] else 1.0)
        joined = (np.concatenate([c[i] for c in contexts]), np.sum(least, axis=0), product)
        for relation, x in zip(RELATIONS, joined, strict=True):
            for k in range(m):
                first = f"{relation}.first.{k if fusion.variant == 'official' else 0}"
                z = w[f"{first}.weight"] @ x + w[f"{first}.bias"]
                if fusion.variant == "official":
                    z = np.maximum(z, 0)
                e = w[f"{relation}.second.{k}.weight"] @ z + w[f"{relation}.second.{k}.bias"]
                gates[k][i] += np.maximum(e, 0) if fusion.variant == "paper" else 1 / (1 + np.exp(-e))
    fused = []
    for k, (feature, gate) in enumerate(zip(features, gates, strict=True)):
        fused.append(feature.numpy() * (gate[:, :, None, None] if feature.ndim == 4 else gate))
        fused[-1][~present[:, k]] = 0
    return fused


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels", [(6,), (4, 4), (5, 5, 5), (4, 7, 5)])
@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("lacking", [False, True])
def test_both_variants_against_the_equations(
    variant: Variant, channels: tuple[int, ...], maps: bool, lacking: bool
) -> None:
    fusion, features = module(channels, variant), features_of(channels, maps)
    there = np.ones((4, len(channels)), bool)
    if lacking:
        there[1, 0] = there[2, -1] = there[3, -1] = False
    present = torch.from_numpy(there) if lacking else None
    for training, similarity in ((True, "identity"), (False, "identity"), (False, "batch")):
        fusion.train(training).similarity = similarity  # type: ignore[assignment]
        with torch.no_grad():
            fused = fusion(features, present)
        expected = by_definition(fusion, features, there, training or similarity == "batch")
        for mine, theirs in zip(fused, expected, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("variant", "first", "second"),
    [
        # S = 3 and -2, so con = 1 * 3 + 2 * -2 = -1, sum = 1, had = -6, and -1 of the bias: -2, 0, -7
        # paper: E_1 = 0.5 z: -1, 0, -3.5 -> gate 0;  E_2 = -z: 2, 0, 7 -> gate 9
        ("paper", 0.0, 9 * -2.0),
        # official: ReLU(z) = 0 each, sigmoid(0) = 0.5 three times; second modality's first layer is negated: 2, 0, 7
        # E_2 = -2, 0, -7: 0.11920292202 + 0.5 + 0.00091105119 = 0.62011397322
        ("official", 1.5 * 3.0, 0.62011397322 * -2.0),
    ],
)
def test_one_channel_by_hand(variant: Variant, first: float, second: float) -> None:
    fusion = module((1, 1), variant).eval()
    with torch.no_grad():
        for name, parameter in fusion.named_parameters():
            parameter.fill_(0.0 if "second" in name and "bias" in name else 1.0)
        for relation in (fusion.concatenation, fusion.summation, fusion.product):
            for k, layer in enumerate(relation.first):
                weight = torch.tensor([[1.0, 2.0]]) if relation is fusion.concatenation else torch.tensor([[1.0]])
                layer.weight.copy_(weight if k == 0 else -weight)
                layer.bias.fill_(-1.0 if k == 0 else 1.0)
            relation.second[0].weight.fill_(0.5)
            relation.second[1].weight.fill_(-1.0)
        maps = [torch.full((1, 1, 2, 2), value, dtype=torch.float64) for value in (3.0, -2.0)]
        fused = fusion(maps)
    torch.testing.assert_close(fused[0], torch.full_like(maps[0], first), rtol=0, atol=1e-9)
    torch.testing.assert_close(fused[1], torch.full_like(maps[1], second), rtol=0, atol=1e-9)


def test_sizes_of_the_layers_are_the_papers_and_the_codes() -> None:
    def sizes(fusion: SPAMFM) -> list[tuple[int, int, int]]:
        """Inputs and outputs of the first layers, and how many there are."""
        relations = [getattr(fusion, name) for name in RELATIONS]
        return [(r.first[0].in_features, r.first[0].out_features, len(r.first)) for r in relations]

    # 64 channels each: 4 x 64 / (2 x 4) = 32
    assert sizes(module([64] * 4, "paper")) == [(256, 32, 1), (64, 64, 1), (64, 64, 1)]
    # and 64 / (2 x 4) = 8 in the code's sum and product
    assert sizes(module([64] * 4, "official")) == [(256, 32, 4), (64, 8, 4), (64, 8, 4)]
    # (256 + 1) 32 + 4 (32 + 1) 64 = 16672; 2 ((64 + 1) 64 + 4 (64 + 1) 64) = 41600
    assert sum(p.numel() for p in module([64] * 4, "paper").parameters()) == 16672 + 41600
    # 4 ((256 + 1) 32 + 33 x 64) + 2 x 4 (65 x 8 + 9 x 64)
    assert sum(p.numel() for p in module([64] * 4, "official").parameters()) == 41344 + 8768
    assert sizes(module([8, 4], "paper")) == [(12, 3, 1), (4, 4, 1), (4, 4, 1)]
    assert sizes(module([1], "official")) == [(1, 1, 1)] * 3  # 1 / 2, but never none


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("maps", [True, False])
def test_gradients_against_finite_differences(variant: Variant, maps: bool) -> None:
    fusion = module((3, 4), variant).train()
    features = [f.requires_grad_() for f in features_of((3, 4), maps, samples=3)]
    present = torch.tensor([[True, True], [True, False], [True, True]])
    for there in (None, present):
        check = functools.partial(torch.autograd.gradcheck, atol=1e-7, fast_mode=maps)  # maps: along random directions
        assert check(lambda *x, p=there: tuple(fusion(x, p)), features)
        inputs = tuple(fusion.parameters())
        names = [name for name, _ in fusion.named_parameters()]

        def of_weights(*weights: Tensor, p: Tensor | None = there, n: list[str] = names) -> tuple[Tensor, ...]:
            return tuple(torch.func.functional_call(fusion, dict(zip(n, weights, strict=True)), (features, p)))

        assert check(of_weights, inputs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluation_knows_a_sample_alone_unless_it_is_told_otherwise(variant: Variant) -> None:
    fusion, features = module((4, 4), variant).eval(), features_of((4, 4), maps=True)
    alone = [f[:1] for f in features]
    with torch.no_grad():
        torch.testing.assert_close(fusion(features)[0][:1], fusion(alone)[0], rtol=0, atol=1e-14)
        fusion.similarity = "batch"
        assert (fusion(features)[0][:1] - fusion(alone)[0]).abs().max() > 1e-2
        of_one = fusion(alone)
        fusion.similarity = "identity"
        torch.testing.assert_close(of_one, fusion(alone), rtol=0, atol=0)  # G of one sample is 1
        fusion.train()
        assert (fusion(features)[0][:1] - fusion(alone)[0]).abs().max() > 1e-2  # training is always the batch's


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("maps", [True, False])
def test_what_is_missing_changes_nothing_but_by_being_missing(variant: Variant, maps: bool) -> None:
    fusion, features = module((3, 3), variant).train(), features_of((3, 3), maps)
    present = torch.tensor([[True, True], [True, True], [True, False], [True, True]])
    other = [f.clone() for f in features]
    other[1][2] = float("nan")
    rows = [0, 1, 3]
    without = [f[rows] for f in features]
    with torch.no_grad():
        first, second = fusion(features, present), fusion(other, present)
        torch.testing.assert_close(first[0], second[0], rtol=0, atol=0)
        torch.testing.assert_close(first[1], second[1], rtol=0, atol=0)
        assert second[1][2].abs().max() == 0
        assert (fusion(features)[1][rows] - first[1][rows]).abs().max() > 1e-3
        # were it lacking everything, the others would be as if it had never been in the batch
        nothing = torch.tensor([[True, True], [True, True], [False, False], [True, True]])
        torch.testing.assert_close([f[rows] for f in fusion(features, nothing)], fusion(without), rtol=0, atol=1e-13)
    leaves = [f.requires_grad_() for f in other]
    sum(f.sum() for f in fusion(leaves, present)).backward()
    assert leaves[1].grad[2].abs().max() == 0
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e12])
@pytest.mark.parametrize("samples", [1, 3])
def test_extreme_features_stay_finite_with_their_gradients(variant: Variant, size: float, samples: int) -> None:
    fusion = module([3] * 6, variant).float().train()
    features = [torch.randn(samples, 3, 2, 2).mul(size).requires_grad_() for _ in range(6)]
    features[2] = torch.zeros(samples, 3, 2, 2, requires_grad=True)
    fused = fusion(features)
    sum(f.sum() for f in fused).backward()
    assert all(f.isfinite().all() for f in fused)
    assert all(f.grad.isfinite().all() for f in features)
    assert all(p.grad.isfinite().all() for p in fusion.parameters())
    assert size == 0 or max(f.abs().max() for f in fused) > 0


def test_the_memory_format_passes_through_and_changes_nothing() -> None:
    fusion, features = module((4, 4)).train(), features_of((4, 4), maps=True)
    with torch.no_grad():
        turned = fusion([f.to(memory_format=torch.channels_last) for f in features])
        torch.testing.assert_close(turned, fusion(features), rtol=0, atol=1e-13)
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in turned)


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1e25])
def test_similarity_at_scales_whose_squares_float32_does_not_hold(scale: float) -> None:
    # rows (1, 2), (2, 1), (0, 0) by hand: R R^T = [[5, 4, 0], [4, 5, 0], [0, 0, 0]], both rows of length sqrt(41)
    rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]]) * scale
    expected = torch.tensor([[5.0, 4.0, 0.0], [4.0, 5.0, 0.0], [0.0, 0.0, 0.0]]) / 41**0.5
    torch.testing.assert_close(_similarities(rows), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast_lowers_nothing_before_the_gate(variant: Variant) -> None:
    fusion = module((4, 4), variant).float().train()
    features = [f.bfloat16() for f in features_of((4, 4), maps=True)]
    with torch.no_grad():
        expected = fusion([f.float() for f in features])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fused = fusion(features)
    assert all(f.dtype is torch.bfloat16 for f in fused)
    for mine, theirs in zip(fused, expected, strict=True):  # two roundings: of the gate and of the product
        torch.testing.assert_close(mine.float(), theirs, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (100.0, 30_000.0),
        (1000.0, 3_000_000.0),  # above float16's 65504
        (65504.0, (65504.0 + 65504.0 + 10_000.0) * 65504.0),  # factors of the product are held to 10000
        (2.0**-24, 3 * 2.0**-48),  # float16's smallest, whose square it does not have
    ],
)
def test_float16_neither_overflows_nor_vanishes(feature: float, expected: float) -> None:
    """One modality, weights 1 and biases 0: each of the three gates is the feature itself."""
    fusion = SPAMFM((1,), variant="paper").eval()
    with torch.no_grad():
        for name, parameter in fusion.named_parameters():
            parameter.fill_(0.0 if "bias" in name else 1.0)
        for shape in ((2, 1), (2, 1, 2, 2)):
            (fused,) = fusion([torch.full(shape, feature, dtype=torch.float16)])
            assert fused.dtype is torch.float32
            torch.testing.assert_close(fused, torch.full(shape, expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_float16_features_at_the_end_of_their_range_have_the_gradients_of_float32(variant: Variant) -> None:
    fusion = module((3, 3), variant).float().train()
    halves = [(f.float().clamp(-1, 1) * 65504).half().requires_grad_() for f in features_of((3, 3), maps=True)]
    floats = [f.detach().float().requires_grad_() for f in halves]
    for mine, theirs in zip(fusion(halves), fusion(floats), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    fusion(floats)[0].mean().backward()
    largest = max(whole.grad.abs().max().item() for whole in floats)
    (fusion(halves)[0].mean() / largest).backward()
    for half, whole in zip(halves, floats, strict=True):  # two roundings, of the feature's share and of the gate's
        torch.testing.assert_close(half.grad.float(), whole.grad / largest, rtol=0, atol=2**-10)


def test_weights_are_saved_and_come_back() -> None:
    torch.manual_seed(5)
    fusion, other = SPAMFM((3, 5), variant="official"), SPAMFM((3, 5), variant="official")
    features = [torch.randn(2, 3), torch.randn(2, 5)]
    other.load_state_dict(fusion.state_dict())
    torch.testing.assert_close(other(features), fusion(features), rtol=0, atol=0)
    assert "variant='official', similarity='identity'" in repr(fusion)


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"variant 'offical' .did you mean 'official'"):
        SPAMFM((4,), variant="offical")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"channels .. to fuse"):
        SPAMFM(())
    fusion = module((4, 4))
    with pytest.raises(ConfigError, match=r"similarity 'bach'.*'batch'"):
        fusion.similarity = "bach"  # type: ignore[assignment]
    features = features_of((4, 4), maps=False)
    with pytest.raises(TrainingError, match=r"features \(4, 4\) to fuse.*c of \(4, 4\)"):
        fusion(features[:1])
    with pytest.raises(TrainingError, match="same b"):
        fusion([features[0], features[1][:2]])
    with pytest.raises(TrainingError, match=r"present \(4, 2\) of torch.float64"):
        fusion(features, torch.ones(4, 2, dtype=torch.float64))
    with pytest.raises(TrainingError, match=r"present \(2, 4\).*Expected \(4, 2\)"):
        fusion(features, torch.ones(2, 4, dtype=torch.bool))


def test_factors_of_the_product_are_bounded_and_missing_ones_are_one() -> None:
    contexts = [torch.tensor([[1e6, 2.0], [3.0, 5.0]]), torch.tensor([[-2.0, 7.0], [0.0, 0.0]])]
    torch.testing.assert_close(_product(contexts, None), torch.tensor([[-2e4, 14.0], [0.0, 0.0]]))
    present = torch.tensor([[True, True], [True, False]])
    torch.testing.assert_close(_product(contexts, present), torch.tensor([[-2e4, 14.0], [3.0, 5.0]]))


def fusion_at_identity(fusion: SPAMFM, features: list[Tensor], present: Tensor | None = None) -> list[Tensor]:
    fusion.similarity = "identity"
    return fusion(features, present)  # type: ignore[no-any-return]


@pytest.mark.parametrize("variant", VARIANTS)
def test_running_is_the_samples_own_feature_at_the_scale_of_training(variant: Variant) -> None:
    """Two equal samples: G has 1 / sqrt 2 everywhere, so G S = sqrt 2 S; two orthogonal ones: G = I."""
    fusion = module((2, 2), variant, similarity="running").train()
    equal, apart = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).double(), torch.eye(2).double()
    with torch.no_grad():
        fusion([equal, apart])
        torch.testing.assert_close(fusion.stretch, torch.tensor([2**0.5, 1.0]).to(fusion.stretch))
        fusion([apart, equal])
        torch.testing.assert_close(fusion.stretch, torch.full((2,), (2**0.5 + 1) / 2).to(fusion.stretch))
        fusion.eval()
        assert fusion.batches.tolist() == [2, 2]
        features = features_of((2, 2), maps=False)
        found = fusion(features)
        at_scale = fusion_at_identity(fusion, [f * (2**0.5 + 1) / 2 for f in features])
        for mine, feature, scaled in zip(found, features, at_scale, strict=True):
            expected = feature * scaled / (feature * (2**0.5 + 1) / 2)
            torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-9)
        fusion.similarity = "running"
        alone = fusion([f[:1] for f in features])
        torch.testing.assert_close(found[0][:1], alone[0])  # no neighbour matters
        other = fusion([features[0], features[1].flip(0)])
        assert not torch.allclose(other[0], found[0])  # but the other sensor does


def test_a_modality_that_nobody_has_is_not_remembered() -> None:
    fusion = module((2, 2), "official", similarity="running").train()
    equal = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).double()
    with torch.no_grad():
        for _ in range(4):
            fusion([equal, equal], torch.tensor([[True, False]] * 2))
        fusion([equal, equal])
    assert fusion.batches.tolist() == [5, 1]
    torch.testing.assert_close(fusion.stretch, torch.full((2,), 2**0.5).to(fusion.stretch))
