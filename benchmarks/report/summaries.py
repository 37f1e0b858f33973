"""The numbers of the tables: a data frame of episodes, and of it one line for each agent on each environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dfplan.benchmarks.protocol import EPISODES
from dfplan.benchmarks.report.intervals import Estimate, compare, interquartile_mean, mean, over_seeds_and_starts
from dfplan.benchmarks.results import Cell, Timing
from dfplan.benchmarks.rows import ROWS, TRAINING_SEEDS
from dfplan.envs.reference import normalized_score


@dataclass(frozen=True)
class Summary:
    """What tables, pages and plots are made from: results, and the numbers of each agent on each environment."""

    cells: list[Cell]
    timings: list[Timing]
    rows: pd.DataFrame
    """With the columns that `summarize` names."""

    @property
    def environments(self) -> list[str]:
        """Environment ids, in the order of the rows."""
        return list(self.rows["env"].unique())

    def of(self, env_id: str) -> Summary:
        """The part of one environment."""
        cells = [cell for cell in self.cells if cell.env_id == env_id]
        timings = [timing for timing in self.timings if timing.env_id == env_id]
        return Summary(cells, timings, self.rows[self.rows["env"] == env_id])


def in_order(agents: Iterable[str]) -> list[str]:
    """Different names, in the order of the registered rows; those of no row come last."""
    rank = {name: place for place, name in enumerate(ROWS)}
    return sorted(set(agents), key=lambda name: (rank.get(name, len(rank)), name))


def episodes_of(cells: Iterable[Cell]) -> pd.DataFrame:
    """One line an episode, in the order of the cells.

    Columns: `env` and `agent` (names), `training_seed` (-1 for an agent that is not trained), `start` (reset seed),
    `return` (raw), `score` (D4RL-normalised), `success`, and `first_reach` (steps, missing if the goal was not reached).
    """
    columns = {"start": "seeds", "return": "returns", "success": "success", "first_reach": "first_reach"}
    frames = []
    for cell in cells:
        episodes = pd.DataFrame({column: getattr(cell, name) for column, name in columns.items()})
        seed = -1 if cell.training_seed is None else cell.training_seed
        episodes = episodes.assign(env=cell.env_id, agent=cell.agent, training_seed=seed).astype({"first_reach": float})
        frames.append(episodes.assign(score=normalized_score(cell.env_id, cell.returns)))
    return pd.concat(frames, ignore_index=True)


def summarize(cells: Sequence[Cell], timings: Iterable[Timing]) -> Summary:
    """The numbers of each agent on each environment, all training seeds together, in the order of the cells.

    Columns of the rows, in which a missing number is NaN:

    - `env`, `agent`, `about`, `execution`, `parameters`, `device`: as in the cells; `play_seconds` (mean of them).
    - `training_seeds` (0 for an agent that is not trained), `episodes` (of each of them, the fewest), `lacks` (`lacking`).
    - `return` (mean, raw), `normalized` (mean score), `iqm` (interquartile mean of the score), `over_seeds` (mean score again),
      `difference` (of scores to the environment's first agent, paired by start) with `wilcoxon_p`. The last four have their
      95% interval in `..._low` and `..._high`: `mean`, `interquartile_mean`, `over_seeds_and_starts` and `compare`.
    - `seed_means`, `success` (share of episodes), `first_reach` (mean steps), `curve` (mean return up to each step).
    - `decision_median_ms`, `decision_p95_ms`, `decision_mean_ms`, `plan_ms`: of the timing.
    - `training_seconds` (mean), `stacked` (training seeds of one run), `machines`: of the weights' cards.

    Raises ValueError if there is no cell.
    """
    if not cells:
        raise ValueError("a table needs one or more results")
    measured = {(timing.env_id, timing.agent): timing for timing in timings}
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.env_id, cell.agent), []).append(cell)
    episodes = dict(list(episodes_of(cells).groupby(["env", "agent"], sort=False)))
    firsts = {env_id: episodes[env_id, agent] for env_id, agent in reversed(groups)}
    rows = [
        dict(zip(("env", "agent"), key, strict=True))
        | _scores(episodes[key], firsts[key[0]])
        | _times(measured.get(key))
        | _facts(group)
        for key, group in groups.items()
    ]
    return Summary(list(cells), list(measured.values()), pd.DataFrame(rows))


def lacking(trained: bool, training_seeds: int, episodes: int) -> list[str]:
    """What a group of results lacks to be a recorded one, in words; empty if nothing."""
    found = [(training_seeds, len(TRAINING_SEEDS), "seeds")] if trained else []
    found.append((episodes, EPISODES, "episodes"))
    return [f"{has} of {wanted} {what}" for has, wanted, what in found if has < wanted]


def _facts(cells: Sequence[Cell]) -> dict[str, Any]:
    first, cards = cells[0], [cell.card for cell in cells if cell.card]
    trained, episodes = first.training_seed is not None, [len(cell.seeds) for cell in cells]
    curves = [cell.reward_curve for cell in cells]
    return {
        "about": first.about,
        "execution": first.execution,
        "training_seeds": len(cells) if trained else 0,
        "episodes": min(episodes),
        "lacks": lacking(trained, len(cells), min(episodes)),
        "curve": np.average(curves, axis=0, weights=episodes).cumsum() if all(curves) else np.zeros(0),
        "training_seconds": pd.Series([card.get("training_seconds") for card in cards], dtype=float).mean(),
        "stacked": len(cards[0].get("seeds", [])) if cards else 0,
        "machines": [card.get("hardware") for card in cards],
        "parameters": np.nan if first.parameters is None else first.parameters,
        "device": first.device,
        "play_seconds": np.mean([cell.seconds for cell in cells]),
    }


def _scores(own: pd.DataFrame, first: pd.DataFrame) -> dict[str, Any]:
    """The numbers of one agent's episodes, and their difference to those of the environment's first agent."""
    strata = [seed["score"].to_numpy() for _, seed in own.groupby("training_seed", sort=False)]
    means = tuple(float(stratum.mean()) for stratum in strata)
    scores, others = _crossed(own), _crossed(first)
    spread = Estimate(float(np.mean(means))) if scores is None else over_seeds_and_starts(scores)
    difference, p = Estimate(np.nan), np.nan
    if own is not first and scores is not None and others is not None and scores.columns.equals(others.columns):
        compared = compare(scores, others, list(scores.columns), list(others.columns))
        difference, p = compared.difference, compared.p
    estimates = {"normalized": mean(strata), "iqm": interquartile_mean(strata), "over_seeds": spread, "difference": difference}
    found = {**own[["return", "success", "first_reach"]].mean(), "seed_means": means, "wilcoxon_p": p}
    for name, estimate in estimates.items():
        low, high = (np.nan if bound is None else bound for bound in (estimate.low, estimate.high))
        found |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
    return found


def _crossed(episodes: pd.DataFrame) -> pd.DataFrame | None:
    """Scores, a line for each training seed and a column for each start; None where seeds played different starts."""
    scores = episodes.pivot(index="training_seed", columns="start", values="score")
    return None if scores.isna().any(axis=None) else scores


def _times(timing: Timing | None) -> dict[str, float]:
    names = {"decision_median_ms": "median", "decision_p95_ms": "p95", "decision_mean_ms": "mean", "plan_ms": "plan"}
    found = {column: getattr(timing, name, None) for column, name in names.items()}
    return {column: np.nan if value is None else value for column, value in found.items()}
