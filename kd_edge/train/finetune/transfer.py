"""Which of a source's weights a student takes, and which parts are newly initialised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.backbones import first_convolution, for_channels
from kd_edge.models.heads import RelationHead
from kd_edge.models.layers import mark_new
from kd_edge.models.weights import COUNTER, misfit
from kd_edge.train.finetune.source import BACKBONE, HEAD, Source

_REGRESSION = "regression."
_CLASSIFIERS = ("classifier.", "classifiers.")
_ADDED = "added."
"""Prefix of the names that ``kd_edge.adapt`` adds to a graph."""


@dataclass(slots=True)
class Taken:
    """What happened to a source's weights.

    Attributes:
        state: Name -> weights that the student takes.
        ignored: Why -> number of the source's tensors that have no place in it.
        channels: Input channels of the source and of the student, where they differ.
        head: ``kept``, or why the temporal head is new.
        classes: Classes whose rows of the classifier were taken.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    channels: tuple[int, int] | None = None
    head: str = "kept"
    classes: tuple[str, ...] = ()


def take(model: ClipModel, source: Source, found: Mapping[str, Tensor], labels: Sequence[str]) -> Taken:
    """Load the fitting weights of a source into a student; the rest is reported as new.

    The backbone is taken whole or not at all. The temporal head is taken where it is of the same kind and width, and
    then the classifier's rows of classes of the same name; TRN's relations scale by scale.

    Args:
        model: The student, with its initial weights.
        source: Where the weights are from.
        found: Its weights, with every normalisation.
        labels: The student's classes.

    Raises:
        TrainingError: The backbone is another one, or two classes have one name.
    """
    _check_classes(source, labels)
    taken, own = Taken(), model.state_dict()
    _take_backbone(model, source, found, taken)
    _take_head(model, source, _below(own, HEAD), _below(found, HEAD), labels, taken)
    others = [key for key in found if not key.startswith((BACKBONE, HEAD))]
    added = sum(key.startswith(_ADDED) for key in others)
    taken.ignored["of classes that adapt added behind the classifier"] += added
    taken.ignored["of neither backbone nor head"] += len(others) - added
    taken.ignored = +taken.ignored  # without those of no tensor
    model.load_state_dict(own | taken.state)
    return taken


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _check_classes(source: Source, labels: Sequence[str]) -> None:
    theirs = () if source.facts is None else source.facts.labels
    for whose, names in ((f"of {source.name}", theirs), ("of the recipe's data set", labels)):
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise TrainingError(
                f"two classes {whose} are called '{twice}': rows of a classifier are taken by name",
                "a name of its own for each class",
                "rename one of them",
            )


def fitting_backbone(
    model: ClipModel, source: Source, found: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[int, int] | None]:
    """A source's weights of the backbone, without its regression outputs.

    Args:
        model: The student; its weights do not matter.
        source: Where the weights are from.
        found: Its weights, with every normalisation.

    Returns:
        Them by their names in the backbone, those of other layers too, and the input channels there and here where the
        first convolution was converted.

    Raises:
        TrainingError: They are of another backbone.
    """
    own = _below(model.state_dict(), BACKBONE)
    wanted = {key: value for key, value in own.items() if not key.startswith(_REGRESSION)}
    fitting = {k: value for k, value in _below(found, BACKBONE).items() if not k.startswith(_REGRESSION)}
    first, channels = f"{first_convolution(model.backbone)[0]}.weight", None
    theirs, ours = fitting.get(first), wanted[first].shape[1]
    if theirs is not None and theirs.ndim == 4 and theirs.shape[1] not in (0, ours):
        channels = (theirs.shape[1], ours)
        fitting[first] = for_channels(theirs.float(), ours)
    fault = misfit(wanted, fitting, "backbone", whole=False)
    if fault:
        raise TrainingError(
            f"nothing is taken from {source.name}: its backbone is another one ({fault})",
            "weights of the recipe's student.model.backbone",
            "set student.model.backbone as it is there, or name another source",
        )
    return fitting, channels


def _take_backbone(model: ClipModel, source: Source, found: Mapping[str, Tensor], taken: Taken) -> None:
    fitting, taken.channels = fitting_backbone(model, source, found)
    own, regressed = model.state_dict(), _below(found, BACKBONE + _REGRESSION)
    taken.state |= {BACKBONE + key: value for key, value in fitting.items() if BACKBONE + key in own}
    others = sum(BACKBONE + key not in own for key in fitting)
    if others:
        taken.ignored["of a classifier or other layers that a backbone does not have"] += others
    _take_regression(model, _below(own, BACKBONE + _REGRESSION), regressed, taken)


def _take_regression(model: ClipModel, own: Mapping[str, Tensor], found: Mapping[str, Tensor], taken: Taken) -> None:
    """Regression outputs of a backbone, if their shape fits."""
    if own and all(key in found and found[key].shape == value.shape for key, value in own.items()):
        taken.state |= {BACKBONE + _REGRESSION + key: found[key] for key in own}
        return
    if own:
        mark_new(model.backbone.get_submodule("regression"))
    if found:
        ours, theirs = (sum(v.numel() for key, v in state.items() if key.endswith("bias")) for state in (own, found))
        taken.ignored[f"of {theirs} regressed numbers (student.model.regressed is {ours} here)"] += len(found)


def _take_head(
    model: ClipModel,
    source: Source,
    own: Mapping[str, Tensor],
    found: dict[str, Tensor],
    labels: Sequence[str],
    taken: Taken,
) -> None:
    if isinstance(model.head, RelationHead):
        found = _by_scale(found, own)
    body = {key: value for key, value in own.items() if not key.startswith(_CLASSIFIERS)}
    why = _other_head(model, source, body, found, own)
    if why:
        taken.head = f"new: {why}"
        mark_new(model.head)
        if found:
            taken.ignored["of the head"] += sum(not key.endswith(COUNTER) for key in found)
        return
    taken.state |= {HEAD + key: found[key] for key in body if key in found}
    for path in {key.rpartition(".")[0] for key in body if key not in found and not key.endswith(COUNTER)}:
        mark_new(model.head.get_submodule(path))
    taken.ignored["of relations of other numbers of segments"] += sum(key not in own for key in found)
    if source.facts is None:
        taken.ignored["of a classifier whose classes the file does not name"] += sum(
            key.startswith(_CLASSIFIERS) for key in found
        )
    else:
        _take_rows(source.facts.labels, own, found, labels, taken)
    taken.ignored = +taken.ignored  # without those of no tensor


def _other_head(
    model: ClipModel,
    source: Source,
    body: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> str:
    """Why a source's temporal head does not fit the student; empty if it does."""
    if not found:
        return "the source has none"
    here, there = ({key.partition(".")[0] for key in state} for state in (own, found))
    if here != there:
        kind = "" if source.facts is None else f" ({source.facts.temporal})"
        return f"the source's is of another kind{kind}"
    for key, value in own.items():
        axis = 1 if key.startswith(_CLASSIFIERS) else 0  # of a classifier what it reads: the rows are chosen by name
        if key in found and found[key].shape[axis:] != value.shape[axis:]:
            return f"'{key}' is {tuple(found[key].shape)} in the source, {tuple(value.shape)} here"
    missing = [key for key in body if key not in found and not key.endswith(COUNTER)]
    if missing and not isinstance(model.head, RelationHead):
        return f"the source lacks '{missing[0]}'"
    return ""


def _take_rows(
    theirs: Sequence[str],
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    labels: Sequence[str],
    taken: Taken,
) -> None:
    """Rows of classes of the same name, at any position."""
    classes = [label for label in labels if label in theirs]
    here, there = [labels.index(label) for label in classes], [theirs.index(label) for label in classes]
    for key, value in own.items():
        if key.startswith(_CLASSIFIERS) and key in found and classes and found[key].shape[:1] == (len(theirs),):
            rows = value.clone()
            rows[here] = found[key][there].to(rows)
            taken.state[HEAD + key] = rows
            taken.classes = tuple(classes)


def _by_scale(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TRN's relations, mapped to a head with another number of segments.

    The k-th of T segments' relations are over T - k segments.
    """
    here, there = (len({key for key in state if key.startswith("relate.")}) // 2 for state in (own, found))
    moved: dict[str, Tensor] = {}
    for key, value in found.items():
        kind, _, rest = key.partition(".")
        place, _, leaf = rest.partition(".")
        is_scale = kind in ("relate", "classifiers") and place.isdecimal()
        moved[f"{kind}.{int(place) + here - there}.{leaf}" if is_scale else key] = value
    return moved
