"""The numbers of the tables: a data frame of episodes, and of it one line for each agent in each environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from dfplan.benchmarks.protocol import EPISODES, score
from dfplan.benchmarks.report.intervals import Estimate, compare, interquartile_mean, mean, over_seeds_and_starts
from dfplan.benchmarks.results import Cell, Timing
from dfplan.benchmarks.rows import ROWS, TRAINING_SEEDS


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

    def of(self, env_id: str) -> Summary:
        """The part of one environment."""
        cells, timings = ([one for one in found if one.env_id == env_id] for found in (self.cells, self.timings))
        return Summary(cells, timings, self.rows[self.rows["env"] == env_id])  # type: ignore[arg-type]


def in_order(agents: Iterable[str]) -> list[str]:
    """Different names, in the order of the registered rows; those of no row come last."""
    rank = {name: place for place, name in enumerate(ROWS)}
    return sorted(set(agents), key=lambda name: (rank.get(name, len(rank)), name))


def episodes_of(cells: Iterable[Cell]) -> pd.DataFrame:
    """One line an episode, in the order of the cells.

    Columns: `env` and `agent` (names), `training_seed` (-1 for an agent that is not trained), `start` (reset seed),
    `return` (raw), `score`, `success` and `first_reach` (steps; both are missing where the environment has no success).
    """
    frames = []
    for cell in cells:
        arrived = {"success": cell.success, "first_reach": cell.first_reach}
        columns = {
            "start": cell.seeds,
            "return": cell.returns,
            **{name: np.nan if steps is None else np.array(steps, dtype=float) for name, steps in arrived.items()},
            "score": score(cell.reference, cell.returns, cell.success)[1],
            "env": cell.env_id,
            "agent": cell.agent,
            "training_seed": -1 if cell.training_seed is None else cell.training_seed,
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def summarize(cells: Sequence[Cell], timings: Iterable[Timing]) -> Summary:
    """The numbers of each agent in each environment, all training seeds together, in the order of the cells.

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
        {"env": env_id, "agent": agent}
        | _scores(episodes[env_id, agent], firsts[env_id])
        | _times(measured.get((env_id, agent)))
        | _facts(group)
        for (env_id, agent), group in groups.items()
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
    return {name: getattr(first, name) for name in ("about", "execution", "device")} | {
        "training_seeds": len(cells) if trained else 0,
        "episodes": min(episodes),
        "lacks": lacking(trained, len(cells), min(episodes)),
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
    means = tuple(float(stratum.mean()) for stratum in strata)
    mine, others = (frame.pivot(index="training_seed", columns="start", values="score") for frame in (own, first))
    crossed = not mine.isna().any(axis=None)  # otherwise training seeds played different starts
    estimates = {
        "normalized": mean(strata),
        "iqm": interquartile_mean(strata),
        "over_seeds": over_seeds_and_starts(mine) if crossed else Estimate(float(np.mean(means))),
        "difference": Estimate(np.nan),
    }
    found = {**own[["return", "success", "first_reach"]].mean(), "seed_means": means, "wilcoxon_p": np.nan}
    if own is not first and crossed and not others.isna().any(axis=None) and mine.columns.equals(others.columns):
        compared = compare(mine, others, list(mine.columns), list(others.columns))
        estimates["difference"], found["wilcoxon_p"] = compared.difference, compared.p
    for name, estimate in estimates.items():
        bounds = {f"_{part}": np.nan if bound is None else bound for part, bound in asdict(estimate).items()}
        found |= {name: bounds["_value"], f"{name}_low": bounds["_low"], f"{name}_high": bounds["_high"]}
    return found


def _times(timing: Timing | None) -> dict[str, float]:
    names = {"decision_median_ms": "median", "decision_p95_ms": "p95", "decision_mean_ms": "mean", "plan_ms": "plan"}
    found = {column: getattr(timing, name, None) for column, name in names.items()}
    return {column: np.nan if value is None else value for column, value in found.items()}
