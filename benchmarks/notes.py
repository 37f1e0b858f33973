"""The sentences under a table: what its rows are, how they were measured and on what, and who printed the rest."""

from __future__ import annotations

from collections.abc import Sequence

from dfplan.benchmarks.counterparts import TOLERANCE_POINTS, TOLERANCE_SHARE
from dfplan.benchmarks.intervals import RESAMPLES, SEEDS_FOR_SPREAD
from dfplan.benchmarks.published import reported
from dfplan.benchmarks.summaries import FULL_EPISODES, FULL_SEEDS, Summary


def all_of(summaries: Sequence[Summary]) -> list[str]:
    """Those of one environment's tables, where they stand alone."""
    return [*rows(summaries), *protocol(), *environment(summaries)]


def rows(summaries: Sequence[Summary]) -> list[str]:
    """What each row is; a row of several environments is said once."""
    return list(dict.fromkeys(f"{row.agent}: {row.cells[0].about}." for row in summaries))


def protocol() -> list[str]:
    """What holds for every environment."""
    return [
        "Score: D4RL's normalised score over D4RL's own episode length, on reset seeds that tuning never uses, the same "
        "for all rows. Its interval is a stratified bootstrap over episodes, strata = training seeds, "
        f"{RESAMPLES:,} resamples, BCa: it answers for other episodes of the same weights. The interval over training "
        f"seeds and starts resamples both, from {SEEDS_FOR_SPREAD} seeds on: it answers for other weights. "
        "IQM: interquartile mean, of the middle half of all episodes.",
        "The difference to the first row is paired: start by start, averaged over training seeds.",
        "Success: the share of episodes that reached the goal; steps: mean until they did, over these episodes.",
        f"†: less than the protocol of a recorded row, {FULL_SEEDS} training seeds x {FULL_EPISODES} episodes "
        f"(agents that are not trained: {FULL_EPISODES} episodes).",
        "Decisions are timed one episode at a time, replanning included. Training time: mean over training seeds, or of "
        "the run that trained several of them together.",
        "Reported: printed by others under protocols of their own; 'normalised' is D4RL-normalised x100, 'as printed' may be "
        "a raw return.",
    ]


def environment(summaries: Sequence[Summary]) -> list[str]:
    """What holds for one: reference returns, seeds, machine and sources."""
    cells = [cell for row in summaries for cell in row.cells]
    low, high = cells[0].reference["min"], cells[0].reference["max"]
    starts = dict.fromkeys(f"{min(cell.seeds)} to {max(cell.seeds)}" for cell in cells)
    return [
        f"{summaries[0].env_id}: score 100 (R - {low:g}) / ({high:g} - {low:g}) of the raw return R; reset seeds "
        f"{' or '.join(starts)}.",
        f"Played on {_machines(summaries)}. {_timed(summaries)}",
        *(f"[{number}] {source}; {unit}." for number, (source, unit) in enumerate(sources(cells[0].env_id), start=1)),
    ]


def agreement() -> str:
    """What an algorithm's page means by a score that agrees with a printed one."""
    return (
        "Within: the measured score differs from the printed one by no more than the larger of "
        f"{TOLERANCE_POINTS:g} points and {TOLERANCE_SHARE:.0%} of it. The printed one was made under a protocol of its "
        "own, and where its unit is 'as printed' it may be a raw return."
    )


def sources(env_id: str) -> list[tuple[str, str]]:
    """(source, unit) of an environment's printed scores, in the order of their numbers."""
    return list(dict.fromkeys((row.source, row.unit) for row in reported(env_id)))


def _machines(summaries: Sequence[Summary]) -> str:
    cells = [cell for row in summaries for cell in row.cells]
    found = (f"{cell.device} ({cell.hardware.get('cpu', 'unknown processor')})" for cell in cells)
    return " and ".join(sorted(set(found)))


def _timed(summaries: Sequence[Summary]) -> str:
    timings = [row.timing for row in summaries if row.timing is not None]
    if not timings:
        return "Decisions were not timed."
    found = (
        f"{timing.device} ({timing.hardware.get('cpu', 'unknown processor')}), {timing.threads} "
        f"thread{'s' if timing.threads > 1 else ''}"
        for timing in timings
    )
    return f"Decisions timed on {' and '.join(sorted(set(found)))}."
