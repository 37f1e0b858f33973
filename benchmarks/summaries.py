"""What a table says of one agent on one environment: the numbers of its cells, of all training seeds together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from dfplan.benchmarks.cells import Cell, Timing
from dfplan.benchmarks.counterparts import PAGES
from dfplan.benchmarks.intervals import (
    Comparison,
    Estimate,
    compare,
    interquartile_mean,
    mean,
    over_seeds_and_starts,
    seed_means,
)
from dfplan.envs.reference import normalized_score

FULL_SEEDS, FULL_EPISODES = 3, 100
"""The protocol of a recorded row: fewer are said in the table. Untrained agents have no training seeds."""


@dataclass(frozen=True)
class Summary:
    """One row. Scores are D4RL-normalised; 'difference' is to the first row of the table, on the same starts."""

    env_id: str
    agent: str
    cells: tuple[Cell, ...]
    """One for each training seed."""
    timing: Timing | None
    raw: float
    """Mean raw return."""
    score: Estimate
    middle: Estimate
    """Interquartile mean."""
    spread: Estimate
    """The mean again, its interval over training seeds and starts; without one for fewer than three seeds."""
    seed_means: tuple[float, ...]
    difference: Comparison | None
    """None for the first row itself, and where the reset seeds differ from its own."""
    success: float
    first_reach: float | None
    """Mean steps over the episodes that reached the goal, None if none did."""
    training_seconds: float | None
    """Mean over the training seeds' cards, None for an agent without them."""

    @property
    def trained(self) -> bool:
        return self.cells[0].training_seed is not None

    @property
    def episodes(self) -> int:
        """Of each training seed; the smallest number where they differ."""
        return min(len(cell.seeds) for cell in self.cells)

    @property
    def full(self) -> bool:
        """Whether it has the training seeds and episodes of a recorded row."""
        return self.episodes >= FULL_EPISODES and (not self.trained or len(self.cells) >= FULL_SEEDS)

    @property
    def cumulative_return(self) -> np.ndarray:
        """Mean return (steps,) up to each step, over all episodes; empty where rewards were not kept."""
        curves = [cell.reward_curve for cell in self.cells]
        if not all(curves):
            return np.zeros(0)
        return np.average(curves, axis=0, weights=[len(cell.seeds) for cell in self.cells]).cumsum()


def ordered(cells: Iterable[Cell]) -> list[Cell]:
    """In the order of the algorithms' pages; rows without a page, such as the expert, come last."""
    rank = {name: number for number, name in enumerate(name for rows in PAGES.values() for name in rows)}
    return sorted(cells, key=lambda cell: (rank.get(cell.agent, len(rank)), cell.agent, cell.training_seed or 0))


def summarise(cells: Sequence[Cell], timings: Sequence[Timing]) -> list[Summary]:
    """The rows of one environment, in the order in which the cells name their agents.

    Raises ValueError if there is no cell, or they belong to several environments.
    """
    environments = {cell.env_id for cell in cells}
    if len(environments) != 1:
        raise ValueError(f"a table needs the cells of one environment, got {', '.join(sorted(environments)) or 'none'}")
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.agent, []).append(cell)
    first = next(iter(groups.values()))
    measured = {(timing.env_id, timing.agent): timing for timing in timings}
    return [_summary(group, first, measured.get((group[0].env_id, group[0].agent))) for group in groups.values()]


def _summary(cells: list[Cell], first: list[Cell], timing: Timing | None) -> Summary:
    scores = _scores(cells)
    steps = [reached for cell in cells for reached in cell.first_reach if reached is not None]
    training = [cell.card["training_seconds"] for cell in cells if cell.card and "training_seconds" in cell.card]
    return Summary(
        env_id=cells[0].env_id,
        agent=cells[0].agent,
        cells=tuple(cells),
        timing=timing,
        raw=fmean(value for cell in cells for value in cell.returns),
        score=mean(scores),
        middle=interquartile_mean(scores),
        spread=over_seeds_and_starts(scores) if _same_starts(cells) else Estimate(fmean(seed_means(scores))),
        seed_means=seed_means(scores),
        difference=None if cells is first else _difference(cells, first),
        success=fmean(entered for cell in cells for entered in cell.success),
        first_reach=fmean(steps) if steps else None,
        training_seconds=fmean(training) if training else None,
    )


def _difference(cells: list[Cell], first: list[Cell]) -> Comparison | None:
    if not _same_starts([*cells, *first]):
        return None
    return compare(_scores(cells), _scores(first), cells[0].seeds, first[0].seeds)


def _scores(cells: list[Cell]) -> list[np.ndarray]:
    return [normalized_score(cell.env_id, cell.returns) for cell in cells]


def _same_starts(cells: list[Cell]) -> bool:
    return all(cell.seeds == cells[0].seeds for cell in cells)
