"""Charts of an export's report as inline SVG; the colours are defined by the page (``kd_edge.export.document``)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from kd_edge.export.document import escaped
from kd_edge.export.layers import LayerError
from kd_edge.metrics import Reliability, row_shares

_ROW, _PLOT = 17, 400
_LETTER = 6.7
"""Width of a letter in a node's name."""
_TITLE_LETTER = 8.0
"""Upper limit for the width of a letter in a title."""
_MOST_LETTERS = 48
_PANEL, _HISTOGRAM = 300, 56


def layer_chart(layers: Sequence[LayerError], kept: Collection[str] = ()) -> str:
    """Draw one row per node: its error on a logarithmic axis, with a line from the largest error of its inputs.

    Args:
        layers: Errors in the order of the graph.
        kept: Nodes that compute in float32, drawn as hollow dots.
    """
    low, high = _decades([layer.error for layer in layers])
    left = 12 + _LETTER * max((len(_short(layer.name)) for layer in layers), default=0)
    width, bottom = left + _PLOT + 170, 26 + _ROW * len(layers)

    def x(error: float) -> float:
        at = low if error <= 0 else high if math.isinf(error) else math.log10(error)
        return left + _PLOT * (min(max(at, low), high) - low) / (high - low)

    parts = [_band(26 + _ROW * row, width) for row in range(0, len(layers), 2)]
    for tick in _ticks(low, high):
        parts.append(_line(x(tick), 22, x(tick), bottom, "line"))
        parts.append(_text(x(tick), 15, f"{tick:.0e}", "soft", "middle"))
    columns = (left + _PLOT + 85, left + _PLOT + 160)
    parts += [_text(at, 15, head, "soft", "end") for at, head in zip(columns, ("error", "largest"), strict=True)]
    for row, layer in enumerate(layers):
        y, at, figures = 26 + _ROW * (row + 0.5), x(layer.error), (_magnitude(layer.error), number(layer.largest))
        parts.append(_text(left - 8, y + 4, _short(layer.name), "name", "end", layer.name))
        parts.append(_line(x(layer.inherited), y, at, y, "accent" if layer.added else "line"))
        parts.append(f'<circle class="accent{" hollow" * (layer.name in kept)}" cx="{at:.1f}" cy="{y:.1f}" r="3.5"/>')
        parts += [_text(c, y + 4, text, "", "end") for c, text in zip(columns, figures, strict=True)]
    return _svg(width, bottom + 6, parts, "relative error of every layer")


def reliability_chart(panels: Sequence[tuple[str, Reliability]]) -> str:
    """Draw reliability diagrams side by side, each with a histogram of its clips below.

    Args:
        panels: Title and bins of each diagram.
    """
    parts: list[str] = []
    for at, (title, binned) in enumerate(panels):
        parts += _reliability(44 + at * (_PANEL + 64), 30, title, binned)
    return _svg(len(panels) * (_PANEL + 64) + 8, _PANEL + _HISTOGRAM + 96, parts, "reliability diagram")


def confusion_chart(counts: npt.NDArray[np.int64], labels: Sequence[str], title: str) -> str:
    """Draw a confusion matrix as shaded cells, normalised by row, with percentages if there is room.

    Args:
        counts: (K, K), rows are the truth.
        labels: Class names.
        title: Title above the matrix.
    """
    shares = row_shares(counts)
    is_wide = len(labels) > 30
    cell, angle, kind = (12, 90, "small") if is_wide else (22, 60, "")
    names = [_short(label, 28) for label in labels]
    left, side = 14 + (5.2 if is_wide else 6.2) * max(map(len, names)), cell * len(labels)
    top = 30 + (left - 14) * math.sin(math.radians(angle))
    parts = [_text(left, 16, title, "title")]
    for k, (name, label) in enumerate(zip(names, labels, strict=True)):
        middle = cell * (k + 0.5)
        parts.append(_text(left - 6, top + middle + 4, name, kind, "end", label))
        x, y = left + middle + 4, top - 6
        parts.append(_text(x, y, name, kind, "start", label, f' transform="rotate(-{angle} {x:.1f} {y:.1f})"'))
    for (i, j), share in np.ndenumerate(shares):
        if share:
            parts += _cell(left + cell * j, top + cell * i, cell, float(share), f"{labels[i]} taken for {labels[j]}")
    grid = range(0, len(labels) + 1, 5 if is_wide else 1)
    parts += [_line(left + cell * k, top, left + cell * k, top + side, "line") for k in grid]
    parts += [_line(left, top + cell * k, left + side, top + cell * k, "line") for k in grid]
    parts.append(f'<rect class="frame" x="{left:.1f}" y="{top:.1f}" width="{side}" height="{side}"/>')
    beyond = 8 + left * math.cos(math.radians(angle))
    width = left + max(side + beyond, _TITLE_LETTER * len(title) + 8)
    return _svg(width, top + side + 8, parts, title)


def number(value: float) -> str:
    """Format a number of any size with three digits."""
    return "∞" if math.isinf(value) else f"{value:.3g}"


def _reliability(left: float, top: float, title: str, binned: Reliability) -> list[str]:
    bins, bottom = len(binned.counts), top + _PANEL
    parts = [_text(left, top - 12, title, "title")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + _PANEL * share, bottom - _PANEL * share
        parts += [_line(left, y, left + _PANEL, y, "line"), _line(x, top, x, bottom, "line")]
        parts.append(_text(left - 6, y + 4, f"{100 * share:.0f}", "soft", "end"))
        parts.append(_text(x, bottom + _HISTOGRAM + 40, f"{100 * share:.0f}", "soft", "middle"))
    width, most = _PANEL / bins, max(1, int(binned.counts.max()))
    for k in np.flatnonzero(binned.counts):
        x, accuracy, count = left + width * k, float(binned.accuracy[k]), int(binned.counts[k])
        tooltip = f"{count} clips, mean confidence {binned.confidence[k]:.1%}, right {accuracy:.1%}"
        low, high = sorted((accuracy, float(binned.confidence[k])))
        parts.append(_rect(x, bottom - _PANEL * low, width, _PANEL * low, "bar", tooltip))
        parts.append(_rect(x, bottom - _PANEL * high, width, _PANEL * (high - low), "gap", tooltip))
        parts.append(_line(x, bottom - _PANEL * accuracy, x + width, bottom - _PANEL * accuracy, "accent", 2))
        height = _HISTOGRAM * count / most
        parts.append(_rect(x, bottom + _HISTOGRAM + 24 - height, width, height, "bar", tooltip))
        parts.append(_text(x + width / 2, bottom + _HISTOGRAM + 21 - height, str(count), "small soft", "middle"))
    parts.append(_line(left, bottom, left + _PANEL, top, "axis dashed"))
    parts.append(_line(left, bottom + _HISTOGRAM + 24, left + _PANEL, bottom + _HISTOGRAM + 24, "axis"))
    parts.append(_text(left + _PANEL / 2, bottom + _HISTOGRAM + 58, "confidence, %", "soft", "middle"))
    return parts


def _cell(x: float, y: float, side: int, share: float, tooltip: str) -> list[str]:
    opacity = f' fill-opacity="{0.12 + 0.88 * share:.2f}"'
    parts = [_rect(x, y, side, side, "cell", f"{tooltip}: {share:.1%}", opacity)]
    if side > 20 and share >= 0.005:
        kind = f"small{' on' * (share > 0.5)}"
        parts.append(_text(x + side / 2, y + side / 2 + 3, f"{100 * share:.0f}", kind, "middle"))
    return parts


def _decades(errors: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten that enclose the errors."""
    sizes = [math.log10(error) for error in errors if 0 < error < math.inf] or [-6.0]
    low, high = math.floor(min(sizes)), math.ceil(max(sizes))
    return low, max(high, low + 1)


def _ticks(low: int, high: int) -> list[float]:
    """Return the tick values of an axis over these powers of ten, with intermediate values if there are few."""
    digits = (1, 2, 5) if high - low <= 2 else (1,)
    between = [digit * 10.0**decade for decade in range(low, high) for digit in digits]
    return [*between[:: 1 + len(between) // 10], 10.0**high]


def _magnitude(value: float) -> str:
    """Format a number with two digits and a power of ten, so that a column of them is aligned."""
    return f"{value:.1e}" if 0 < value < math.inf else number(value)


def _short(text: str, most: int = _MOST_LETTERS) -> str:
    """Shorten a text in the middle if it is too long."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[1 + len(text) - most // 2 :]}"


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg role="img" aria-label="{escaped(label)}" {size}>{"".join(parts)}</svg>'


def _tooltip(text: str) -> str:
    return f"<title>{escaped(text)}</title>" if text else ""


def _text(
    x: float, y: float, text: str, kind: str = "", anchor: str = "start", tooltip: str = "", more: str = ""
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}'
    return f'<text class="{kind}" {place}>{_tooltip(tooltip)}{escaped(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, width: float = 1) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{width}"/>'


def _rect(x: float, y: float, width: float, height: float, kind: str, tooltip: str = "", more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{more}'
    return f'<rect class="{kind}" {place}>{_tooltip(tooltip)}</rect>'


def _band(y: float, width: float) -> str:
    return _rect(0, y, width, _ROW, "band")
