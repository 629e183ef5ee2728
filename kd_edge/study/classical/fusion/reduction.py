"""Clips reduced to one array each, kept on disk: decoding takes minutes, what follows takes seconds.

``<cache root>/reduced-<data set>-<modality>-<key>.npz`` has the values of all clips that could be read, and why the
others could not.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge.data import Dataset, Sample
from kd_edge.errors import DataError
from kd_edge.files import cache_root, replacing
from kd_edge.study.classical.results import Progress
from kd_edge.types import Clip, Float32

_VERSION = 1  # of what the reductions compute


@dataclass(frozen=True)
class Reduced:
    """One array per clip.

    Attributes:
        values: Sample id -> (...) float32, the same shape for all.
        skipped: Sample id -> why it has none.
        fingerprint: SHA-256 (hex) of the recordings' content and the settings.
    """

    values: dict[str, Float32]
    skipped: dict[str, str]
    fingerprint: str


def reduce_clips(
    dataset: Dataset,
    samples: Sequence[Sample],
    modality: str,
    reduce: Callable[[Clip], Float32],
    settings: Mapping[str, Any],
    report: Progress,
) -> Reduced:
    """Reduce every clip of one modality, or read what was reduced before.

    Args:
        dataset: Data set that the clips come from.
        samples: Samples of the clips.
        modality: Modality of the clips.
        reduce: A clip's array; a DataError of it leaves the clip out.
        settings: Plain values that decide what ``reduce`` computes.
        report: Called with (what, done, in all) as the work goes on.
    """
    key = _fingerprint(dataset, samples, modality, settings)
    path = cache_root() / f"reduced-{dataset.name}-{modality}-{key[:16]}.npz"
    known = _read(path, key)
    if known is not None:
        return known
    values: dict[str, Float32] = {}
    skipped: dict[str, str] = {}
    for done, sample in enumerate(samples, 1):
        try:
            values[sample.id] = reduce(dataset.open(sample, modality))
        except DataError as error:
            skipped[sample.id] = f"{modality}: {error.found}"
        report(f"reducing {modality}", done, len(samples))
    _write(path, Reduced(values, skipped, key))
    return Reduced(values, skipped, key)


def _fingerprint(dataset: Dataset, samples: Sequence[Sample], modality: str, settings: Mapping[str, Any]) -> str:
    content = [[sample.id, _content_key(dataset, sample, modality)] for sample in samples]
    text = json.dumps([_VERSION, dataset.name, modality, settings, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _content_key(dataset: Dataset, sample: Sample, modality: str) -> str:
    try:
        return dataset.content_key(sample, modality)
    except DataError:
        return "absent"


def _read(path: Path, key: str) -> Reduced | None:
    """None where there is nothing, or nothing that can be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            head = json.loads(str(stored["head"]))
            if head["fingerprint"] != key:
                return None
            return Reduced(dict(zip(head["ids"], stored["values"], strict=True)), head["skipped"], key)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, reduced: Reduced) -> None:
    head = {"fingerprint": reduced.fingerprint, "ids": list(reduced.values), "skipped": reduced.skipped}
    stacked = np.stack(list(reduced.values.values())) if reduced.values else np.zeros((0, 0), np.float32)
    with replacing(path, DataError) as file:
        np.savez(file, head=np.array(json.dumps(head)), values=stacked)
