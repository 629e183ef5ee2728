"""Add one class to a model: fit its row, check that it is distinguishable, evaluate it on held-out clips."""

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
"""Clips that a new class needs; fewer do not show how its clips vary."""
MOST_FOLDS = 10
LEAST_SEPARATION = 1.28
"""At this many standard deviations from the limit, one in ten windows lies on the wrong side."""
LEAST_ACCURACY = 0.7
"""Share of a new class's held-out clips that have to be recognised."""
MOST_LOST = 0.01
"""Share of kept clips that may become wrong."""
_RECORD_OTHERS = "record actions that differ more, or more people; otherwise train with clips of both (kd-edge train)"


class Grown(NamedTuple):
    """A model to which classes are being added.

    Attributes:
        graph: The serialised graph.
        manifest: Manifest of the graph, without hashes.
        others: Feature statistics of its classes.
        kept: Clips to keep, with the logits of the model so far; None without any.
        known: The same clips with the logits before this call added a class.
        new: Clips of each added class, with held-out logits.
        gates: Rows of the added classes.
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
        """All clips: kept and new."""
        return self.new if self.kept is None else (self.kept, *self.new)


def grow(grown: Grown, label: str, new: Watched, path: Path, *, force: bool) -> Grown:
    """Return a model with one more class.

    Args:
        grown: The model so far.
        label: Name of the class.
        new: Its clips, with the logits of the original artifact.
        path: The artifact, for messages.
        force: Allow the class to claim kept clips.

    Raises:
        ArtifactError: The artifact's feature statistics or graph cannot be extended.
        DataError: The clips are too few, or the class cannot be distinguished from another one.
    """
    manifest, position = grown.manifest, len(grown.manifest.labels)
    for gate in grown.gates:  # classes of this call, unknown to the artifact's engine
        new = _answered(new, gate, manifest)
    _check_enough(label, new, manifest)
    folds, kind = _folds(new)
    with _undamaged(path):
        fit = fit_gate(grown.others, new.features, folds, _scored(grown.seen) if grown.seen else None)
        familiar, share = _familiar(manifest.familiar, new, folds)
        graph = with_class(grown.graph, fit.gate, manifest)
    nearest = manifest.labels[fit.nearest]
    held_out = new._replace(logits=gated(new.logits, fit.held_out, manifest.temperature))
    _check_distinguishable(label, nearest, fit.separation, held_out.answers(), position)
    kept = None if grown.kept is None else _answered(grown.kept, fit.gate, manifest)
    if grown.known is not None and kept is not None and not force:
        _check_kept(label, grown.known, kept, manifest)
    earlier = tuple(_answered(clips, fit.gate, manifest) for clips in grown.new)
    for clips, name in zip(earlier, manifest.labels[position - len(earlier) :], strict=True):
        _check_left(label, name, clips)
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
    """The clips with the logit of one more class appended."""
    return watched._replace(logits=gated(watched.logits, gate(watched.features), manifest.temperature))


def _check_enough(label: str, new: Watched, manifest: Manifest) -> None:
    if len(new.labels) < LEAST_CLIPS:
        raise DataError(
            f"{len(new.labels)} clips of '{label}' fill the model's window of {manifest.clip_seconds:g} s "
            f"({new.shorter} are shorter" + (f", {new.empty} show nothing: {new.cause})" if new.empty else ")"),
            f"at least {LEAST_CLIPS}, preferably 20 of several people",
            "record more",
        )


def _folds(new: Watched) -> tuple[Int64, Literal["subjects", "clips"]]:
    """(N,) fold of each window, and the unit of the folds: people if several are known, otherwise clips."""
    people = sorted(set(new.subjects))
    by_subject = all(new.subjects) and len(people) > 1
    of_clip = [people.index(s) for s in new.subjects] if by_subject else list(range(len(new.labels)))
    return np.array(of_clip, dtype=np.int64)[new.clips] % MOST_FOLDS, "subjects" if by_subject else "clips"


def _scored(seen: Sequence[Watched]) -> Scored:
    return Scored(np.concatenate([k.features for k in seen]), np.concatenate([k.window_labels for k in seen]))


def _check_distinguishable(label: str, nearest: str, separation: float, answers: Int64, position: int) -> None:
    """Check that a class does not look like another one.

    Raises:
        DataError: It does; the other class is named.
    """
    right = int((answers == position).sum())
    if right < LEAST_ACCURACY * len(answers):
        raise DataError(
            f"'{label}' cannot be distinguished from '{nearest}': of its held-out clips {right} of "
            f"{len(answers)} are recognised",
            f"at least {LEAST_ACCURACY:.0%}",
            _RECORD_OTHERS,
        )
    if separation < LEAST_SEPARATION:
        raise DataError(
            f"'{label}' cannot be distinguished from '{nearest}': both are {separation:.2f} standard deviations from "
            "the limit between them",
            f"at least {LEAST_SEPARATION}",
            _RECORD_OTHERS,
        )


def _check_left(label: str, name: str, after: Watched) -> None:
    """Check that a class does not claim the clips of one added earlier in this call.

    Raises:
        DataError: It does.
    """
    right = int((after.answers() == after.labels).sum())
    if right < LEAST_ACCURACY * len(after.labels):
        raise DataError(
            f"'{label}' cannot be distinguished from '{name}': with it {right} of {len(after.labels)} clips of "
            f"'{name}' are recognised",
            f"at least {LEAST_ACCURACY:.0%}",
            _RECORD_OTHERS,
        )


def _check_kept(label: str, before: Watched, after: Watched, manifest: Manifest) -> None:
    """Check that a class does not claim kept clips.

    Raises:
        DataError: It does; the class that loses most clips is named.
    """
    right = [int((watched.answers() == watched.labels).sum()) for watched in (before, after)]
    if right[0] - right[1] <= MOST_LOST * len(before.labels):
        return
    was, now = before.accuracy(), after.accuracy()
    lost = before.labels[(before.answers() == before.labels) & (after.answers() != before.labels)]
    name = manifest.labels[int(np.bincount(lost).argmax())]
    raise DataError(
        f"with '{label}' {now:.1%} of {len(before.labels)} kept clips are recognised instead of {was:.1%}: "
        f"{len(lost)} become '{label}', most of them clips of '{name}'",
        f"a loss of at most {MOST_LOST:.0%}",
        "record more clips of the new class with the people and cameras of the kept ones, or use --force",
    )


def _familiar(
    reference: FeatureReference | None, new: Watched, folds: Int64
) -> tuple[FeatureReference | None, float | None]:
    """The reference with the new class and an unchanged limit, and the share of new windows that are familiar.

    Each window is scored by a mean of the new class that excludes the window's fold.
    """
    if reference is None:
        return None, None
    none = np.empty((0, reference.size), dtype=np.float32)
    scores = np.empty(len(folds))
    for part in np.unique(folds):
        is_held_out = folds == part
        familiarity = Familiarity(_joined(reference, new.features[~is_held_out]))
        scores[is_held_out] = [familiarity.score(none, feature) for feature in new.features[is_held_out]]
    return _joined(reference, new.features), float((scores <= 1).mean())


def _joined(reference: FeatureReference, features: Float32) -> FeatureReference:
    """The reference with one more class, given its windows (N, D)."""
    means, deviation, directions = reference.arrays()
    means = np.vstack([means, features.mean(axis=0)])
    joined = FeatureReference.of(
        means, deviation, directions, np.array(reference.variances, dtype=np.float32), reference.rest
    )
    kept = reference.model_dump(include={"variances", "rest", "threshold", "fitted_on", "clips", "windows"})
    return joined.model_copy(update=kept)


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Report statistics or a graph that cannot be extended as a damaged or foreign artifact."""
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # results that are not finite are refused
            yield
    except ValidationError as error:
        raise wire.damaged(path, f"its features cannot be added to: {error.errors()[0]['msg']}") from error
    except ValueError as error:
        raise wire.damaged(path, f"it cannot be extended: {error}") from error
