"""The plots of docs/, drawn from recorded results: scores, speed, returns over an episode, learning curves.

Each plot is two functions: its numbers, plain JSON rounded to what can be seen, and the figure that draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dfplan.benchmarks import drawing
from dfplan.benchmarks.cells import env_folder
from dfplan.benchmarks.counterparts import printed_for
from dfplan.benchmarks.drawing import FAINT, INK, PAPER, REPORTED, color, label_ends, label_points, panels
from dfplan.benchmarks.summaries import Summary

Numbers = dict[str, Any]
"""By environment folder, then by agent."""
POINTS = 80
"""Of a curve over an episode."""


def score_numbers(benchmark: Mapping[str, Sequence[Summary]]) -> Numbers:
    """[mean, low, high, [printed scores]] of each agent; low and high None where there is no interval."""
    return {
        env_folder(env_id): {
            row.agent: [*map(_seen, (row.score.value, row.score.low, row.score.high)),
                        [entry.score for entry in printed_for(row.agent, env_id)]]
            for row in rows
        }
        for env_id, rows in benchmark.items()
    }  # fmt: skip


def speed_numbers(benchmark: Mapping[str, Sequence[Summary]]) -> Numbers:
    """[mean milliseconds of a decision, score, low, high] of each agent that was timed."""
    return _filled({
        env_folder(env_id): {
            row.agent: [float(f"{max(row.timing.mean, 1e-3):.3g}"),
                        *map(_seen, (row.score.value, row.score.low, row.score.high))]
            for row in rows if row.timing is not None
        }
        for env_id, rows in benchmark.items()
    })  # fmt: skip


def return_numbers(benchmark: Mapping[str, Sequence[Summary]]) -> Numbers:
    """[steps, mean return up to each of them] of each agent whose rewards were kept."""
    found: Numbers = {}
    for env_id, rows in benchmark.items():
        curves = {row.agent: row.cumulative_return for row in rows if row.cumulative_return.size}
        found[env_folder(env_id)] = {agent: _thinned(curve) for agent, curve in curves.items()}
    return _filled(found)


def learning_numbers(benchmark: Mapping[str, Sequence[Summary]]) -> Numbers:
    """One [steps, scores] for each training run of each agent whose card keeps a curve.

    Only in the environment that the curve was measured in: the same weights play others too.
    """
    found = {env_folder(env_id): {row.agent: _curves(row) for row in rows} for env_id, rows in benchmark.items()}
    return _filled({name: _filled(agents) for name, agents in found.items()})


def _curves(row: Summary) -> list[list[list[float]]]:
    """Of each different card: training seeds that were trained together share one."""
    curves: list[list[list[float]]] = []
    for card in (cell.card for cell in row.cells if cell.card):
        points = [point for point in card.get("curve") or [] if "normalized" in point and "step" in point]
        curve = [[point["step"] for point in points], [round(point["normalized"], 1) for point in points]]
        if points and _measured_in(card) in (None, row.env_id) and curve not in curves:
            curves.append(curve)
    return curves


def _measured_in(card: Mapping[str, Any]) -> str | None:
    score = card.get("score")
    if not isinstance(score, dict):  # a user's card may hold a bare number
        return None
    first: Mapping[str, Any] = score.get("each", [score])[0]
    return first.get("env")


def _seen(value: float | None) -> float | None:
    return None if value is None else round(value, 1) + 0.0


def _filled(numbers: Numbers) -> Numbers:
    return {name: agents for name, agents in numbers.items() if agents}


def _thinned(curve: np.ndarray) -> list[list[float]]:
    steps = np.unique(np.linspace(1, len(curve), min(POINTS, len(curve))).round().astype(int))
    return [steps.tolist(), [round(float(value), 1) + 0.0 for value in curve[steps - 1]]]


def draw_scores(numbers: Numbers) -> Figure:
    """One line an agent, one panel an environment: dot and interval, hollow diamonds for printed scores."""
    agents = list(dict.fromkeys(agent for rows in numbers.values() for agent in rows))
    figure, axes = panels(list(numbers), 3.7, 0.19 * len(agents) + 0.75)
    for number, (panel, rows) in enumerate(zip(axes, numbers.values(), strict=True)):
        for agent, (value, low, high, printed) in rows.items():
            line = len(agents) - 1 - agents.index(agent)
            panel.plot(printed, [line] * len(printed), "D", color=PAPER, markeredgecolor=REPORTED, markersize=5, zorder=2)
            if low is not None:
                panel.plot([low, high], [line, line], color=color(agent), linewidth=2.4, solid_capstyle="round", zorder=3)
            panel.plot(value, line, "o", color=color(agent), markersize=5, zorder=4)
        panel.set_ylim(-0.7, len(agents) - 0.3)
        shown = agents[::-1] if number % drawing.COLUMNS == 0 else [""] * len(agents)
        panel.set_yticks(range(len(agents)), shown)
        panel.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    _below(axes, "D4RL-normalised score")
    drawing.legend(figure, [
        Line2D([], [], color=INK, marker="o", markersize=5, linewidth=2.4, label="measured, 95% interval over episodes"),
        Line2D([], [], color=PAPER, marker="D", markeredgecolor=REPORTED, markersize=5, label="printed by others"),
    ])  # fmt: skip
    return figure


def draw_speed(numbers: Numbers) -> Figure:
    """Score over the mean time of a decision, each point with its name."""
    figure, axes = panels(list(numbers), 4.3, _height(numbers))
    slowest = [max(row[0] for row in rows.values()) for rows in numbers.values()]
    fastest = [min(row[0] for row in rows.values()) for rows in numbers.values()]
    for panel, rows in zip(axes, numbers.values(), strict=True):
        for agent, (milliseconds, value, low, high) in rows.items():
            if low is not None:
                panel.plot([milliseconds] * 2, [low, high], color=color(agent), linewidth=1.6, zorder=3)
            panel.plot(milliseconds, value, "o", color=color(agent), markersize=5, zorder=4)
        panel.set_xscale("log")
        panel.set_xlim(min(fastest) / 3, max(slowest) * 3)
    _below(axes, "mean milliseconds of a decision, replanning included")
    axes[0].set_ylabel("D4RL-normalised score", fontsize=8, color=INK)
    _families(figure, numbers)
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for panel, rows in zip(axes, numbers.values(), strict=True):
        label_points(panel, list(rows), [(row[0], row[1]) for row in rows.values()])
    return figure


def draw_returns(numbers: Numbers) -> Figure:
    """Mean return so far over the episode's steps: when the goal is reached, and whether it is kept."""
    figure, axes = panels(list(numbers), 4.3, _height(numbers))
    for panel, rows in zip(axes, numbers.values(), strict=True):
        for agent, (steps, values) in rows.items():
            panel.plot(steps, values, color=color(agent), linewidth=1.3)
        panel.set_xlim(0, max(row[0][-1] for row in rows.values()))
    figure.canvas.draw()
    for panel, rows in zip(axes, numbers.values(), strict=True):
        label_ends(panel, list(rows), [row[1][-1] for row in rows.values()], [color(a) for a in rows], panel.get_xlim()[1])
    _below(axes, "step of the episode")
    axes[0].set_ylabel("mean return so far", fontsize=8, color=INK)
    _families(figure, numbers)
    return figure


def draw_learning(numbers: Numbers) -> Figure:
    """Score on tuning seeds over training steps: thin lines are training runs, the thick one is their mean."""
    figure, axes = panels(list(numbers), 4.3, _height(numbers))
    for panel, rows in zip(axes, numbers.values(), strict=True):
        for agent, curves in rows.items():
            for steps, values in curves:
                thin = len(curves) > 1
                panel.plot(steps, values, color=color(agent), linewidth=0.7 if thin else 1.6, alpha=0.55 if thin else 1)
            if len(curves) > 1 and all(steps == curves[0][0] for steps, _ in curves):
                panel.plot(curves[0][0], np.mean([v for _, v in curves], axis=0), color=color(agent), linewidth=1.6)
        panel.set_xscale("log")
        panel.set_xlim(right=max(steps[-1] for curves in rows.values() for steps, _ in curves))
    figure.canvas.draw()
    for panel, rows in zip(axes, numbers.values(), strict=True):
        ends = {agent: fmean(values[-1] for _, values in curves) for agent, curves in rows.items()}
        edge = panel.get_xlim()[1]
        for agent, end in ends.items():  # from where a shorter training ended to its name
            panel.plot([rows[agent][0][0][-1], edge], [end, end], ":", color=color(agent), linewidth=0.8)
        label_ends(panel, list(ends), list(ends.values()), [color(agent) for agent in ends], edge)
    _below(axes, "training steps (online: decisions)")
    axes[0].set_ylabel("D4RL-normalised score, tuning seeds", fontsize=8, color=INK)
    _families(figure, numbers)
    return figure


def _height(numbers: Numbers) -> float:
    """Inches of a panel that leave room for its longest list of names."""
    return max(2.6, 0.12 * max(map(len, numbers.values())) + 0.7)


def _below(axes: Sequence[Axes], text: str) -> None:
    for panel in axes[-drawing.COLUMNS :]:
        panel.set_xlabel(text, fontsize=8, color=INK)


def _families(figure: Figure, numbers: Numbers) -> None:
    agents = {agent for rows in numbers.values() for agent in rows}
    shown = {drawing.family(agent): color(agent) for agent in sorted(agents)}
    names = {found: "others" if found is None else drawing.FAMILY_NAMES[found] for found in shown}
    order = sorted(shown, key=lambda found: 99 if found is None else found)
    drawing.legend(figure, [Line2D([], [], color=shown[i], marker="o", markersize=5, label=names[i]) for i in order])


PLOTS: dict[str, tuple[Callable[[Mapping[str, Sequence[Summary]]], Numbers], Callable[[Numbers], Figure]]] = {
    "scores.png": (score_numbers, draw_scores),
    "speed.png": (speed_numbers, draw_speed),
    "returns.png": (return_numbers, draw_returns),
    "learning.png": (learning_numbers, draw_learning),
}


def numbers(benchmark: Mapping[str, Sequence[Summary]]) -> dict[str, Numbers]:
    """The numbers of every plot that has any, by file name."""
    return _filled({name: collect(benchmark) for name, (collect, _) in PLOTS.items()})


def write(folder: Path, all_numbers: Mapping[str, Numbers]) -> None:
    """Draw the plots into a folder, and remove those that have no numbers."""
    for name, (_, draw) in PLOTS.items():
        if name in all_numbers:
            drawing.save(folder / name, draw(all_numbers[name]), all_numbers[name])
        else:
            (folder / name).unlink(missing_ok=True)


def stale(folder: Path, all_numbers: Mapping[str, Numbers]) -> list[str]:
    """Names of plots that are missing, surplus, or drawn from other numbers."""
    wanted = {name: drawing.digest(all_numbers[name]) if name in all_numbers else None for name in PLOTS}
    return [name for name, expected in wanted.items() if drawing.drawn_numbers(folder / name) != expected]
