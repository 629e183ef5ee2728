"""The table of losses: what a recipe may name, what each says of itself, and that another one fits in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.train import options
from kd_edge.train.distil.learner import Learner, teach
from kd_edge.train.distil.methods import CorrelationLoss, FeatureMethod, GsdmLoss, Loss, Method, Pair
from kd_edge.train.losses import (
    attention_transfer,
    ccskd_schedule,
    correlation_congruence,
    map_distance,
    mgcam,
    sample_graph,
    semantic_map,
    semantic_preserving,
    semantic_weights,
)
from kd_edge.train.teachers.base import Layer, Places
from kd_edge.train.teachers.images import ImageTeacher, image_places

SHAPES = ((4, 1, 32, 32), (4, 3, 32, 32))


def networks() -> tuple[Any, ImageTeacher]:
    torch.manual_seed(0)
    student = build_model(ModelConfig(backbone="tiny", dropout=0), 1, 3, 4)
    return student, ImageTeacher(build_model(ModelConfig(backbone="resnet10_thin", dropout=0), 3, 3, 4))


def test_the_kinds_their_weights_and_what_sets_them_apart() -> None:
    found = {
        method.kind: (method.weight, method.between_clips, method.needs_vectors, method.shares_adapter, method.blank)
        for method in (kind() for kind in get_args(Loss))
    }
    assert found == {
        "soft_target": (1.0, False, False, False, None),
        "logits": (1.0, False, False, False, None),
        "dkd": (0.1, False, False, False, None),
        "mgcam": (1.0, False, False, False, None),
        "fitnet": (100.0, False, False, False, None),
        "at": (1000.0, False, False, False, None),
        "sp": (3000.0, True, False, False, None),
        "cc": (100.0, True, False, False, None),
        "rkd": (1.0, True, False, False, None),
        "ccskd": (1.0, False, False, False, None),
        "gsdm": (1.0, False, True, False, "zeros"),
        "semantic": (1.0, False, False, True, None),
        "contrastive": (1.0, True, False, False, None),
    }


@pytest.mark.parametrize(
    ("options", "weight"),
    [({}, 100.0), ({"variant": "rbf"}, 100.0), ({"variant": "delta"}, 0.02), ({"variant": "delta", "weight": 1}, 1.0)],
)
def test_correlation_congruence_weighs_what_its_variants_own_code_does(options: dict[str, Any], weight: float) -> None:
    assert CorrelationLoss.model_validate(options).weight == CorrelationLoss(**options).weight == weight


LAYERS = ("backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4")


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("soft_target", ()),
        ("logits", ()),
        ("dkd", ()),
        ("mgcam", LAYERS),
        ("fitnet", LAYERS[1:2]),
        ("at", LAYERS),
        ("sp", LAYERS[3:]),
        ("cc", ("backbone",)),
        ("rkd", ("backbone",)),
        ("ccskd", LAYERS),
        ("gsdm", ("backbone.relu", *LAYERS)),
        ("semantic", ("backbone",)),
        ("contrastive", ("backbone",)),
    ],
)
def test_each_papers_own_layers(kind: str, layers: tuple[str, ...]) -> None:
    method = next(made for made in (loss() for loss in get_args(Loss)) if made.kind == kind)
    assert method.layers(networks()[1].places, "teacher") == layers
    assert [tap.path for tap in method.taps(networks()[1].places, "teacher")] == list(layers)


def test_reading_a_recipe_imports_no_torch() -> None:
    code = (
        "import sys, kd_edge.train.recipe, kd_edge.train.distil.methods; "
        "print([m for m in ('torch', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class AgreementLoss(FeatureMethod):
    """A loss of somebody's own: one class, with settings, layers, adapter and value."""

    needs_vectors: ClassVar[bool] = False
    kind: Literal["agreement"] = "agreement"
    factor: float = 2.0

    def own_layers(self, places: Places, who: str) -> tuple[str, ...]:
        return (places.feature,)

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        return nn.Linear(*mine[0].shape, *theirs[0].shape)

    def value(self, pair: Pair) -> Tensor:
        return self.factor * (pair.adapter(pair.mine[0]) - pair.theirs[0]).abs().mean()


def test_another_loss_is_one_class() -> None:
    student, teacher = networks()
    learner = Learner(student, [AgreementLoss(weight=3.0, warmup_epochs=2)], teacher, SHAPES).eval()
    clip, labels = torch.randn(2, 4, 1, 32, 32), torch.tensor([0, 2])
    seen = teach(teacher, torch.randn(2, 4, 3, 32, 32), learner.teacher_taps)
    values, _ = learner(clip, labels, seen, 1)
    linear = learner.terms["agreement"].adapters[0]
    with torch.no_grad():
        features = student.backbone(clip.flatten(0, 1)).reshape(2, 4, -1).mean(dim=1)
        (theirs,) = seen[0].taps.values()
        expected = 2 * (features @ linear.weight.T + linear.bias - theirs).abs().mean()
    torch.testing.assert_close(values["agreement"], expected)
    torch.testing.assert_close(values["total"], values["ce"] + 1.5 * values["agreement"])  # half of 3 in epoch 1 of 2
    assert learner.weights(1) == {"agreement": 1.5}
    assert learner.weights(2) == {"agreement": 3.0}


def test_a_loss_as_it_stands_looks_at_nothing_and_must_have_a_value() -> None:
    class Idle(Method):
        kind: Literal["idle"] = "idle"

    with pytest.raises(TypeError, match=r"abstract method '?value"):
        Idle()

    class Constant(Idle):
        def value(self, pair: Pair) -> torch.Tensor:
            return torch.tensor(2.5)

    student, teacher = networks()
    learner = Learner(student, [Constant()], teacher, SHAPES)
    assert (learner.student_layers, learner.teacher_taps, list(learner.terms.parameters())) == ({}, (), [])
    seen = teach(teacher, torch.randn(2, 4, 3, 32, 32), ())
    values, _ = learner(torch.randn(2, 4, 1, 32, 32), torch.tensor([0, 1]), seen)
    assert values["idle"] == 2.5


def test_losses_need_somebody_who_teaches_and_is_looked_at() -> None:
    student, teacher = networks()
    with pytest.raises(TrainingError, match="losses without a teacher"):
        Learner(student, [AgreementLoss()])
    learner = Learner(student, [AgreementLoss()], teacher, SHAPES)
    with pytest.raises(TrainingError, match="without the teachers' observations"):
        learner(torch.randn(2, 4, 1, 32, 32), torch.tensor([0, 1]))


def test_gsdm_needs_class_vectors() -> None:
    student, teacher = networks()
    learner = Learner(student, [GsdmLoss()], teacher, SHAPES)
    seen = teach(teacher, torch.randn(2, 4, 3, 32, 32), learner.teacher_taps, ablate=True)
    with pytest.raises(TrainingError, match="without vectors of the class names"):
        learner(torch.randn(2, 4, 1, 32, 32), torch.tensor([0, 1]), seen)
    unblanked = teach(teacher, torch.randn(2, 4, 3, 32, 32), learner.teacher_taps)
    with pytest.raises(TrainingError, match="ablate=True"):
        _ = unblanked[0].of_blank


MAPS = [torch.rand(2, 3, 4, 4)]


@pytest.mark.parametrize(
    ("choices", "call"),
    [
        (options.Scale, lambda wrong: sample_graph(MAPS[0], scale=wrong)),
        (options.Graph, lambda wrong: mgcam(MAPS, MAPS, graph=wrong)),
        (options.Align, lambda wrong: mgcam(MAPS, MAPS, align=wrong)),
        (options.Reduction, lambda wrong: mgcam(MAPS, MAPS, reduction=wrong)),
        (options.Pairs, lambda wrong: mgcam(MAPS, MAPS, pairs=wrong)),
        (options.AttentionVariant, lambda wrong: attention_transfer(MAPS, MAPS, variant=wrong)),
        (options.CorrelationVariant, lambda wrong: correlation_congruence(MAPS[0], MAPS[0], variant=wrong)),
        (options.CcskdVariant, lambda wrong: ccskd_schedule(wrong)),
        (options.Slope, lambda wrong: semantic_weights(*torch.ones(3, 2, 2), slope=wrong)),
        (options.ClassEmbedding, lambda wrong: semantic_weights(*torch.ones(3, 2, 2), embedding=wrong)),
        (options.Weighting, lambda wrong: semantic_map(MAPS[0], torch.ones(2, 3), weighting=wrong)),
        (options.Reduction, lambda wrong: map_distance([MAPS[0][:, 0]], [MAPS[0][:, 0]], reduction=wrong)),
        (options.Reduction, lambda wrong: semantic_preserving(MAPS[0][:, 0, 0], MAPS[0][:, 0, 0], reduction=wrong)),
    ],
)
def test_functions_offer_what_recipes_offer(choices: Any, call: Any) -> None:
    for choice in get_args(choices):
        call(choice)
    with pytest.raises(TrainingError) as caught:
        call("nothing")
    assert caught.value.expected == f"one of {', '.join(get_args(choices))}"


def test_the_students_places() -> None:
    places = image_places(build_model(ModelConfig(backbone="tiny", temporal="trn"), 1, 3, 4))
    assert places.stages == LAYERS
    assert places.blocks == (LAYERS[0], *LAYERS)
    assert (places.feature, places.semantic) == ("backbone", "head.project")
    with pytest.raises(TrainingError, match=r"no layer 'backbone\.layr1'"):
        places.check("backbone.layr1")
