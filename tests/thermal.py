"""A far-infrared action set with made-up content, in the format of the real one."""

from __future__ import annotations

from pathlib import Path

DAYS = {"20170203": (1, 2), "20170206": (3, 4)}
"""Day -> its two people."""
FRAMES = 80
CLIMBING = 9
"""Frames of the sensor's start."""

_ACTIONS = (  # not in the order of time
    (30, 34, "sitdown", 0),
    (20, 24, "walk1", 0),
    (40, 44, "sit", 0),
    (50, 54, "standup", 1),
    (70, 74, "falling2", 1),
)


def celsius(frame: int) -> list[float]:
    """Pixels of a frame, counted from 1: 20 deg C, pixel 5 warmer by its number's hundredths, the last one by 1."""
    values = [2.0 * frame if frame <= CLIMBING else 20.0] * 256
    if frame > CLIMBING:
        values[5] += frame / 100
        values[255] = 21.0
    return values


def seconds(frame: int) -> float:
    """Ten frames a second, and once a gap."""
    return frame / 10 + (0.3 if frame >= 34 else 0.0)


def csv_lines(frames: int = FRAMES) -> list[str]:
    """Lines of a recording."""
    names = ",".join(["Time (sec)", "PTAT", *(f"P{k:03d}" for k in range(256))])
    rows = [f"{seconds(n):.3f},22.0," + ",".join(f"{v:.4f}" for v in celsius(n)) for n in range(1, frames + 1)]
    return ["2017/02/03 17:20:44", names, *rows]


def write_csv(path: Path, frames: int = FRAMES) -> Path:
    """A recording as the sensor's program writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\r\n".join(csv_lines(frames)) + "\r\n")
    return path


def write_set(root: Path) -> None:
    """Two days, a light and a dark recording each, five actions in each of them."""
    (root / "annotation").mkdir(parents=True)
    for day, people in DAYS.items():
        lines = []
        for name in (f"{day}_p1_light1.csv", f"{day}_p1_dark1.csv"):
            write_csv(root / day / "raw" / name)
            lines += [f"{name},{start},{end},{tag},human{people[who]}" for start, end, tag, who in _ACTIONS]
        (root / "annotation" / f"annotation_{day}_human.csv").write_text("\r\n".join(lines) + "\r\n")
