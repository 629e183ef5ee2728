"""A model that grows by one class: fitted, told apart from all that it knows, proved on clips that were left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import ValidationError

from kd_edge.adapt.clips import Watched
from kd_edge.adapt.gate import Gate, Others, Scored, fit_gate, gated
from kd_edge.adapt.graph import with_class
from kd_edge.artifact import AddedClass, Manifest, wire
from kd_edge.errors import DataError
from kd_edge.health import Familiarity, FeatureReference
from kd_edge.types import Float32, Int64

LEAST_CLIPS = 4
"""Of a new class: from fewer nobody can tell how they differ."""
MOST_FOLDS = 10
LEAST_SEPARATION = 1.28
"""So many standard deviations from the limit, one in ten windows of a side lies beyond it."""
LEAST_ACCURACY = 0.7
"""Share of a new class's clips that what was fitted without them must name right."""
MOST_LOST = 0.01
"""Share of kept clips that may become wrong."""
_RECORD_OTHERS = "record actions that differ more, or more people; else train with clips of both (kd-edge train)"


class Grown(NamedTuple):
    """A model on its way.

    Attributes:
        graph: Serialised.
        manifest: Of the graph, without hashes.
        others: What its classes' features are like.
        kept: Clips to keep; None without any.
        known: The same, as they were called before any class of this call was added.
        new: Clips of each class that was added, as they are called by what was fitted without them.
        gates: Rows of the classes that were added.
    """

    graph: bytes
    manifest: Manifest
    others: Others
    kept: Watched | None
    known: Watched | None
    new: tuple[Watched, ...] = ()
    gates: tuple[Gate, ...] = ()

    @property
    def seen(self) -> tuple[Watched, ...]:
        """All clips at hand."""
        return self.new if self.kept is None else (self.kept, *self.new)


def grow(grown: Grown, label: str, new: Watched, path: Path, *, force: bool) -> Grown:
    """A model with one more class.

    Args:
        grown: The model so far.
        label: Name of the class.
        new: Its clips, as the artifact's engine sees them.
        path: The artifact, for messages.
        force: Whether it may take kept clips for itself.

    Raises:
        ArtifactError: The artifact's features or its graph cannot be added to.
        DataError: The clips are too few, or the class cannot be told from another one.
    """
    manifest, position = grown.manifest, len(grown.manifest.labels)
    for gate in grown.gates:  # of this call: the artifact's engine does not know them
        new = _answered(new, gate, manifest)
    _check_enough(label, new, manifest)
    folds, kind = _folds(new)
    with _undamaged(path):
        fit = fit_gate(grown.others, new.features, folds, _scored(grown.seen) if grown.seen else None)
        familiar, share = _familiar(manifest.familiar, new, folds)
        graph = with_class(grown.graph, fit.gate, manifest)
    nearest = manifest.labels[fit.nearest]
    held_out = new._replace(logits=gated(new.logits, fit.held_out, manifest.temperature))
    _check_told_apart(label, nearest, fit.separation, held_out.answers(), position)
    kept = None if grown.kept is None else _answered(grown.kept, fit.gate, manifest)
    if grown.known is not None and kept is not None and not force:
        _check_kept(label, grown.known, kept, manifest)
    earlier = tuple(_answered(one, fit.gate, manifest) for one in grown.new)
    for one, name in zip(earlier, manifest.labels[position - len(earlier) :], strict=True):
        _check_left(label, name, one)
    facts = AddedClass(
        label=label,
        parent_sha256=manifest.sha256,
        clips=len(new.labels),
        shorter=new.shorter,
        empty=new.empty,
        windows=len(new.features),
        accuracy=held_out.accuracy(),
        folds=kind,
        nearest=nearest,
        separation=round(fit.separation, 3),
        familiar=share,
        healthy=float(new.healthy.mean()),
        kept_clips=0 if kept is None else len(kept.labels),
        kept_accuracy=None if kept is None or grown.kept is None else (grown.kept.accuracy(), kept.accuracy()),
    )
    update = {"labels": (*manifest.labels, label), "familiar": familiar, "added": (*manifest.added, facts)}
    return Grown(
        graph=graph,
        manifest=manifest.model_copy(update=update),
        others=grown.others.joined_by(new.features.mean(axis=0, dtype=np.float64)),
        kept=kept,
        known=grown.known,
        new=(*earlier, held_out),
        gates=(*grown.gates, fit.gate),
    )


def _answered(watched: Watched, gate: Gate, manifest: Manifest) -> Watched:
    """Clips with the logit of one more class."""
    return watched._replace(logits=gated(watched.logits, gate(watched.features), manifest.temperature))


def _check_enough(label: str, new: Watched, manifest: Manifest) -> None:
    if len(new.labels) < LEAST_CLIPS:
        raise DataError(
            f"{len(new.labels)} clips of '{label}' fill the model's window of {manifest.clip_seconds:g} s "
            f"({new.shorter} are shorter"
            + (f", in {new.empty} there is nothing to see: {new.cause})" if new.empty else ")"),
            f"at least {LEAST_CLIPS}, better 20 of several people",
            "record more",
        )


def _folds(new: Watched) -> tuple[Int64, Literal["subjects", "clips"]]:
    """(N,) which part each window belongs to, and what is left out in turn: people, where several are known."""
    people = sorted(set(new.subjects))
    by_subject = all(new.subjects) and len(people) > 1
    of_clip = [people.index(s) for s in new.subjects] if by_subject else list(range(len(new.labels)))
    return np.array(of_clip, dtype=np.int64)[new.clips] % MOST_FOLDS, "subjects" if by_subject else "clips"


def _scored(seen: Sequence[Watched]) -> Scored:
    return Scored(np.concatenate([k.features for k in seen]), np.concatenate([k.window_labels for k in seen]))


def _check_told_apart(label: str, nearest: str, separation: float, answers: Int64, position: int) -> None:
    """Refuse a class whose clips look like another one's.

    Raises:
        DataError: They do; the other one is named.
    """
    right = int((answers == position).sum())
    if right < LEAST_ACCURACY * len(answers):
        raise DataError(
            f"'{label}' cannot be told from '{nearest}': fitted without them, {right} of {len(answers)} clips are "
            "named right",
            f"at least {LEAST_ACCURACY:.0%}",
            _RECORD_OTHERS,
        )
    if separation < LEAST_SEPARATION:
        raise DataError(
            f"'{label}' cannot be told from '{nearest}': both lie {separation:.2f} standard deviations from the limit "
            "between them",
            f"at least {LEAST_SEPARATION}",
            _RECORD_OTHERS,
        )


def _check_left(label: str, name: str, after: Watched) -> None:
    """Refuse a class that takes the clips of another one that was added before it in this call.

    Raises:
        DataError: It does.
    """
    right = int((after.answers() == after.labels).sum())
    if right < LEAST_ACCURACY * len(after.labels):
        raise DataError(
            f"'{label}' cannot be told from '{name}': with it {right} of {len(after.labels)} clips of '{name}' are "
            "named right",
            f"at least {LEAST_ACCURACY:.0%}",
            _RECORD_OTHERS,
        )


def _check_kept(label: str, before: Watched, after: Watched, manifest: Manifest) -> None:
    """Refuse a class that takes kept clips for itself.

    Raises:
        DataError: It does; the class that loses most is named.
    """
    right = [int((watched.answers() == watched.labels).sum()) for watched in (before, after)]
    if right[0] - right[1] <= MOST_LOST * len(before.labels):
        return
    was, now = before.accuracy(), after.accuracy()
    lost = before.labels[(before.answers() == before.labels) & (after.answers() != before.labels)]
    name = manifest.labels[int(np.bincount(lost).argmax())]
    raise DataError(
        f"with '{label}' {now:.1%} of {len(before.labels)} kept clips are named right instead of {was:.1%}: "
        f"{len(lost)} become '{label}', of '{name}' above all",
        f"at most {MOST_LOST:.0%} less",
        "record more clips of the new class, of the people and cameras of the kept ones; or --force",
    )


def _familiar(
    reference: FeatureReference | None, new: Watched, folds: Int64
) -> tuple[FeatureReference | None, float | None]:
    """A reference with the new class, its limit as it was, and the share of windows that are familiar by it.

    That share is by means of the new class without the window's fold.
    """
    if reference is None:
        return None, None
    none = np.empty((0, reference.size), dtype=np.float32)
    scores = np.empty(len(folds))
    for part in np.unique(folds):
        its = folds == part
        familiarity = Familiarity(_joined(reference, new.features[~its]))
        scores[its] = [familiarity.score(none, feature) for feature in new.features[its]]
    return _joined(reference, new.features), float((scores <= 1).mean())


def _joined(reference: FeatureReference, features: Float32) -> FeatureReference:
    """A reference with the class of windows (N, D)."""
    means, deviation, directions = reference.arrays()
    means = np.vstack([means, features.mean(axis=0)])
    joined = FeatureReference.of(
        means, deviation, directions, np.array(reference.variances, dtype=np.float32), reference.rest
    )
    kept = reference.model_dump(include={"variances", "rest", "threshold", "fitted_on", "clips", "windows"})
    return joined.model_copy(update=kept)


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """What an artifact says of its features, or its graph, cannot be added to: it was made elsewhere, or damaged."""
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is refused
            yield
    except ValidationError as error:
        raise wire.damaged(path, f"its features cannot be added to: {error.errors()[0]['msg']}") from error
    except ValueError as error:
        raise wire.damaged(path, f"it cannot be extended: {error}") from error
