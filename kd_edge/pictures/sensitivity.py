"""How a result depends on three settings: a scatter picture with four dimensions (the SAKDN paper's Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.projections.polar import PolarAxes

from kd_edge.pictures.strips import save

COLOURS = "cividis"
SMALLEST, LARGEST = 90.0, 900.0
"""Area of the lowest and of the highest result of a panel, in square points."""
_SPREAD = 0.62  # of a place's width, shared by the points that differ in colour alone
_HUB = 1.6
"""Radius of the lowest value: near the middle points would lie on each other."""
_PANEL_INCHES = 5.6


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of a study.

    Attributes:
        row: Name of the row.
        values: What the row sets the three keys to: first axis, second axis, colour.
        result: Figure of the row, in percent.
    """

    row: str
    values: tuple[float, float, float]
    result: float


def draw_sensitivity(
    panels: Mapping[str, Sequence[Setting]],
    names: tuple[str, str, str],
    result: str,
    title: str,
    path: Path,
    *,
    polar: bool = False,
) -> None:
    """Draw one scatter per panel: two settings as axes, the third as colour, the result as size and number.

    Values are placed evenly in their order, not to scale: those of a grid search (0.01, 0.1, 1) span decades, and 0
    has no logarithm. Points that differ in colour alone stand beside each other. The best has a red ring.

    Args:
        panels: Title -> settings, at least one each.
        names: Names of the three keys.
        result: Name and unit of the results.
        title: Title above all panels.
        path: The PNG to write.
        polar: Whether the first setting is drawn as angle and the second as radius, as in the paper.

    Raises:
        DataError: The picture cannot be written.
    """
    settings = [setting for panel in panels.values() for setting in panel]
    places = [sorted({s.values[k] for s in settings}) for k in range(3)]
    figure = Figure(figsize=(_PANEL_INCHES * len(panels), _PANEL_INCHES + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=14)
    kind = {"projection": "polar"} if polar else {}
    axes = figure.subplots(1, len(panels), squeeze=False, subplot_kw=kind)[0]
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        axis.set_title(name, fontsize=12)
        if isinstance(axis, PolarAxes):
            _polar_grid(axis, places, names)
        else:
            _plain_grid(axis, places, names)
        _draw_points(axis, panel, places, polar)
    shades = _shades(len(places[2]))
    handles = [
        axes[0].scatter([], [], s=140, color=shade, edgecolor="k", label=f"{value:g}")
        for shade, value in zip(shades, places[2], strict=True)
    ]
    figure.legend(
        handles=handles, title=f"colour: {names[2]}\nsize and number: {result}; red ring: the best",
        loc="outside lower center", ncols=len(handles), fontsize=11, title_fontsize=11, alignment="center",
    )  # fmt: skip
    save(figure, path)


def _draw_points(axis: Axes, panel: Sequence[Setting], places: Sequence[Sequence[float]], polar: bool) -> None:
    results = [setting.result for setting in panel]
    lowest, highest = min(results), max(results)
    shades = _shades(len(places[2]))
    for setting in sorted(panel, key=lambda s: -s.result):  # the small ones above
        x, y, colour = (place.index(value) for place, value in zip(places, setting.values, strict=True))
        beside = _SPREAD * ((colour + 0.5) / len(places[2]) - 0.5)
        turn = 2 * math.pi / len(places[0])
        at = ((x + beside) * turn, y + _HUB) if polar else (x + beside, float(y))
        share = 1.0 if highest == lowest else (setting.result - lowest) / (highest - lowest)
        area = SMALLEST + share * (LARGEST - SMALLEST)
        best = setting.result == highest
        ring, width = ("#d40000", 3.0) if best else ("k", 0.8)
        axis.scatter(*at, s=area, color=shades[colour], edgecolor=ring, linewidth=width, zorder=3)
        below = math.sqrt(area / math.pi) + 4  # points
        axis.annotate(
            f"{setting.result:.1f}", at, xytext=(0, -below), textcoords="offset points", ha="center", va="top",
            fontsize=10, fontweight="bold" if best else "normal", zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground="w")],
        )  # fmt: skip


def _plain_grid(axis: Axes, places: Sequence[Sequence[float]], names: tuple[str, str, str]) -> None:
    axis.set_xticks(range(len(places[0])), [f"{value:g}" for value in places[0]], fontsize=11)
    axis.set_yticks(range(len(places[1])), [f"{value:g}" for value in places[1]], fontsize=11)
    axis.set_xlim(-0.6, len(places[0]) - 0.4)
    axis.set_ylim(-0.6, len(places[1]) - 0.4)
    axis.set_xlabel(names[0], fontsize=12)
    axis.set_ylabel(names[1], fontsize=12)
    for between in range(1, len(places[0])):
        axis.axvline(between - 0.5, color="0.85", linewidth=1)
    axis.grid(axis="y", alpha=0.3)


def _polar_grid(axis: PolarAxes, places: Sequence[Sequence[float]], names: tuple[str, str, str]) -> None:
    turn = 360 / len(places[0])
    axis.set_theta_zero_location("N")
    axis.set_thetagrids([turn * k for k in range(len(places[0]))], [f"{v:g}" for v in places[0]], fontsize=11)
    axis.set_rgrids([k + _HUB for k in range(len(places[1]))], ["" for _ in places[1]])
    axis.set_ylim(0, len(places[1]) + _HUB - 0.4)
    axis.set_xlabel(f"angle: {names[0]}\nradius: {names[1]}", fontsize=12)
    for k, value in enumerate(places[1]):  # between two values of the angle, where no point lies
        axis.text(math.radians(turn / 2), k + _HUB, f"{value:g}", ha="center", va="center", fontsize=11, color="0.25")


def _shades(count: int) -> list[tuple[float, float, float, float]]:
    """Colours of the third setting's values, from dark to light."""
    return [colormaps[COLOURS](k / max(count - 1, 1)) for k in range(count)]
