"""Tables from result files: for the terminal, as Markdown and as CSV; and the README's results.

    python -m dfplan.benchmarks.report            # rewrite the README's tables from benchmarks/recorded/*.json
    python -m dfplan.benchmarks.report --check    # exit status 1 if they are not up to date

No number is typed into a table: measured ones come from a result, printed ones from `published.json`, in a column of
their own.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import rich.box
import rich.table
import tyro
from rich.markup import escape

from dfplan.benchmarks.intervals import estimate
from dfplan.benchmarks.published import Published, reported
from dfplan.benchmarks.results import AgentResult, Result, read_result
from dfplan.envs.reference import normalized_score

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
COLUMNS = (
    "agent", "actions from", "return", "normalized score", "95% interval", "IQM", "success", "steps to goal",
    "ms per decision", "p95", "ms per plan", "reported", "unit",
)  # fmt: skip
_TEXT_COLUMNS = ("agent", "actions from", "unit")


def summary(result: Result, agent: AgentResult) -> dict[str, Any]:
    """One agent's numbers; 'first_reach' is the mean over the episodes that reached the goal, None if none did."""
    score = estimate(normalized_score(result.env_id, agent.returns))
    raw = estimate(agent.returns)
    steps = [first for first in agent.first_reach if first is not None]
    return {
        "agent": agent.agent,
        "execution": agent.execution,
        "episodes": len(agent.returns),
        "return": raw.mean,
        "return_low": raw.low,
        "return_high": raw.high,
        "normalized": score.mean,
        "normalized_low": score.low,
        "normalized_high": score.high,
        "normalized_iqm": score.interquartile_mean,
        "success": fmean(agent.success),
        "first_reach": fmean(steps) if steps else None,
        "decision_median_ms": agent.decision["median"],
        "decision_p95_ms": agent.decision["p95"],
        "decision_mean_ms": agent.decision["mean"],
        "plan_ms": agent.decision["plan"],
        "parameters": agent.parameters,
    }


def to_markdown(result: Result) -> str:
    """Measured rows first, then what others have printed for the same environment, then the notes."""
    rows = [_measured_cells(summary(result, agent)) for agent in result.agents]
    rows += [_printed_cells(row, number) for row, number in _printed(result)]
    rules = ["---" if column in _TEXT_COLUMNS else "---:" for column in COLUMNS]
    lines = [f"**{_title(result)}**", "", *map(_markdown_row, (COLUMNS, rules, *rows)), ""]
    return "\n".join(lines + [f"- {note}" for note in _notes(result)]) + "\n"


def to_rich(result: Result) -> rich.table.Table:
    """The same for a terminal, in two lines a row so that it stays narrow."""
    shown = rich.table.Table(title=_title(result), box=rich.box.SIMPLE_HEAD, caption_justify="left")
    shown.caption = escape("\n".join(_notes(result)))
    shown.add_column("agent\nactions from", min_width=31, overflow="fold")
    for heading in ("return", "normalized\n95% interval", "success\nsteps to goal", "ms (p95)\nper plan", "reported"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("unit")
    for agent in result.agents:
        flat = _measured_cells(summary(result, agent))
        name, execution, raw, score, interval, _, success, steps, median, p95, plan, *_ = map(escape, flat)
        stacked = (f"{score}\n{interval}", f"{success}\n{steps}", f"{median} ({p95})\n{plan}")
        shown.add_row(f"{name}\n  {execution}", raw, *stacked)
    for row, number in _printed(result):
        name, *_, score, unit = _printed_cells(row, number)
        shown.add_row(escape(name), "", "", "", "", score, unit, style="dim")
    return shown


def _title(result: Result) -> str:
    return f"{result.env_id}, {len(result.seeds)} episodes of {result.episode_steps} steps"


def _sources(result: Result) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.source, row.unit) for row in reported(result.env_id)))


def _printed(result: Result) -> list[tuple[Published, int]]:
    """Printed rows with the number of their source's note."""
    sources = _sources(result)
    return [(row, sources.index((row.source, row.unit)) + 1) for row in reported(result.env_id)]


def _measured_cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["normalized_low"], row["normalized_high"]
    return (
        row["agent"],
        row["execution"],
        f"{row['return']:.1f}",
        f"{row['normalized']:.1f}",
        "" if low is None else f"{low:.1f} to {high:.1f}",
        f"{row['normalized_iqm']:.1f}",
        f"{row['success']:.0%}",
        "" if row["first_reach"] is None else f"{row['first_reach']:.0f}",
        _milliseconds(row["decision_median_ms"]),
        _milliseconds(row["decision_p95_ms"]),
        "" if row["plan_ms"] is None else _milliseconds(row["plan_ms"]),
        "",
        "",
    )


def _printed_cells(row: Published, source: int) -> tuple[str, ...]:
    spread = "" if row.std is None else f" ± {row.std:g}"
    empty = ("",) * (len(COLUMNS) - 3)
    return (f"{row.method} [{source}]", *empty, f"{row.score:g}{spread}", row.short_unit)


def _milliseconds(value: float) -> str:
    if value < 0.01:
        return "<0.01"
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def _notes(result: Result) -> list[str]:
    threads = " or ".join(map(str, sorted({agent.decision["threads"] for agent in result.agents})))
    low, high = result.reference["min"], result.reference["max"]
    return [
        *(f"{agent.agent}: {agent.about}." for agent in result.agents),
        f"Reset seeds {result.seeds[0]} to {result.seeds[-1]}, none of them used in tuning. Returns are raw; the "
        f"normalized score is D4RL's, 100 (R - {low:g}) / ({high:g} - {low:g}), its interval a bootstrap over the "
        "episodes of one set of weights, IQM its interquartile mean. Steps to goal: mean over the episodes that got "
        "there.",
        f"Decisions are timed in one environment at a time, replanning included: median and 95th percentile, {threads} "
        f"thread(s), {result.device}, {result.hardware.get('cpu', 'unknown processor')}.",
        "Reported: printed by others under protocols of their own, not measured here.",
        *(f"[{number}] {source}; {unit}." for number, (source, unit) in enumerate(_sources(result), start=1)),
    ]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def to_csv(result: Result) -> str:
    """Numbers at full precision, one line a row; 'reported' and what follows it are filled by printed rows only."""
    measured = [{"env": result.env_id, **summary(result, agent)} for agent in result.agents]
    printed = [
        {"env": row.task, "agent": row.method, "reported": row.score, "reported_std": row.std, "unit": row.unit,
         "source": row.source}
        for row in reported(result.env_id)
    ]  # fmt: skip
    text = io.StringIO()
    names = [*measured[0], "reported", "reported_std", "unit", "source"]
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(measured + printed)
    return text.getvalue()


def readme_section(files: Sequence[Path]) -> str:
    """The README's text between its markers: one table for each recorded result."""
    parts = []
    for path in files:
        result = read_result(path)
        link = f"[{path.name}](benchmarks/recorded/{path.name})"
        parts.append(f"{to_markdown(result)}\nMade by `{result.command}` in {result.seconds:.0f} s: {link}.\n")
    return "\n".join(parts)


def replaced(readme: str, section: str) -> str:
    """The README with the text between its markers replaced. ValueError if it does not have both, in order."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{section}{END}{after}"


@dataclass(frozen=True)
class Arguments:
    readme: Path = Path("README.md")
    """File with the markers."""
    recorded: Path = Path("benchmarks/recorded")
    """Folder of recorded results, one JSON file each."""
    check: bool = False
    """Only say whether the file is up to date."""


def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        files = sorted(arguments.recorded.glob("*.json"))
        if not files:
            raise ValueError(f"there is no recorded result in {arguments.recorded}")
        old = arguments.readme.read_text(encoding="utf-8")
        new = replaced(old, readme_section(files))
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.check:
        if new != old:
            print(f"{arguments.readme} is not up to date: run python -m dfplan.benchmarks.report", file=sys.stderr)
        return int(new != old)
    if new != old:
        partial = arguments.readme.with_name(f".{arguments.readme.name}.partial")
        partial.write_text(new, encoding="utf-8")
        partial.replace(arguments.readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
