"""How the benchmark's plots look and are written: panels, colours, labels that keep off each other, and small PNGs.

A PNG carries a hash of the numbers it draws: whether it is up to date can be said without drawing, whose bytes differ
between versions of matplotlib.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.optimize import isotonic_regression

from dfplan.benchmarks.counterparts import PAGES
from dfplan.whole_files import write_whole

INK, FAINT, GRID, PAPER = "#1E2530", "#8A93A3", "#E3E6EB", "#FFFFFF"
REPORTED = "#D55E00"
_FAMILIES = ("#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#B8A800")
"""Okabe and Ito's, which stay distinct without full colour vision (their yellow darkened, to show on white)."""
_GROUPS = {
    "diffusion-forcing": 0, "diffuser": 1, "decision-diffuser": 1, "diffusion-veteran": 1, "behavior-cloning": 2,
    "iql": 2, "cql": 2, "td3-bc": 2, "awac": 2, "mppi": 3, "online-rl": 4,
}  # fmt: skip
FAMILY_NAMES = ("Diffusion Forcing", "other diffusion planners", "offline RL", "MPPI", "online RL")
COLUMNS = 3
_KEY = "dfplan:numbers"


def family(agent: str) -> int | None:
    """Index into `FAMILY_NAMES` of a row's algorithm, None for a row without a page."""
    page = next((name for name, rows in PAGES.items() if agent in rows), None)
    return None if page is None else _GROUPS.get(page)


def color(agent: str) -> str:
    found = family(agent)
    return FAINT if found is None else _FAMILIES[found]


def digest(numbers: Any) -> str:
    """sha256 of plain JSON: equal numbers, equal digest."""
    return hashlib.sha256(json.dumps(numbers, sort_keys=True, allow_nan=False).encode()).hexdigest()


def drawn_numbers(path: Path) -> str | None:
    """The digest of the numbers that a PNG was drawn from; None if there is no such file, or it says nothing."""
    try:
        with Image.open(path) as picture:
            return getattr(picture, "text", {}).get(_KEY)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # missing or damaged: to be drawn again
        return None


def save(path: Path, figure: Figure, numbers: Any) -> None:
    """Write a PNG of few colours with the digest of its numbers; the same figure gives the same bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, facecolor=PAPER, metadata={"Software": None})
    plt.close(figure)
    with Image.open(drawn) as picture:
        small = picture.convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    info = PngInfo()
    info.add_text(_KEY, digest(numbers))
    file = io.BytesIO()
    small.save(file, format="PNG", optimize=True, pnginfo=info)
    write_whole(path, file.getvalue())


def panels(names: Sequence[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """One panel a name, `COLUMNS` in a row; inches of one panel."""
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure, grid = plt.subplots(
        lines, columns, squeeze=False, layout="constrained", figsize=(width * columns, height * lines + 0.35)
    )
    axes = list(grid.flat)
    for unused in axes[len(names) :]:
        unused.set_visible(False)
    for panel, name in zip(axes, names, strict=False):
        plain(panel)
        panel.set_title(name, fontsize=10, color=INK, loc="left")
    return figure, axes[: len(names)]


def plain(axes: Axes) -> None:
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """The nearest places, in least squares, that keep their order, a gap between neighbours, and within [low, high].

    Where there is no room for all gaps, they shrink alike.
    """
    order = np.argsort(places, kind="stable")
    room = (high - low) / max(len(order) - 1, 1)
    steps = min(gap, room) * np.arange(len(order))
    fitted = isotonic_regression(np.asarray(places, dtype=float)[order] - steps).x
    moved = np.empty(len(order))
    moved[order] = np.clip(fitted, low, high - steps[-1]) + steps
    return moved


def label_ends(axes: Axes, names: Sequence[str], ends: Sequence[float], colors: Sequence[str], reach: float) -> None:
    """Names at the right edge (x = ``reach``), each joined to the height where its line ends by a thin stroke."""
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().height / axes.figure.dpi
    places = spread(ends, (high - low) * 0.107 / max(inches, 0.1), low, high)
    for name, end, place, shade in zip(names, ends, places, colors, strict=True):
        axes.annotate(
            name, (reach, end), (1.045, place), xycoords="data", textcoords=("axes fraction", "data"), fontsize=7, color=INK,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": shade, "linewidth": 0.7, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 1},
        )  # fmt: skip


def label_points(axes: Axes, names: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Each name beside its point, at the first place around it that is free, else at the least covered one.

    The figure must have been laid out, and must not be laid out again.
    """
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    pixels = axes.transData.transform(points)
    point = axes.figure.dpi / 72
    taken = [_box(x, y, 7 * point, 7 * point) for x, y in pixels]
    frame = axes.get_window_extent(renderer).get_points()
    for name, at, (x, y) in zip(names, points, pixels, strict=True):
        text = axes.text(*at, name, fontsize=7, color=INK, ha="center", va="center")
        extent = text.get_window_extent(renderer)
        width, height = extent.width + 3 * point, extent.height
        places = [
            _box(x + side * (width / 2 + reach * point), y + rise * reach * point * 1.3, width, height)
            for reach in (5, 9, 15, 23, 33)
            for rise in (0, 1, -1, 0.5, -0.5)
            for side in (1, -1, 0)
            if side or rise
        ]
        covered = [sum(_overlap(place, other) for other in taken) + _outside(place, frame) for place in places]
        best = places[int(np.argmin(covered))]
        taken.append(best)
        centre = axes.transData.inverted().transform(best.mean(axis=0))
        text.set_position(tuple(centre))
        nearest = np.clip((x, y), best[0], best[1])
        if np.hypot(*(nearest - (x, y))) > 8 * point:
            ends = axes.transData.inverted().transform([(x, y), nearest])
            axes.plot(*ends.T, color=FAINT, linewidth=0.6, zorder=2, scalex=False, scaley=False)


def _box(x: float, y: float, width: float, height: float) -> np.ndarray:
    """Corners ((x0, y0), (x1, y1)) around a centre."""
    return np.array([[x - width / 2, y - height / 2], [x + width / 2, y + height / 2]])


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    sides = np.minimum(first[1], second[1]) - np.maximum(first[0], second[0])
    return float(np.prod(np.maximum(sides, 0)))


def _outside(place: np.ndarray, frame: np.ndarray) -> float:
    return float(np.prod(place[1] - place[0])) - _overlap(place, frame)


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    figure.legend(
        handles=list(handles), loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8, labelcolor=INK
    )
