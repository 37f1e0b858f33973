"""The sentences under a table: what its rows are, how they were measured and on what, and who printed the rest."""

from __future__ import annotations

from dfplan.benchmarks.protocol import EPISODES
from dfplan.benchmarks.report.intervals import RESAMPLES, SEEDS_FOR_SPREAD
from dfplan.benchmarks.report.published import TOLERANCE_POINTS, TOLERANCE_SHARE, reported
from dfplan.benchmarks.report.summaries import Summary
from dfplan.benchmarks.results import Cell, Timing
from dfplan.benchmarks.rows import TRAINING_SEEDS

PROTOCOL = (
    "Score: of episodes of the environment's own length, on reset seeds that tuning never uses, the same for all rows; what it "
    "is stands below each table. Its interval is a stratified bootstrap over episodes, strata = training seeds, "
    f"{RESAMPLES:,} resamples, BCa: it answers for other episodes of the same weights. The interval over training seeds and "
    f"starts resamples both, from {SEEDS_FOR_SPREAD} seeds on: it answers for other weights. IQM: interquartile mean, of the "
    "middle half of all episodes.",
    "The difference to the first row is paired: start by start, averaged over training seeds.",
    "Success: the share of episodes in which the task was done; steps: mean until it was, over these episodes.",
    f"†: less than a recorded row has, {len(TRAINING_SEEDS)} training seeds x {EPISODES} episodes (agents that are not "
    f"trained: {EPISODES} episodes).",
    "Decisions are timed one episode at a time, replanning included. Training time: mean over training seeds, or of the run "
    "that trained several of them together.",
    "Reported: printed by others under protocols of their own; 'normalized' is D4RL-normalized x100, 'as printed' may be a "
    "raw return.",
)
"""What holds for every environment."""
AGREEMENT = (
    "Within: the measured score differs from the printed one by no more than the larger of "
    f"{TOLERANCE_POINTS:g} points and {TOLERANCE_SHARE:.0%} of it. The printed one was made under a protocol of its own, and "
    "where its unit is 'as printed' it may be a raw return."
)
"""What an algorithm's page means by a score that agrees with a printed one."""


def rows(summary: Summary) -> list[str]:
    """What each row is; a row of several environments is described once."""
    return list(dict.fromkeys(f"{cell.agent}: {cell.about}." for cell in summary.cells))


def environment(summary: Summary) -> list[str]:
    """What holds for one environment: reference returns, seeds, machine and sources."""
    cells, (env_id,) = summary.cells, summary.environments
    starts = dict.fromkeys(f"{min(cell.seeds)} to {max(cell.seeds)}" for cell in cells)
    played = {_machine(cell) for cell in cells}
    timed = {f"{_machine(one)}, {one.threads} thread{'s' if one.threads > 1 else ''}" for one in summary.timings}
    times = f"Decisions timed on {' and '.join(sorted(timed))}." if timed else "Decisions were not timed."
    return [
        f"{env_id}: score {_score(cells[0])}; reset seeds {' or '.join(starts)}.",
        f"Played on {' and '.join(sorted(played))}. {times}",
        *(f"[{number}] {source}; {unit}." for number, (source, unit) in enumerate(sources(env_id), start=1)),
    ]


def _score(cell: Cell) -> str:
    """What `dfplan.benchmarks.protocol.score` is for a cell."""
    if cell.reference is not None:
        low, high = cell.reference["min"], cell.reference["max"]
        return f"100 (R - {low:g}) / ({high:g} - {low:g}) of the raw return R"
    return "is the raw return" if cell.success is None else "is 100 in an episode with success, else 0"


def sources(env_id: str) -> list[tuple[str, str]]:
    """(source, unit) of an environment's printed scores, in the order of their numbers."""
    return list(reported(env_id)[["source", "unit"]].drop_duplicates().itertuples(index=False, name=None))


def _machine(measured: Cell | Timing) -> str:
    return f"{measured.device} ({measured.hardware.get('cpu', 'unknown processor')})"
