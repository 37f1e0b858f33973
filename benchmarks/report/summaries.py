"""The numbers of the tables: a data frame of episodes, and of it one line for each agent in each environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dfplan.benchmarks.protocol import EPISODES, score
from dfplan.benchmarks.results import Cell, Timing
from dfplan.benchmarks.rows import ROWS, TRAINING_SEEDS
from dfplan.intervals import Estimate, compare, interquartile_mean, mean, over_seeds_and_starts


@dataclass(frozen=True)
class Summary:
    """What tables, pages and plots are made from: results, and the numbers of each agent in each environment."""

    cells: list[Cell]
    timings: list[Timing]
    rows: pd.DataFrame
    """With the columns that `summarize` names."""

    @property
    def environments(self) -> list[str]:
        """Environment ids, in the order of the rows."""
        return list(self.rows["env"].unique())

    def of(self, *env_ids: str) -> Summary:
        """The part of these environments."""
        cells, timings = ([one for one in found if one.env_id in env_ids] for found in (self.cells, self.timings))
        return Summary(cells, timings, self.rows[self.rows["env"].isin(env_ids)])  # type: ignore[arg-type]


def in_order(agents: Iterable[str]) -> list[str]:
    """Different names, in the order of the registered rows; those of no row come last."""
    rank = {name: place for place, name in enumerate(ROWS)}
    return sorted(set(agents), key=lambda name: (rank.get(name, len(rank)), name))


def episodes_of(cells: Iterable[Cell]) -> pd.DataFrame:
    """One line an episode, in the order of the cells.

    Columns: `env` and `agent` (names), `training_seed` (-1 for an agent that is not trained), `start` (reset seed),
    `return` (raw), `score`, `success` and `first_reach` (steps; both are missing where the environment has no success).
    """
    frames = [
        pd.DataFrame(
            {
                "start": cell.seeds,
                "return": cell.returns,
                "success": np.nan if cell.success is None else np.array(cell.success, float),
                "first_reach": np.nan if cell.first_reach is None else np.array(cell.first_reach, float),
                "score": score(cell.reference, cell.returns, cell.success)[1],
                "env": cell.env_id,
                "agent": cell.agent,
                "training_seed": -1 if cell.training_seed is None else cell.training_seed,
            }
        )
        for cell in cells
    ]
    return pd.concat(frames, ignore_index=True)


def summarize(cells: Sequence[Cell], timings: Iterable[Timing]) -> Summary:
    """The numbers of each agent in each environment, all training seeds together, in the order of the cells.

    Columns of the rows, in which a missing number is NaN:

    - `env`, `agent`, `about`, `execution`, `parameters`, `device`: as in the cells; `play_seconds` (mean of them).
    - `training_seeds` (0 for an agent that is not trained), `episodes` (of each of them, the fewest), `lacks`
      (what it lacks to be a recorded row, in words).
    - `return` (mean, raw), `normalized` (mean score), `iqm` (interquartile mean of the score), `over_seeds` (mean score again),
      `difference` (of scores to the environment's first agent, paired by start). The last four have their
      95% interval in `..._low` and `..._high`: `mean`, `interquartile_mean`, `over_seeds_and_starts` and `compare`.
    - `seed_means`, `success` (share of episodes), `first_reach` (mean steps), `curve` (mean return up to each step).
    - `decision_median_ms`, `decision_p95_ms`, `decision_mean_ms`, `plan_ms`: of the timing.
    - `training_seconds` (mean), `stacked` (training seeds of one run), `machines`: of the weights' cards.

    Raises ValueError if there is no cell.
    """
    if not cells:
        raise ValueError("a table needs one or more results")
    measured = {(timing.env_id, timing.agent): timing for timing in timings}
    episodes = dict(list(episodes_of(cells).groupby(["env", "agent"], sort=False)))
    firsts = {env_id: own for (env_id, _), own in reversed(episodes.items())}
    rows = [
        {"env": env_id, "agent": agent}
        | _scores(own, firsts[env_id])
        | _times(measured.get((env_id, agent)))
        | _facts([cell for cell in cells if (cell.env_id, cell.agent) == (env_id, agent)])
        for (env_id, agent), own in episodes.items()
    ]
    return Summary(list(cells), list(measured.values()), pd.DataFrame(rows))


def _facts(cells: Sequence[Cell]) -> dict[str, Any]:
    first, cards = cells[0], [cell.card for cell in cells if cell.card]
    trained, episodes = first.training_seed is not None, [len(cell.seeds) for cell in cells]
    curves = [cell.reward_curve for cell in cells]
    whole = [(min(episodes), EPISODES, "episodes")]
    whole = [(len(cells), len(TRAINING_SEEDS), "seeds"), *whole] if trained else whole
    return {name: getattr(first, name) for name in ("about", "execution", "device")} | {
        "training_seeds": len(cells) if trained else 0,
        "episodes": min(episodes),
        "lacks": [f"{has} of {wanted} {what}" for has, wanted, what in whole if has < wanted],
        "curve": np.average(curves, axis=0, weights=episodes).cumsum() if all(curves) else np.zeros(0),
        "training_seconds": pd.Series([card.get("training_seconds") for card in cards], dtype=float).mean(),
        "stacked": len(cards[0].get("seeds", [])) if cards else 0,
        "machines": [card.get("hardware") for card in cards],
        "parameters": np.nan if first.parameters is None else first.parameters,
        "play_seconds": np.mean([cell.seconds for cell in cells]),
    }


def _scores(own: pd.DataFrame, first: pd.DataFrame) -> dict[str, Any]:
    """The numbers of one agent's episodes, and their difference to those of the environment's first agent."""
    strata = [seed["score"].to_numpy() for _, seed in own.groupby("training_seed", sort=False)]
    mine, others = (frame.pivot(index="training_seed", columns="start", values="score") for frame in (own, first))
    means = tuple(float(stratum.mean()) for stratum in strata)
    # Otherwise training seeds played different starts, or the two agents did.
    crossed, both = (not frame.isna().any(axis=None) for frame in (mine, others))
    paired = own is not first and crossed and both and mine.columns.equals(others.columns)
    estimates = {
        "normalized": mean(strata, same_starts=crossed),
        "iqm": interquartile_mean(strata, same_starts=crossed),
        "over_seeds": over_seeds_and_starts(mine) if crossed else Estimate(float(np.mean(means))),
        "difference": compare(mine, others) if paired else Estimate(np.nan),
    }
    found = {**own[["return", "success", "first_reach"]].mean(), "seed_means": means}
    for name, estimate in estimates.items():
        low, high = (np.nan if bound is None else bound for bound in (estimate.low, estimate.high))
        found |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
    return found


def _times(timing: Timing | None) -> dict[str, float]:
    names = {"decision_median_ms": "median", "decision_p95_ms": "p95", "decision_mean_ms": "mean", "plan_ms": "plan"}
    found = {column: getattr(timing, name, None) for column, name in names.items()}
    return {column: np.nan if value is None else value for column, value in found.items()}
