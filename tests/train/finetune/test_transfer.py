"""What a student takes of a source: the backbone whole, a head that fits, rows of classes of the same name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel, ModelConfig, build_model
from kd_edge.models.backbones import add_regression, build_backbone, for_channels
from kd_edge.models.layers import is_new
from kd_edge.preprocess import Preprocess
from kd_edge.train.finetune.source import Facts, Source
from kd_edge.train.finetune.transfer import Taken, take

LABELS = ("sit", "wave", "clap")


def student(
    seed: int, classes: int = 3, *, segments: int = 4, channels: int = 1, temporal: str = "tconv", **model: Any
) -> ClipModel:
    torch.manual_seed(seed)
    values = {"backbone": "tiny", "temporal": temporal, "hidden": 8, "bottleneck": 6, "relation_hidden": 5, **model}
    built = build_model(ModelConfig.model_validate(values), channels, classes, segments)
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.get_buffer("running_mean").uniform_(-0.3, 0.3)
    return built


def source_of(model: ClipModel, labels: tuple[str, ...] | None = LABELS, temporal: str = "tconv") -> Source:
    facts = None
    if labels is not None:
        facts = Facts(labels, Preprocess(), "nir", 4, 2.0, temporal, "synthetic", "subjects")
    return Source("there", "run", "0" * 64, model.state_dict(), facts)


def taken(model: ClipModel, source: Source, labels: tuple[str, ...] = LABELS) -> Taken:
    return take(model, source, source.weights, labels)


def head_of(model: ClipModel) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.head.state_dict().items()}


def test_the_same_student_is_taken_whole_and_answers_alike() -> None:
    there, here = student(1).eval(), student(2)
    found = taken(here, source_of(there))
    clip = torch.randn(2, 4, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(here.eval()(clip), there(clip))
    assert (found.head, found.classes, dict(found.ignored), found.channels) == ("kept", LABELS, {}, None)
    assert found.state.keys() == here.state_dict().keys()


def test_rows_of_classes_go_by_name_and_the_others_begin_anew() -> None:
    there, here = student(1), student(2, 4)
    before = head_of(here)
    found = taken(here, source_of(there), ("clap", "jump", "sit", "nod"))
    after, theirs = here.head.state_dict(), there.head.state_dict()
    for key in ("classifier.weight", "classifier.bias"):
        assert torch.equal(after[key][0], theirs[key][2])  # clap
        assert torch.equal(after[key][2], theirs[key][0])  # sit
        assert torch.equal(after[key][[1, 3]], before[key][[1, 3]])
    assert torch.equal(after["convolution1.weight"], theirs["convolution1.weight"])
    assert found.classes == ("clap", "sit")
    assert not is_new(here.head.get_submodule("convolution1"))


def test_classes_in_another_order_change_the_order_of_the_logits_alone() -> None:
    there, here = student(1).eval(), student(2)
    taken(here, source_of(there), ("clap", "sit", "wave"))
    clip = torch.randn(2, 4, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(here.eval()(clip), there(clip)[:, [2, 0, 1]], atol=1e-6)


def test_a_head_of_another_kind_or_width_begins_anew() -> None:
    for changes, why in (
        ({"temporal": "tsn"}, "of another kind (tsn)"),
        ({"hidden": 16}, "'convolution1.weight' is (16, 24, 3) in the source, (8, 24, 3) here"),
    ):
        there, here = student(1, **changes), student(2)
        before = head_of(here)
        found = taken(here, source_of(there, temporal=changes.get("temporal", "tconv")))
        assert found.head.startswith("new: ")
        assert why in found.head
        assert all(torch.equal(value, before[key]) for key, value in here.head.state_dict().items())
        assert found.classes == ()
        assert is_new(here.head)
        assert is_new(here.head.get_submodule("convolution1"))
        assert found.ignored["of the head"] == sum("num_batches" not in key for key in there.head.state_dict())


def test_a_classifier_of_the_same_size_behind_another_head_is_not_taken() -> None:
    there, here = student(1, temporal="tsn"), student(2, hidden=24)  # both read 24 values
    before = head_of(here)
    taken(here, source_of(there, temporal="tsn"))
    assert torch.equal(here.head.state_dict()["classifier.weight"], before["classifier.weight"])


def test_relations_are_taken_scale_by_scale() -> None:
    there, here = student(1, segments=5, temporal="trn"), student(2, segments=3, temporal="trn")
    found = taken(here, source_of(there, temporal="trn"))
    mine, theirs = here.head.state_dict(), there.head.state_dict()
    for here_at, there_at in ((0, 2), (1, 3)):  # over 3 segments, and over 2
        for part in ("relate", "classifiers"):
            assert torch.equal(mine[f"{part}.{here_at}.weight"], theirs[f"{part}.{there_at}.weight"])
    assert torch.equal(mine["project.weight"], theirs["project.weight"])
    assert found.ignored["of relations of other numbers of segments"] == 8
    more = student(3, segments=6, temporal="trn")
    before = head_of(more)
    taken(more, source_of(there, temporal="trn"))
    assert torch.equal(more.head.state_dict()["relate.0.weight"], before["relate.0.weight"])  # over 6
    assert torch.equal(more.head.state_dict()["relate.1.weight"], theirs["relate.0.weight"])  # over 5
    assert is_new(more.head.get_submodule("relate.0"))
    assert not is_new(more.head.get_submodule("relate.1"))


def test_a_file_names_no_classes_so_its_rows_stay_away() -> None:
    there, here = student(1), student(2)
    before = head_of(here)
    found = taken(here, source_of(there, None))
    assert torch.equal(here.head.state_dict()["convolution2.weight"], there.head.state_dict()["convolution2.weight"])
    assert torch.equal(here.head.state_dict()["classifier.weight"], before["classifier.weight"])
    assert dict(found.ignored) == {"of a classifier whose classes the file does not name": 2}


def test_regressed_numbers_are_taken_where_there_are_as_many() -> None:
    there, same, fewer, none = (student(k, regressed=n) for k, n in ((1, 5), (2, 5), (3, 4), (4, 0)))
    taken(same, source_of(there))
    mine, theirs = same.backbone.state_dict(), there.backbone.state_dict()
    assert torch.equal(mine["regression.numbers.weight"], theirs["regression.numbers.weight"])
    found = taken(fewer, source_of(there))
    assert is_new(fewer.backbone.get_submodule("regression.numbers"))
    assert found.ignored["of 5 regressed numbers (student.model.regressed is 4 here)"] == 2
    assert found.head.startswith("new: 'convolution1.weight' is (8, 29, 3)")
    assert taken(none, source_of(there)).ignored["of 5 regressed numbers (student.model.regressed is 0 here)"] == 2


def test_torchvisions_names_are_of_a_backbone_and_its_classifier_is_left() -> None:
    backbone = build_backbone("resnet18", in_channels=3)
    weights = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    weights |= {"backbone.fc.weight": torch.zeros(1000, 512), "backbone.fc.bias": torch.zeros(1000)}
    here = build_model(ModelConfig(backbone="resnet18", temporal="tsn"), 3, 3, 4)
    found = taken(here, Source("resnet18.pth", "file", "0" * 64, weights))
    frames = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(here.backbone.eval()(frames), backbone.eval()(frames))
    assert found.head == "new: the source has none"
    assert dict(found.ignored) == {"of a classifier or other layers that a backbone does not have": 2}


# ------------------------------------------------------------------------------------------------------- channels


def test_channels_are_added_up_repeated_or_shared() -> None:
    weight = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    cases = {1: [9.0], 2: [4.5, 4.5], 6: [0.5, 1.0, 3.0, 0.5, 1.0, 3.0]}
    for channels, expected in cases.items():
        assert for_channels(weight, channels).flatten().tolist() == expected
    nine = torch.arange(9.0).reshape(1, 9, 1, 1)  # three colour frames to one: 0 + 3 + 6, 1 + 4 + 7, 2 + 5 + 8
    assert for_channels(nine, 3).flatten().tolist() == [9.0, 12.0, 15.0]
    assert for_channels(torch.tensor([6.0]).reshape(1, 1, 1, 1), 3).flatten().tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(("there", "here"), [(3, 1), (1, 3), (3, 9), (9, 3), (9, 1), (3, 2), (2, 3)])
def test_equal_channels_give_what_they_gave(there: int, here: int) -> None:
    theirs, mine = student(1, channels=there).eval(), student(2, channels=here)
    assert taken(mine, source_of(theirs)).channels == (there, here)
    frame = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        features = [m.backbone.eval()(frame.expand(-1, n, -1, -1)) for m, n in ((theirs, there), (mine, here))]
    torch.testing.assert_close(features[1], features[0], atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------ bad input


def refused(model: ClipModel, source: Source, labels: tuple[str, ...] = LABELS) -> str:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(TrainingError) as caught:
        taken(model, source, labels)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_backbone_is_refused() -> None:
    said = refused(student(1), source_of(student(2, backbone="resnet10_thin")))
    assert said.startswith("nothing is taken from there: its backbone is another one (")
    assert "student.model.backbone" in said


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (("sit", "sit", "clap"), LABELS, "two classes of there are called 'sit'"),
        (LABELS, ("sit", "clap", "clap"), "two classes of the recipe's data set are called 'clap'"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(
    theirs: tuple[str, ...], ours: tuple[str, ...], said: str
) -> None:
    assert said in refused(student(1), source_of(student(2), theirs), ours)


def test_what_adapt_added_is_counted_apart_from_other_layers() -> None:
    source = source_of(student(1))
    more = dict(source.weights) | {
        "added.3.own.weight": torch.zeros(1, 16), "added.3.own.bias": torch.zeros(1), "probe.weight": torch.zeros(2),
    }  # fmt: skip
    found = take(student(2), source, more, LABELS)
    assert found.classes == LABELS
    assert dict(found.ignored) == {
        "of classes that adapt added behind the classifier": 2,
        "of neither backbone nor head": 1,
    }


def test_a_classifier_without_rows_is_left_alone() -> None:
    there, here = student(1), student(2)
    odd = source_of(there)
    weights = dict(odd.weights) | {"head.classifier.bias": torch.tensor(1.0)}
    before = head_of(here)
    found = take(here, odd, weights, LABELS)
    assert torch.equal(here.head.state_dict()["classifier.bias"], before["classifier.bias"])
    assert "head.classifier.bias" not in found.state


def test_a_regression_alone_is_no_backbone() -> None:
    model = student(1)
    add_regression(model.backbone, 4)
    only = {key: value for key, value in model.state_dict().items() if "regression" in key}
    assert "nothing is taken" in refused(student(2), Source("there", "file", "0" * 64, only))
