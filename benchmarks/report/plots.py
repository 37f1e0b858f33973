"""The plots of docs/, drawn from recorded results: scores, speed, returns over an episode, learning curves.

Each plot is two functions: its numbers, a frame rounded to what can be seen, and the figure that draws them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dfplan.benchmarks.protocol import UNITS
from dfplan.benchmarks.report import figures
from dfplan.benchmarks.report.figures import FAINT, GRID, INK, PAPER
from dfplan.benchmarks.report.published import printed_for
from dfplan.benchmarks.report.summaries import Summary, in_order
from dfplan.benchmarks.results import Cell
from dfplan.benchmarks.rows import FAMILIES, ROWS
from dfplan.envs.registry import short_name

POINTS = 80
"""Of a curve over an episode."""
COLUMNS = 3
"""Panels side by side."""
_COLORS = dict(zip(FAMILIES, figures.COLORS, strict=True))
_PRINTED = "#D55E00"
_DASHES = ((5, 1, 1, 1, 1, 1), (4, 4), (8, 2, 2, 2), (1, 4), (8, 4), (2, 6), (12, 3))
_LINES = ("-", "--", ":", "-.", *((0, dashes) for dashes in _DASHES))
_MARKS = "osD^vPX*h<>"
_SCORE = ["env", "agent", "normalized", "normalized_low", "normalized_high"]


def score_numbers(summary: Summary) -> pd.DataFrame:
    """`env`, `agent`, `normalized` with its interval, and `printed`, the scores that others have printed."""
    rows = summary.rows[_SCORE].round(1)
    return rows.assign(printed=[tuple(printed_for(row.agent, row.env)["score"]) for row in rows.itertuples()])


def speed_numbers(summary: Summary) -> pd.DataFrame:
    """`env`, `agent`, `normalized` with its interval, and mean `milliseconds` of a decision, of rows that were timed."""
    rows = summary.rows[summary.rows["decision_mean_ms"].notna()]
    times = [float(f"{max(value, 1e-3):.3g}") for value in rows["decision_mean_ms"]]
    return rows[_SCORE].round(1).assign(milliseconds=times)


def return_numbers(summary: Summary) -> pd.DataFrame:
    """`env`, `agent`, `step` and mean return up to it (`value`), of rows whose rewards were kept; `run` is 0."""
    found = []
    for row in summary.rows.itertuples():
        steps = np.unique(np.linspace(1, len(row.curve), min(POINTS, len(row.curve))).round().astype(int))
        shown = {"env": row.env, "agent": row.agent, "run": 0, "step": steps, "value": row.curve[steps - 1]}
        found.append(pd.DataFrame(shown))
    return pd.concat(found).round(1)


def learning_numbers(summary: Summary) -> pd.DataFrame:
    """`env`, `agent`, training `run`, `step` and score (`value`), of runs whose card keeps a curve.

    Only in the environment that the curve was measured in: the same weights play others too.
    """
    # Training seeds that were trained together share one curve.
    runs = dict.fromkeys((cell.env_id, cell.agent, *_curve(cell)) for cell in summary.cells)
    lines = [(env_id, agent, run, *point) for run, (env_id, agent, *curve) in enumerate(runs) for point in curve]
    return pd.DataFrame(lines, columns=["env", "agent", "run", "step", "value"]).round(1)


def _curve(cell: Cell) -> list[tuple[float, float]]:
    card = cell.card or {}
    score = card.get("score")
    each = score.get("each", [score]) if isinstance(score, dict) else [{}]  # a user's card may hold a bare number
    if each[0].get("env", cell.env_id) != cell.env_id:
        return []
    points = [point for point in card.get("curve") or [] if "step" in point]
    return [(point["step"], point[unit]) for point in points for unit in UNITS if unit in point]


def draw_scores(numbers: pd.DataFrame) -> Figure:
    """One line an agent, one panel an environment: dot and interval, hollow diamonds for printed scores."""
    agents = in_order(numbers["agent"])[::-1]
    figure, panels = _panels(numbers, 3.7, 0.19 * len(agents) + 0.75, "score")
    measured: dict[str, Any] = {"marker": "o", "markersize": 5, "linewidth": 2.4}
    printed: dict[str, Any] = {"marker": "D", "markersize": 5, "color": PAPER, "markeredgecolor": _PRINTED}
    for place, (panel, rows) in enumerate(panels):
        for row in rows.itertuples():
            line, color = agents.index(row.agent), style(row.agent)["color"]
            panel.plot(row.printed, [line] * len(row.printed), linestyle="", **printed)
            panel.plot(_interval(row), [line] * 3, color=color, markevery=[1], **measured)
        names = agents if place % COLUMNS == 0 else [""] * len(agents)
        panel.set(ylim=(-0.7, len(agents) - 0.3), yticks=range(len(agents)), yticklabels=names)
        panel.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    legend = {"measured, 95% interval over episodes": measured | {"color": INK}, "printed by others": printed}
    _legend(figure, legend)
    return figure


def draw_speed(numbers: pd.DataFrame) -> Figure:
    """Score over the mean time of a decision."""
    below = "mean milliseconds of a decision, replanning included"
    figure, panels = _panels(numbers, 3.9, 3.0, below, "score")
    times = numbers["milliseconds"]
    for panel, rows in panels:
        for row in rows.itertuples():
            look = style(row.agent) | {"linestyle": "-", "linewidth": 1.2, "markevery": [1]}
            panel.plot([row.milliseconds] * 3, _interval(row), **look)
        panel.set(xscale="log", xlim=(times.min() / 2, times.max() * 2))
    _legend(figure, {name: style(name) | {"linestyle": ""} for name in in_order(numbers["agent"])})
    return figure


def _interval(row: Any) -> list[float]:
    return [row.normalized_low, row.normalized, row.normalized_high]


def draw_curves(numbers: pd.DataFrame, below: str, beside: str, *, logarithmic: bool = False) -> Figure:
    """One line for each agent: the mean of its runs where they share their steps, over thin lines where there are several."""
    figure, panels = _panels(numbers, 3.9, 2.8, below, beside)
    for panel, rows in panels:
        for agent, own in rows.groupby("agent", sort=False):
            look = style(agent) | {"marker": ""}
            runs = own.pivot(index="step", columns="run", values="value")
            if runs.shape[1] > 1:
                panel.plot(runs.interpolate(method="index", limit_area="inside"), **look, linewidth=0.6, alpha=0.5)
            if not runs.isna().any(axis=None):
                panel.plot(runs.mean(axis=1), **look, linewidth=1.5)
        shown = numbers if logarithmic else rows
        limits = shown["step"].min(), shown["step"].max()
        panel.set(xscale="log" if logarithmic else "linear", xlim=limits)
    _legend(figure, {name: style(name) | {"marker": ""} for name in in_order(numbers["agent"])})
    return figure


def style(agent: str) -> dict[str, Any]:
    """Color by the row's family; line and marker by its place in it."""
    family = ROWS[agent].family if agent in ROWS else ""
    others = [name for name, row in ROWS.items() if row.family == family]
    place = others.index(agent) if agent in others else len(others)
    line, mark = _LINES[place % len(_LINES)], _MARKS[place % len(_MARKS)]
    return {"color": _COLORS.get(family, FAINT), "linestyle": line, "marker": mark, "markersize": 5}


def _panels(
    numbers: pd.DataFrame, width: float, height: float, below: str, beside: str = ""
) -> tuple[Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
    """One panel, of so many inches, for each environment with its numbers; what the axes mean stands below and beside."""
    parts = dict(list(numbers.groupby("env", sort=False)))
    columns = min(COLUMNS, len(parts))
    lines = -(-len(parts) // columns)
    size = (width * columns, height * lines + 0.8)
    figure, grid = plt.subplots(lines, columns, squeeze=False, layout="constrained", figsize=size)
    for unused in grid.flat[len(parts) :]:
        unused.remove()
    for panel, env_id in zip(figure.axes, parts, strict=True):
        panel.set_title(short_name(env_id), fontsize=10, color=INK, loc="left")
        panel.grid(True, color=GRID, linewidth=0.7)
        panel.set_axisbelow(True)
        panel.tick_params(which="both", colors=INK, labelsize=8, length=0)
        panel.spines[:].set_visible(False)
    for panel in figure.axes[-columns:]:
        panel.set_xlabel(below, fontsize=8, color=INK)
    figure.supylabel(beside, fontsize=8, color=INK)
    return figure, zip(figure.axes, parts.values(), strict=True)


def _legend(figure: Figure, looks: Mapping[str, Mapping[str, Any]]) -> None:
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    look = {"frameon": False, "fontsize": 8, "labelcolor": INK, "handlelength": 3}
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), **look)


@dataclass(frozen=True)
class Plot:
    """A file of docs/."""

    caption: str
    numbers: Callable[[Summary], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]


_BELOW = "training steps (online: decisions)"
_draw_returns = partial(draw_curves, below="step of the episode", beside="mean return so far")
_draw_learning = partial(draw_curves, below=_BELOW, beside="score, tuning seeds", logarithmic=True)
_SCORES = "Score of each agent with its 95% interval over episodes; diamonds are what others have printed"
_LEARNING = "Score on tuning seeds during training; thin lines are single runs where there are several"
PLOTS = {
    "scores.png": Plot(_SCORES, score_numbers, draw_scores),
    "speed.png": Plot("Score against the mean time of a decision, replanning included", speed_numbers, draw_speed),
    "returns.png": Plot("Mean return up to each step of an episode", return_numbers, _draw_returns),
    "learning.png": Plot(_LEARNING, learning_numbers, _draw_learning),
}


def numbers(summary: Summary) -> dict[str, pd.DataFrame]:
    """The numbers of every plot that has any, by file name."""
    found = {name: plot.numbers(summary) for name, plot in PLOTS.items()}
    return {name: frame for name, frame in found.items() if len(frame)}


def write(folder: Path, frames: Mapping[str, pd.DataFrame]) -> None:
    """Draw the plots into a folder, and remove those that have no numbers."""
    for name, plot in PLOTS.items():
        if name in frames:
            figures.save(folder / name, plot.draw(frames[name]), _digest(frames[name]))
        else:
            (folder / name).unlink(missing_ok=True)


def stale(folder: Path, frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Names of plots that are missing, surplus, or drawn from other numbers."""
    wanted = {name: _digest(frames[name]) if name in frames else None for name in PLOTS}
    return [name for name, expected in wanted.items() if figures.digest_of(folder / name) != expected]


def _digest(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()
