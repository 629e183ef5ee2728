"""The scatter over three settings: every point is there, in its colour and size, in both kinds of axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from kd_edge.pictures import sensitivity
from kd_edge.pictures.sensitivity import LARGEST, SMALLEST, Setting, draw_sensitivity
from tests.pictures.conftest import picture

NAMES = ("alpha", "beta", "gamma")
PANEL = [
    Setting("a", (0.01, 0.1, 0.1), 90.0),
    Setting("b", (0.01, 0.1, 1.0), 95.0),
    Setting("c", (0.1, 1.0, 0.1), 100.0),
    Setting("d", (1.0, 1.0, 1.0), 90.0),
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were saved, while they are still there."""
    figures: list[Figure] = []
    write = sensitivity.save

    def keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        write(figure, path)

    monkeypatch.setattr(sensitivity, "save", keep)
    return figures


@pytest.mark.parametrize("polar", [False, True])
def test_every_setting_is_a_point(drawn: list[Figure], tmp_path: Path, polar: bool) -> None:
    draw_sensitivity({"one": PANEL}, NAMES, "accuracy, %", "title", tmp_path / "a.png", polar=polar)
    picture(tmp_path / "a.png")
    (axis,) = drawn[0].axes
    assert axis.name == ("polar" if polar else "rectilinear")
    places, areas, colours, widths = _points(axis)
    assert len(places) == 4
    assert len({tuple(place) for place in places}) == 4
    # the largest first, so that small ones lie above; area follows the result
    assert areas == [LARGEST, (SMALLEST + LARGEST) / 2, SMALLEST, SMALLEST]
    assert widths[0] > 2 * widths[1] == 2 * widths[2]  # the best alone has the ring
    assert len(set(colours)) == 2
    assert colours[0] == colours[2] != colours[1] == colours[3]
    numbers = [text.get_text() for text in axis.texts if "." in text.get_text()]
    assert {"100.0", "95.0", "90.0"} <= set(numbers)


def test_values_stand_in_their_order_and_colours_beside_each_other(drawn: list[Figure], tmp_path: Path) -> None:
    draw_sensitivity({"one": PANEL}, NAMES, "accuracy, %", "title", tmp_path / "a.png")
    (axis,) = drawn[0].axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.01", "0.1", "1"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0.1", "1"]
    places, *_ = _points(axis)
    (c, b, a, d) = np.asarray(places)
    assert a[1] == b[1] == 0
    assert c[1] == d[1] == 1
    assert b[0] - a[0] == pytest.approx(0.31)
    assert (a[0] + b[0]) / 2 == pytest.approx(0)
    assert np.round([c[0], d[0]]).tolist() == [1, 2]


def test_panels_share_places_and_colours(drawn: list[Figure], tmp_path: Path) -> None:
    panels = {"published": PANEL, "measured": PANEL[1:2]}
    draw_sensitivity(panels, NAMES, "accuracy, %", "title", tmp_path / "two.png")
    left, right = drawn[0].axes
    assert left.get_title() == "published"
    assert left.get_xlim() == right.get_xlim()
    assert _points(right)[2][0] == _points(left)[2][1]
    assert _points(right)[1] == [LARGEST]  # alone it is the best
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["0.1", "1"]
    assert "gamma" in legend.get_title().get_text()
    draw_sensitivity({"published": PANEL}, NAMES, "accuracy, %", "title", tmp_path / "one.png")
    assert picture(tmp_path / "two.png").shape[1] == 2 * picture(tmp_path / "one.png").shape[1]


def test_settings_that_do_not_differ_are_drawn_too(tmp_path: Path) -> None:
    same = [Setting("a", (0.0, 0.0, 0.0), 50.0)]
    for polar in (False, True):
        draw_sensitivity({"one": same}, NAMES, "accuracy, %", "title", tmp_path / "same.png", polar=polar)
        picture(tmp_path / "same.png")


def _points(axis: Any) -> tuple[list[Any], list[float], list[tuple[float, ...]], list[float]]:
    """Places, areas, colours and ring widths of the points, in the order of drawing; the legend's are empty."""
    found = [c for c in axis.collections if len(c.get_offsets())]
    return (
        [c.get_offsets()[0].tolist() for c in found],
        [float(c.get_sizes()[0]) for c in found],
        [tuple(c.get_facecolor()[0]) for c in found],
        [float(c.get_linewidth()[0]) for c in found],
    )
