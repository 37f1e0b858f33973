"""Pictures of a run: executed paths over planned ones, and a plan being denoised.

Drawn like the layout's text: x runs down and y to the right.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from PIL import Image

from dfplan.benchmarks.recording import Denoising, Recorder
from dfplan.benchmarks.report import figures
from dfplan.benchmarks.report.figures import BLUE, GREEN, INK, ORANGE, PAPER
from dfplan.benchmarks.results import Cell
from dfplan.envs.maze.env import GOAL_RADIUS
from dfplan.envs.maze.layouts import WALL_SHIFT, Layout
from dfplan.whole_files import write_whole

_FLOOR, _WALL = "#FCFBF8", "#5A657A"
_BORDER = 0.45
"""How much of the outer walls is shown, in cells."""
_NOISE = ListedColormap(plt.colormaps["plasma"](np.linspace(0.03, 0.83, 128)))
"""Of noise levels in [0, 1], from dark blue to a yellow that still shows on the floor."""
EPISODES_SHOWN = 4
MOST_FRAMES = 60
Agents = Mapping[str, tuple[Cell, Recorder]]
"""By name: a cell of each agent, with the paths of its first episodes."""


def write(
    folder: Path,
    layout: Layout,
    cells: Mapping[str, Cell],
    record: Callable[[str], tuple[Recorder, Denoising | None] | None],
) -> None:
    """Write paths.png, and denoising.gif of the first agent that plans, of one environment.

    Nothing is drawn again for the same cells. `record`: an agent's paths in its cell's first episodes and the denoising of one
    of its plans, None where there is none. Without any, a denoising.gif of an earlier run is removed.
    """
    played = [[cell.agent, cell.training_seed, cell.key, cell.created] for cell in cells.values()]
    digest = hashlib.sha256(repr(played).encode()).hexdigest()
    if figures.digest_of(folder / "paths.png") == digest:
        return
    recorded = {agent: found for agent in cells if (found := record(agent)) is not None}
    denoising = next((one for _, one in recorded.values() if one is not None), None)
    if denoising is None:
        (folder / "denoising.gif").unlink(missing_ok=True)
    else:
        write_whole(folder / "denoising.gif", animate(layout, denoising))
    if recorded:  # last, for its digest stands for both
        agents = {agent: (cells[agent], paths) for agent, (paths, _) in recorded.items()}
        figures.save(folder / "paths.png", draw_paths(layout, agents), digest)


def draw_paths(layout: Layout, agents: Agents) -> Figure:
    """One row an agent, one column an episode: the executed path over the plan of its first decision."""
    shown = min(EPISODES_SHOWN, *(len(paths.goals) for _, paths in agents.values()))
    width = 2.9
    size = (width * shown + 0.4, (width * _aspect(layout) + 0.32) * len(agents) + 0.5)
    figure, grid = plt.subplots(len(agents), shown, squeeze=False, layout="constrained", figsize=size)
    for line, (name, (cell, paths)) in zip(grid, agents.items(), strict=True):
        for i, axes in enumerate(line):
            draw_maze(axes, layout, paths.goals[i])
            _paths(axes, paths.executed[i], paths.planned[i])
            first = None if cell.first_reach is None else cell.first_reach[i]
            outcome = "goal not reached" if first is None else f"goal after {first} steps"
            axes.set_title(f"{outcome}, return {cell.returns[i]:.0f}", fontsize=8, color=INK, pad=3)
        line[0].set_ylabel(name, fontsize=9, color=INK)
    legends = [axes.get_legend_handles_labels() for axes in grid.flat]
    labels = {label: handle for handles, names in legends for handle, label in zip(handles, names, strict=True)}
    figure.legend(labels.values(), labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _paths(axes: Axes, executed: np.ndarray, planned: np.ndarray | None) -> None:
    if planned is not None:
        look: dict[str, Any] = {"color": ORANGE, "linewidth": 4, "alpha": 0.75, "solid_capstyle": "round", "zorder": 3}
        axes.plot(planned[:, 1], planned[:, 0], **look, label="plan of the first decision")
    axes.plot(executed[:, 1], executed[:, 0], color=BLUE, linewidth=1.4, zorder=4, label="executed")
    start: dict[str, Any] = {"markersize": 6, "color": "white", "markeredgecolor": INK, "zorder": 5}
    axes.plot(executed[0, 1], executed[0, 0], "o", **start, label="start")


def animate(layout: Layout, denoising: Denoising) -> bytes:
    """A GIF of a plan's points from noise to clean, colored by their noise level."""
    width, footer = 5.6, 0.62
    height = width * _aspect(layout) + footer
    figure = plt.figure(figsize=(width, height), dpi=100, facecolor=PAPER)
    axes = figure.add_axes((0, footer / height, 1, 1 - footer / height))
    draw_maze(axes, layout, denoising.goal)
    links = axes.add_collection(LineCollection([], linewidths=2, zorder=3))
    dots = axes.scatter([], [], 26, [], cmap=_NOISE, vmin=0, vmax=1, edgecolors="white", linewidths=0.6, zorder=4)
    start = denoising.positions[0, 0, ::-1]
    axes.plot(*start, "o", markersize=9, color="white", markeredgecolor=INK, markeredgewidth=1.5, zorder=7)
    scale = figure.colorbar(
        dots, cax=figure.add_axes((0.6, 0.36 / height, 0.36, 0.1 / height)), orientation="horizontal"
    )
    scale.set_ticks([0, 1], labels=["clean", "noise"], fontsize=9, color=INK)
    scale.ax.tick_params(length=0)
    scale.outline.set_visible(False)
    text = figure.text(0.02, 0.3 / height, "", fontsize=9, color=INK)
    last, frames = len(denoising.positions) - 1, []
    for row in np.unique(np.linspace(0, last, min(last + 1, MOST_FRAMES)).round().astype(int)):
        points, levels = denoising.positions[row][:, ::-1], denoising.levels[row]
        dots.set(offsets=points, array=levels)
        # Between noisy points a line means nothing yet: it fades in as its ends become clean.
        faint = 0.9 * (1 - np.maximum(levels[1:], levels[:-1])) ** 2 + 0.04
        links.set(segments=np.stack([points[:-1], points[1:]], axis=1), color=_NOISE(levels[1:]), alpha=faint)
        text.set_text(f"denoising step {row} of {last}")
        figure.canvas.draw()
        frames.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]
    plt.close(figure)
    return gif(frames, max(60, min(160, 5_000 // len(frames))))


def gif(frames: list[np.ndarray], milliseconds: int) -> bytes:
    """Frames (height, width, 3) as a GIF that shows each of them so long, and lingers at its ends."""
    # One palette for all frames, from a few of them side by side; this method keeps small patches of rare colors.
    some = Image.fromarray(np.hstack(frames[:: max(1, len(frames) // 6)]))
    palette = some.quantize(255, method=Image.Quantize.MAXCOVERAGE)
    first, *rest = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    durations = [600, *[milliseconds] * (len(frames) - 2), 2_000][: len(frames)]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)
    return file.getvalue()


def draw_maze(axes: Axes, layout: Layout, goal: np.ndarray) -> None:
    """A maze from above, with a goal and its radius."""
    rows, columns = layout.shape
    boxes = layout.wall_boxes()
    walls = [Rectangle((y0, x0), y1 - y0, x1 - x0) for x0, x1, y0, y1 in boxes]
    axes.add_collection(PatchCollection(walls, facecolor=_WALL, edgecolor=_WALL, linewidth=0.6, zorder=1))
    axes.add_patch(Circle((goal[1], goal[0]), GOAL_RADIUS, facecolor=GREEN, alpha=0.22, linewidth=0, zorder=2))
    look: dict[str, Any] = {"markersize": 11, "color": GREEN, "markeredgecolor": "white", "zorder": 6}
    axes.plot(goal[1], goal[0], "*", **look, label="goal and its radius")
    inner = WALL_SHIFT + 0.5  # where the free cells begin
    axes.set_xlim(inner - _BORDER, inner + columns - 2 + _BORDER)
    axes.set_ylim(inner + rows - 2 + _BORDER, inner - _BORDER)
    axes.set(aspect="equal", facecolor=_FLOOR, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _aspect(layout: Layout) -> float:
    """Height over width of what `draw_maze` shows."""
    rows, columns = layout.shape
    return (rows - 2 + 2 * _BORDER) / (columns - 2 + 2 * _BORDER)
