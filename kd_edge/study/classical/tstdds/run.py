"""TSTDDs: three-stream trajectory-pooled deep-convolutional descriptors, the first row of the MGCAM paper's Table 1.

Source: Liu, Lu, Li, Yang, Yao, "Global Temporal Representation Based CNNs for Infrared Action Recognition", IEEE Signal
Processing Letters 2018. This is a re-implementation: the original is MATLAB and Caffe and was not available.

Kept: a spatial, a local temporal (stacks of 10 flow fields) and a global temporal stream (OFSDI), an image network for
each; two layers' feature maps per stream, under both normalisations, summed along dense trajectories of 15 frames; LLC
with 5 neighbours; one linear SVM against the rest per class.

What differs: residual networks trained on the data set at hand instead of fine-tuned two-stream VGGs; flow by dense
inverse search instead of TV-L1; trajectories at one scale and without the subtraction of camera motion; feature maps at
one scale; equal weights in the OFSDI; PCA to 64 dimensions before the coding, as for TDD; C is fixed or chosen on
validation subjects, never on the test clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd_edge import metrics
from kd_edge.data import Dataset, Sample, Split, check_split, open_dataset, training_sides
from kd_edge.data.cache.frames import CachedClips, prepare
from kd_edge.errors import TrainingError
from kd_edge.rundir import Protocol, Scores, StageReport
from kd_edge.study.classical.results import Begin, Fitted, Progress, device, reproducible
from kd_edge.study.classical.tstdds.coding import Codebook, fit_codebook
from kd_edge.study.classical.tstdds.config import TstddsConfig
from kd_edge.study.classical.tstdds.descriptors import video_descriptors
from kd_edge.study.classical.tstdds.inputs import training_draw
from kd_edge.study.classical.tstdds.networks import STREAMS, Stream, build_stream, train_stream
from kd_edge.study.classical.tstdds.svm import LinearClassifier, choose
from kd_edge.study.classical.tstdds.videos import Videos
from kd_edge.train.results.scores import right_by_subject
from kd_edge.types import Float32, Int64


class TstddsReport(StageReport):
    """What became of the streams and of the classifier behind them.

    Attributes:
        streams: Network -> loss and accuracy of its last epoch.
        without_tracks: Side of the split -> number of clips in which no track moves.
    """

    streams: dict[str, dict[str, float]]
    without_tracks: dict[str, int]


@dataclass(frozen=True)
class _Recordings:
    dataset: Dataset
    cache: CachedClips
    videos: Videos
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    skipped: dict[str, str]


def train_tstdds(config: TstddsConfig, data_root: Path | None, begin: Begin, report: Progress) -> Fitted:
    """Train the streams and the SVM and test them; see ``Fit``.

    Raises:
        TrainingError: No training clip has a moving track.
    """
    material = _gather(config, data_root, report)
    begin()
    with reproducible(config):
        streams, training = _train_streams(config, material, report)
        books = _fit_codebooks(config, material, streams, report)
        sides = {"train": material.train, "validation": material.validation, "test": material.test}
        vectors = {
            side: _encode(config, material.videos, streams, books, samples, f"coding the {side} clips", report)
            for side, samples in sides.items()
        }
        truth = {side: np.array([s.label for s in samples], dtype=np.int64) for side, samples in sides.items()}
        svm, validation = _fit_svm(config, vectors, truth)
    chosen_by = "fixed" if validation is None else "by validation accuracy"
    decisions = svm.decisions(vectors["test"])
    figures = metrics.figures(decisions, truth["test"], material.dataset.labels, temperature=None)
    student = TstddsReport(
        modality=config.modality,
        backbone="tstdds",
        temporal="svm",
        epochs=config.streams.epochs,
        selected_epoch=config.streams.epochs,
        selected_by=f"last epoch; C = {svm.c:g}, {chosen_by}",
        validation=validation,
        test=Scores(**figures, right=right_by_subject(material.test, decisions, truth["test"])),
        parameters=_parameters(streams, books) + svm.parameters,
        streams=training,
        without_tracks={side: int((~values.any(axis=1)).sum()) for side, values in vectors.items()},
    )
    return Fitted(material.dataset, _protocol(config, material), material.cache.fingerprint, student)


def check_tstdds(config: TstddsConfig, data_root: Path | None = None) -> tuple[int, int]:
    """Look at what a run would find, decoding one clip.

    Returns:
        Numbers of training and test clips of the protocol.

    Raises:
        DataError: What would stop the run at its start: recordings, modality, split or subjects missing.
    """
    dataset = open_dataset(config.data, data_root)
    dataset.image_format(config.modality)
    split = dataset.split(config.split)
    check_split(split, dataset.labels, by_subject=False)
    train, _ = training_sides(split, config.validation_subjects)
    dataset.open(train[0], config.modality)
    return len(train), len(split.test)


def _gather(config: TstddsConfig, data_root: Path | None, report: Progress) -> _Recordings:
    dataset = open_dataset(config.data, data_root)
    split = dataset.split(config.split)
    dataset.image_format(config.modality)  # names an unknown modality before anything is decoded

    def decoding(done: int, total: int) -> None:
        report("decoding", done, total)

    # The whole data set, so that other splits, validation subjects and seeds share one cache.
    cache = prepare(dataset, dataset.samples, config.modality, config.frame_px, config.window, progress=decoding)
    videos = Videos(cache, config.window, config.frame_px)
    short = {s.id: "it has a single frame" for s in cache.samples if videos.length(s.id) < 2}

    def usable(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(s for s in samples if s.id in cache and s.id not in short)

    split = Split(split.name, usable(split.train), usable(split.test), usable(split.validation))
    check_split(split, dataset.labels, by_subject=False)
    train, validation = training_sides(split, config.validation_subjects)
    return _Recordings(dataset, cache, videos, train, validation, split.test, cache.skipped | short)


def _train_streams(
    config: TstddsConfig, material: _Recordings, report: Progress
) -> tuple[dict[str, Stream], dict[str, dict[str, float]]]:
    """The three networks, and how the last epoch of each went."""
    channels = material.dataset.image_format(config.modality).channels
    ids, labels = [s.id for s in material.train], np.array([s.label for s in material.train], dtype=np.int64)
    streams: dict[str, Stream] = {}
    training: dict[str, dict[str, float]] = {}
    for name in STREAMS:
        stream = build_stream(config.streams, name, len(material.dataset.labels), channels).to(device())
        draw = training_draw(name, material.videos, ids, config.streams.flow_fields)

        def epochs_done(done: int, name: str = name) -> None:
            report(f"training the {name} stream", done, config.streams.epochs)

        training[name] = train_stream(stream, draw, labels, config.streams, config.seed, epochs_done)
        streams[name] = stream
    return streams, training


def _fit_codebooks(
    config: TstddsConfig, material: _Recordings, streams: dict[str, Stream], report: Progress
) -> dict[str, Codebook]:
    """One codebook per kind of descriptor, from an equal share of tracks of each sampled training clip."""
    coding, rng = config.coding, np.random.default_rng(config.seed)
    count = min(coding.sampled_clips, len(material.train))
    share = -(-coding.sampled_descriptors // count)
    parts: dict[str, list[Float32]] = {}
    for done, position in enumerate(rng.permutation(len(material.train))[:count], 1):
        found = video_descriptors(config, material.videos, material.train[position].id, streams)
        tracks = len(next(iter(found.values())))
        chosen = rng.permutation(tracks)[:share]
        for kind, values in found.items():
            parts.setdefault(kind, []).append(values[chosen])
        report("sampling descriptors", done, count)
    sampled = {kind: np.concatenate(values)[: coding.sampled_descriptors] for kind, values in parts.items()}
    if len(next(iter(sampled.values()))) < 2:
        raise TrainingError(
            f"{count} training clips have no moving tracks of {config.tracks.frames} frames",
            "clips that are longer than a track and show motion",
            "set tracks.frames or tracks.minimum_spread lower, or check window",
        )
    books: dict[str, Codebook] = {}
    for kind, values in sampled.items():
        books[kind] = fit_codebook(values, dimensions=coding.dimensions, words=coding.codewords, seed=config.seed)
        report("making codebooks", len(books), len(sampled))
    return books


def _encode(
    config: TstddsConfig,
    videos: Videos,
    streams: dict[str, Stream],
    books: dict[str, Codebook],
    samples: Sequence[Sample],
    what: str,
    report: Progress,
) -> Float32:
    """Vectors (N, sum of W) of clips, one video in memory at a time; a clip without a moving track has zeros."""
    width = sum(len(book.words) for book in books.values())
    vectors = np.zeros((len(samples), width), dtype=np.float32)
    for row, sample in enumerate(samples):
        found = video_descriptors(config, videos, sample.id, streams)
        neighbours, pooling = config.coding.neighbours, config.coding.pooling
        vectors[row] = np.concatenate([book.encode(found[k], neighbours, pooling) for k, book in books.items()])
        report(what, row + 1, len(samples))
    return vectors


def _fit_svm(
    config: TstddsConfig, vectors: dict[str, Float32], truth: dict[str, Int64]
) -> tuple[LinearClassifier, Scores | None]:
    """The classifier, and its figures on the validation clips, if there are any."""
    train, validation = ((vectors[side], truth[side]) for side in ("train", "validation"))
    if not len(validation[1]):
        return LinearClassifier(*train, config.c, config.seed), None
    svm, accuracy = choose(config.c_choices, train, validation, config.seed)
    return svm, Scores(accuracy=accuracy)


def _protocol(config: TstddsConfig, material: _Recordings) -> Protocol:
    return Protocol(
        dataset=material.dataset.name,
        split=config.split,
        validation_subjects=config.validation_subjects,
        train_samples=len(material.train),
        validation_samples=len(material.validation),
        test_samples=len(material.test),
        skipped=material.skipped,
    )


def _parameters(streams: dict[str, Stream], books: dict[str, Codebook]) -> int:
    networks = sum(p.numel() for stream in streams.values() for p in stream.parameters())
    return networks + sum(book.parameters for book in books.values())
