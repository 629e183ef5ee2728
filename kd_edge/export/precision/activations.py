"""Measure the value ranges of a float32 graph's tensors on real frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from scipy.special import rel_entr

from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import ExportError
from kd_edge.export.profile import ExportProfile, RangeMethod
from kd_edge.export.ranges import Feed
from kd_edge.export.recordings import evenly
from kd_edge.machine import usable_cores
from kd_edge.types import Float32

Float64 = npt.NDArray[np.float64]

Range = tuple[float, float]
"""Smallest and largest value."""

MOST_HISTOGRAM_FEEDS = 128
"""Upper limit for the runs used for histograms; extremes use all runs."""
BINS = 2048
"""Number of bins in the histogram of a tensor's magnitudes."""
CLIPPED = 1e-5
"""Share of a tensor's values that the method ``percentile`` clips."""
MOST_THREADS = 4
_SAMPLED = 2000
"""Approximate number of values sampled from each input of a run to find the most common value."""
_WIDER = 1.1
"""Largest factor by which the grid's step may grow to contain the most common value."""
_COMMON = 1 / 3
"""Smallest share of the samples for which a value counts as common."""


class Activations(NamedTuple):
    """Measurements of every float32 tensor that a graph reads or computes, by name.

    Attributes:
        extremes: The smallest and the largest value.
        ranges: Ranges for quantisation, by the profile's method. The range of a graph input covers all values and is
            adjusted so that the most common value is one of the 256 levels: preprocessing bounds pictures, and their
            background is often one value.
        features: Features (1, D) of every run; empty for a clip graph.
    """

    extremes: dict[str, Range]
    ranges: dict[str, Range]
    features: tuple[Float32, ...] = ()


def observe(proto: onnx.ModelProto, profile: ExportProfile, feeds: Sequence[Feed]) -> Activations:
    """Run a float32 graph on real frames and measure every tensor; memory does not grow with the number of frames.

    Args:
        proto: The graph; not changed.
        profile: The profile with the range method. All methods except ``extremes`` run the frames twice.
        feeds: Inputs of the graph, one entry per run.

    Raises:
        ExportError: There is no feed, or a value is not finite.
    """
    if not feeds:
        raise ExportError(
            f"no frames to calibrate the conversion to {profile.precision} on",
            "frames of training clips",
            "add --data DIR, or export in fp32",
        )
    inputs = {value.name for value in proto.graph.input}
    declared = {value.name for value in proto.graph.output}
    extremes: dict[str, Range] = {}
    features: list[Float32] = []
    samples: dict[str, list[Float32]] = {name: [] for name in inputs}
    for name, values in _tensors(proto, feeds):
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(high - low):
            raise ExportError(
                f"tensor '{name}' of the float32 graph is not finite on training frames",
                "finite values",
                "check the student's training; its weights or recordings are damaged",
            )
        before = extremes.get(name, (low, high))
        extremes[name] = min(before[0], low), max(before[1], high)
        if name in inputs:
            samples[name].append(values.ravel()[:: max(1, values.size // _SAMPLED)].copy())
        if name == "feature" and name in declared:
            features.append(values)
    ranges = extremes | {
        name: on_grid(extremes[name], np.concatenate(samples[name])) for name in inputs if samples[name]
    }
    if profile.range_method == "extremes" or profile.precision == "fp16":
        return Activations(extremes, ranges, tuple(features))
    reaches = {name: max(-low, high) for name, (low, high) in extremes.items() if name not in inputs}
    histograms = {name: np.zeros(BINS) for name in reaches}
    for name, values in _tensors(proto, evenly(feeds, MOST_HISTOGRAM_FEEDS)):
        if name in reaches:
            histograms[name] += _histogram(values, reaches[name])
    for name, histogram in histograms.items():
        largest = magnitude(histogram, reaches[name], extremes[name], profile.range_method)
        ranges[name] = max(extremes[name][0], -largest), min(extremes[name][1], largest)
    return Activations(extremes, ranges, tuple(features))


def on_grid(seen: Range, values: Float32) -> Range:
    """Adjust a range so that its 256 levels contain zero and the most common value; unchanged if no value is common.

    If most of a picture has one value, its rounding error is not noise: it adds up to the same shift in every window of
    the first convolution.
    """
    low, high = min(seen[0], 0.0), max(seen[1], 0.0)
    levels, counts = np.unique(values, return_counts=True)
    common, step = float(levels[counts.argmax()]), (high - low) / 255
    if counts.max() < _COMMON * len(values) or abs(common) < step or common == 0:
        return seen
    wider = abs(common) / int(abs(common) / step)  # wider, so that all values still fit
    if wider > _WIDER * step:
        return seen
    step = wider
    below = round(-low / step)
    return -below * step, (255 - below) * step


def _tensors(proto: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[tuple[str, Float32]]:
    """Iterate over every float32 tensor of every run."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    declared = {value.name for value in proto.graph.output}
    computed = dict.fromkeys(name for node in proto.graph.node for name in node.output if name)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed if name not in declared)
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = min(MOST_THREADS, usable_cores())
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for feed in feeds:
        tensors = feed | dict(zip(names, session.run(names, feed), strict=True))
        yield from ((name, values) for name, values in tensors.items() if values.dtype == np.float32 and values.size)


# ---------------------------------------------------------------------------------------------- ranges of histograms


def _histogram(values: Float32, reach: float) -> Float64:
    """Histogram (BINS,) of magnitudes up to ``reach``."""
    if reach == 0:
        return np.zeros(BINS)
    bins = np.abs(values).ravel() * np.float32(BINS / reach)
    return np.bincount(np.minimum(bins.astype(np.int64), BINS - 1), minlength=BINS).astype(np.float64)


def magnitude(histogram: Float64, reach: float, extremes: Range, method: RangeMethod) -> float:
    """Choose the largest magnitude that a quantised tensor covers.

    Args:
        histogram: (BINS,) of magnitudes up to ``reach``.
        reach: Largest observed magnitude.
        extremes: Smallest and largest value; tensors without negative values have twice as many levels.
        method: ``least_squares`` minimises the squared error of rounding inside and clipping outside together;
            ``percentile`` clips the share ``CLIPPED`` of the values; ``entropy`` minimises the divergence of the
            quantised values' distribution from the observed one (Migacz, "8-bit inference with TensorRT", GTC 2017).
    """
    if method == "percentile":
        share = np.cumsum(histogram) / max(histogram.sum(), 1.0)
        return reach * (int(np.searchsorted(share, 1 - CLIPPED)) + 1) / BINS
    levels = 256 if extremes[0] >= 0 else 128
    counts = histogram.copy()
    counts[0] = counts[1]  # zeros are exact in every range, and would outweigh all other values
    if method == "least_squares":
        return reach * _least_squares(counts, levels) / BINS
    candidates = np.arange(levels, BINS + 1, 8)
    losses = [_divergence(counts, int(bins), levels) for bins in candidates]
    return reach * float(candidates[np.argmin(losses)]) / BINS if np.isfinite(losses).any() else reach


def _least_squares(histogram: Float64, levels: int) -> int:
    """Return the number of bins to cover; the loss is step^2 / 12 inside, and the clipped amount squared outside."""
    covered = np.arange(1, BINS + 1)
    centres = np.arange(BINS) + 0.5
    inside = np.cumsum(histogram)
    number, sums, squares = (_suffix_sums(histogram * centres**power) for power in range(3))
    clipping = squares - 2 * covered * sums + covered**2 * number
    rounding = inside * (covered / levels) ** 2 / 12
    return int(covered[np.argmin(rounding + clipping)])


def _suffix_sums(values: Float64) -> Float64:
    """For each bin, the sum over all bins after it."""
    return np.append(np.cumsum(values[::-1])[::-1][1:], 0.0)


def _divergence(histogram: Float64, bins: int, levels: int) -> float:
    """Kullback-Leibler divergence of the observed values from their first bins, quantised, with the rest clipped."""
    edges = np.arange(levels) * bins // levels
    mass = np.add.reduceat(histogram[:bins], edges)
    seen = histogram[:bins].copy()
    seen[-1] += histogram[bins:].sum()
    occupied = seen > 0
    share = mass / np.maximum(np.add.reduceat(occupied, edges, dtype=np.float64), 1)
    coarse = np.where(occupied, np.repeat(share, np.diff(edges, append=bins)), 0.0)
    if not coarse.any():
        return float("inf")
    return float(rel_entr(seen / seen.sum(), coarse / coarse.sum()).sum())
