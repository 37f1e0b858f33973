"""The plots of docs/, drawn from recorded results: scores, speed, returns over an episode, learning curves.

Each plot is two functions: its numbers, a frame rounded to what can be seen, and the figure that draws them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dfplan.benchmarks.cells import Cell, env_folder
from dfplan.benchmarks.report import figures
from dfplan.benchmarks.report.figures import FAINT, GRID, INK, PAPER
from dfplan.benchmarks.report.published import printed_for
from dfplan.benchmarks.report.summaries import Summary
from dfplan.benchmarks.rows import FAMILIES, ROWS

POINTS = 80
"""Of a curve over an episode."""
COLUMNS = 3
"""Panels side by side."""
_COLORS = dict(zip(FAMILIES, (figures.BLUE, figures.ORANGE, figures.PINK, figures.GREEN, figures.SKY), strict=True))
_PRINTED = "#D55E00"
_LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))
_MARKS = "osD^vP"


def score_numbers(summary: Summary) -> pd.DataFrame:
    """`env`, `agent`, `normalized` with its interval, `printed` (what others have printed) of each row."""
    rows = summary.rows
    printed = [tuple(one.score for one in printed_for(row.agent, row.env)) for row in rows.itertuples()]
    return _seen(rows, "normalized", "normalized_low", "normalized_high").assign(printed=printed)


def speed_numbers(summary: Summary) -> pd.DataFrame:
    """`env`, `agent`, `normalized` with its interval, mean `milliseconds` of a decision of each row that was timed."""
    rows = summary.rows[summary.rows["decision_mean_ms"].notna()]
    milliseconds = [float(f"{max(value, 1e-3):.3g}") for value in rows["decision_mean_ms"]]
    return _seen(rows, "normalized", "normalized_low", "normalized_high").assign(milliseconds=milliseconds)


def return_numbers(summary: Summary) -> pd.DataFrame:
    """`env`, `agent`, `step`, mean return up to it (`value`), of rows whose rewards were kept; `run` is 0."""
    found = []
    for row in summary.rows.itertuples():
        count = min(POINTS, len(row.curve))
        steps = np.unique(np.linspace(1, len(row.curve), count).round().astype(int))
        values = row.curve[steps - 1].round(1)
        found.append(pd.DataFrame({"env": row.env, "agent": row.agent, "run": 0, "step": steps, "value": values}))
    return pd.concat(found)


def learning_numbers(summary: Summary) -> pd.DataFrame:
    """`env`, `agent`, training `run`, `step`, score (`value`), of each run whose card keeps a curve.

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
    points = [point for point in card.get("curve") or [] if "normalized" in point and "step" in point]
    return [(point["step"], point["normalized"]) for point in points]


def _seen(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return rows[["env", "agent", *columns]].round(1)


def draw_scores(numbers: pd.DataFrame) -> Figure:
    """One line an agent, one panel an environment: dot and interval, hollow diamonds for printed scores."""
    agents = list(numbers["agent"].unique())[::-1]
    figure, panels = _panels(numbers, 3.7, 0.19 * len(agents) + 0.75)
    for place, (panel, rows) in enumerate(panels):
        for row in rows.itertuples():
            line, color = agents.index(row.agent), style(row.agent)["color"]
            panel.plot(row.printed, [line] * len(row.printed), "D", color=PAPER, markeredgecolor=_PRINTED, markersize=5)
            panel.plot([row.normalized_low, row.normalized_high], [line, line], color=color, linewidth=2.4)
            panel.plot(row.normalized, line, "o", color=color, markersize=5)
        panel.set_ylim(-0.7, len(agents) - 0.3)
        panel.set_yticks(range(len(agents)), agents if place % COLUMNS == 0 else [""] * len(agents))
        panel.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    _label(figure, "D4RL-normalised score")
    measured = Line2D([], [], color=INK, marker="o", markersize=5, linewidth=2.4, label="measured, 95% interval over episodes")
    printed = Line2D([], [], color=PAPER, marker="D", markeredgecolor=_PRINTED, markersize=5, label="printed by others")
    _legend(figure, [measured, printed])
    return figure


def draw_speed(numbers: pd.DataFrame) -> Figure:
    """Score over the mean time of a decision."""
    figure, panels = _panels(numbers, 3.9, 3.0)
    for panel, rows in panels:
        for row in rows.itertuples():
            look = style(row.agent)
            panel.plot([row.milliseconds] * 2, [row.normalized_low, row.normalized_high], color=look["color"], linewidth=1.2)
            panel.plot(row.milliseconds, row.normalized, **look | {"linestyle": ""})
        panel.set_xscale("log")
        panel.set_xlim(numbers["milliseconds"].min() / 2, numbers["milliseconds"].max() * 2)
    _label(figure, "mean milliseconds of a decision, replanning included", "D4RL-normalised score")
    _agents(figure, numbers, linestyle="")
    return figure


def draw_returns(numbers: pd.DataFrame) -> Figure:
    """Mean return so far over the episode's steps: when the goal is reached, and whether it is kept."""
    figure, panels = _panels(numbers, 3.9, 3.0)
    for panel, rows in panels:
        _draw_curves(panel, rows)
        panel.set_xlim(0, rows["step"].max())
    _label(figure, "step of the episode", "mean return so far")
    _agents(figure, numbers, marker="")
    return figure


def draw_learning(numbers: pd.DataFrame) -> Figure:
    """Score on tuning seeds over training steps: thin lines are training runs, the thick one is their mean."""
    figure, panels = _panels(numbers, 3.9, 2.6)
    for panel, rows in panels:
        _draw_curves(panel, rows)
        panel.set_xscale("log")
        panel.set_xlim(numbers["step"].min(), numbers["step"].max() * 1.1)
    _label(figure, "training steps (online: decisions)", "D4RL-normalised score, tuning seeds")
    _agents(figure, numbers, marker="")
    return figure


def _draw_curves(panel: Axes, rows: pd.DataFrame) -> None:
    """One line for each agent: the mean of its runs where they share their steps, over thin lines for several runs."""
    for agent, own in rows.groupby("agent", sort=False):
        look = style(agent) | {"marker": ""}
        runs = own.pivot(index="step", columns="run", values="value")
        if runs.shape[1] > 1:
            panel.plot(runs.interpolate(method="index", limit_area="inside"), **look, linewidth=0.6, alpha=0.5)
        if not runs.isna().any(axis=None):
            panel.plot(runs.mean(axis=1), **look, linewidth=1.5)


def style(agent: str) -> dict[str, Any]:
    """Color by the row's family; line and marker by its place in it."""
    family = ROWS[agent].family if agent in ROWS else ""
    others = [name for name, row in ROWS.items() if row.family == family]
    place = others.index(agent) if agent in others else len(others)
    line, mark = _LINES[place % len(_LINES)], _MARKS[place % len(_MARKS)]
    return {"color": _COLORS.get(family, FAINT), "linestyle": line, "marker": mark, "markersize": 5}


def _panels(numbers: pd.DataFrame, width: float, height: float) -> tuple[Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
    """One panel for each environment with its numbers; inches of one panel."""
    parts = list(numbers.groupby("env", sort=False))
    columns = min(COLUMNS, len(parts))
    lines = -(-len(parts) // columns)
    size = (width * columns, height * lines + 0.8)
    figure, grid = plt.subplots(lines, columns, squeeze=False, layout="constrained", figsize=size)
    for unused in grid.flat[len(parts) :]:
        unused.remove()
    for panel, (env_id, _) in zip(grid.flat, parts, strict=False):
        panel.set_title(env_folder(env_id), fontsize=10, color=INK, loc="left")
        panel.grid(True, color=GRID, linewidth=0.7)
        panel.set_axisbelow(True)
        panel.tick_params(which="both", colors=INK, labelsize=8, length=0)
        panel.spines[:].set_visible(False)
    return figure, zip(grid.flat, (rows for _, rows in parts), strict=False)


def _label(figure: Figure, below: str, beside: str = "") -> None:
    """What the axes mean: below the last panels, and beside all of them."""
    for panel in figure.axes[-COLUMNS:]:
        panel.set_xlabel(below, fontsize=8, color=INK)
    figure.supylabel(beside, fontsize=8, color=INK)


def _agents(figure: Figure, numbers: pd.DataFrame, **changes: str) -> None:
    """A legend of all agents, each with its line or marker."""
    agents = sorted(numbers["agent"].unique(), key=lambda agent: list(ROWS).index(agent) if agent in ROWS else len(ROWS))
    _legend(figure, [Line2D([], [], label=agent, **style(agent) | changes) for agent in agents])


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    columns = min(6, len(handles))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8, labelcolor=INK)


@dataclass(frozen=True)
class Plot:
    """A file of docs/."""

    caption: str
    numbers: Callable[[Summary], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]


PLOTS = {
    "scores.png": Plot(
        "Score of each agent with its 95% interval over episodes; diamonds are what others have printed",
        score_numbers,
        draw_scores,
    ),
    "speed.png": Plot("Score against the mean time of a decision, replanning included", speed_numbers, draw_speed),
    "returns.png": Plot("Mean return up to each step of an episode", return_numbers, draw_returns),
    "learning.png": Plot(
        "Score on tuning seeds during training; thin lines are single runs where there are several",
        learning_numbers,
        draw_learning,
    ),
}


def numbers(summary: Summary) -> dict[str, pd.DataFrame]:
    """The numbers of every plot that has any, by file name."""
    found = {name: plot.numbers(summary) for name, plot in PLOTS.items()}
    return {name: frame for name, frame in found.items() if len(frame)}


def digest(frame: pd.DataFrame) -> str:
    """sha256 of a plot's numbers."""
    return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()


def write(folder: Path, frames: Mapping[str, pd.DataFrame]) -> None:
    """Draw the plots into a folder, and remove those that have no numbers."""
    for name, plot in PLOTS.items():
        if name in frames:
            figures.save(folder / name, plot.draw(frames[name]), digest(frames[name]))
        else:
            (folder / name).unlink(missing_ok=True)


def stale(folder: Path, frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Names of plots that are missing, surplus, or drawn from other numbers."""
    wanted = {name: digest(frames[name]) if name in frames else None for name in PLOTS}
    return [name for name, expected in wanted.items() if figures.digest_of(folder / name) != expected]
