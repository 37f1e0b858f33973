"""Tables of one environment from its cells: for the terminal, as Markdown and as CSV.

No number is typed into a table: measured ones come from cells, printed ones from `published.json`, in a column and a
table of their own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import rich.box
import rich.table
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from dfplan.benchmarks import notes
from dfplan.benchmarks.cells import Cell, Timing
from dfplan.benchmarks.counterparts import printed_for
from dfplan.benchmarks.intervals import Comparison, Estimate
from dfplan.benchmarks.published import Published, reported
from dfplan.benchmarks.summaries import Summary, summarise
from dfplan.quoting import printable

PRINTED = "Printed by others, not measured here"


@dataclass(frozen=True)
class Table:
    """Headers and rows of text; the first ``left`` columns are words. A cell may have two lines."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def without_empty_columns(self) -> Table:
        kept = [i for i in range(len(self.headers)) if i == 0 or any(row[i] for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return Table(self.title, tuple(self.headers[i] for i in kept), rows, self.left)

    def to_markdown(self) -> str:
        rules = ["---"] * self.left + ["---:"] * (len(self.headers) - self.left)
        lines = [f"**{self.title}**", "", *map(_markdown_row, (self.headers, rules, *self.rows))]
        return "\n".join(lines) + "\n"

    def to_rich(self, style: str = "") -> rich.table.Table:
        shown = rich.table.Table(title=self.title, title_justify="left", box=rich.box.SIMPLE_HEAD, style=style)
        for number, header in enumerate(self.headers):
            if number < self.left:
                shown.add_column(escape(header), overflow="fold", min_width=18)
            else:
                shown.add_column(escape(header), justify="right", no_wrap=True)
        for row in self.rows:
            shown.add_row(*(escape(printable(cell, keep="\n")) for cell in row), style=style)
        return shown


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", "<br>") for cell in cells) + " |"


def tables(summaries: Sequence[Summary]) -> list[Table]:
    """Scores, training seeds (where there are several), cost, and what others have printed (where they have)."""
    env_id = summaries[0].env_id
    seeds = [row for row in summaries if len(row.cells) > 1]
    found = [scores(summaries), *([training_seeds(seeds)] if seeds else []), cost(summaries), *printed(env_id)]
    return [table.without_empty_columns() for table in found]


def scores(summaries: Sequence[Summary]) -> Table:
    cell = summaries[0].cells[0]
    headers = (
        "agent\nactions from", "seeds x\nepisodes", "raw\nreturn", "score\n[95%]", "IQM\n[95%]", "minus first row\n[95%]",
        "success\nsteps", "reported\nunit",
    )  # fmt: skip
    rows = [
        (
            f"{row.agent}\n{row.cells[0].execution}", played(row), decimal(row.raw), interval(row.score),
            interval(row.middle), difference(row.difference), reach(row),
            "\n".join(f"{number(entry)}\n{unit(entry)}" for entry in printed_for(row.agent, row.env_id)),
        )
        for row in summaries
    ]  # fmt: skip
    return Table(f"{cell.env_id}, episodes of {cell.episode_steps} steps: scores", headers, tuple(rows))


def training_seeds(summaries: Sequence[Summary]) -> Table:
    rows = tuple(
        (row.agent, ", ".join(decimal(mean) for mean in row.seed_means), interval(row.spread).replace("\n", " "))
        for row in summaries
    )
    headers = ("agent", "score of each\ntraining seed", "over training seeds\nand starts [95%]")
    return Table(f"{summaries[0].env_id}: training seeds", headers, rows)


def cost(summaries: Sequence[Summary]) -> Table:
    headers = (
        "agent", "ms per decision\nmedian", "ms per decision\n95th percentile", "ms per\nplan", "training\ntime",
        "parameters", "trained on",
    )  # fmt: skip
    return Table(f"{summaries[0].env_id}: cost", headers, tuple(map(_cost_row, summaries)))


def _cost_row(row: Summary) -> tuple[str, ...]:
    timing, size = row.timing, row.cells[0].parameters
    machines = dict.fromkeys(machine(cell.card.get("hardware")) for cell in row.cells if cell.card)
    return (
        row.agent,
        "" if timing is None else milliseconds(timing.median),
        "" if timing is None else milliseconds(timing.p95),
        "" if timing is None or timing.plan is None else milliseconds(timing.plan),
        "" if row.training_seconds is None else duration(row.training_seconds) + together(row),
        "" if size is None else f"{size / 1e6:.2f} M",
        "\n".join(filter(None, machines)),
    )


def printed(env_id: str) -> list[Table]:
    """One table of all printed scores of an environment, or none."""
    found = reported(env_id)
    if not found:
        return []
    sources = notes.sources(env_id)
    numbers = [sources.index((row.source, row.unit)) + 1 for row in found]
    rows = tuple((f"{row.method} [{i}]", unit(row), number(row)) for row, i in zip(found, numbers, strict=True))
    return [Table(f"{env_id}: {PRINTED[0].lower()}{PRINTED[1:]}", ("method [source]", "unit", "reported"), rows, left=2)]


def played(row: Summary) -> str:
    """'3 x 100', '100' for an untrained agent; with a dagger where that is less than a recorded row's protocol."""
    seeds = f"{len(row.cells)} x " if row.trained else ""
    return f"{seeds}{row.episodes}{'' if row.full else ' †'}"


def interval(estimate: Estimate) -> str:
    value = decimal(estimate.value)
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value}\n[{decimal(estimate.low)}, {decimal(estimate.high)}]"


def decimal(value: float) -> str:
    """One digit after the point, and no '-0.0'."""
    return f"{round(value, 1) + 0.0:.1f}"


def difference(found: Comparison | None) -> str:
    if found is None:
        return ""
    signed = interval(found.difference)
    return signed if found.difference.value < 0 else f"+{signed}"


def reach(row: Summary) -> str:
    return f"{row.success:.0%}" + ("" if row.first_reach is None else f"\n{row.first_reach:.0f}")


def unit(row: Published) -> str:
    """'normalised', 'as printed', ...: short enough to stand under its number."""
    return row.short_unit.removeprefix("D4RL-").removesuffix(" x100")


def number(row: Published) -> str:
    return f"{row.score:g}" + ("" if row.std is None else f" ± {row.std:g}")


def milliseconds(value: float) -> str:
    if value < 0.01:
        return "<0.01"
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def together(row: Summary) -> str:
    """How many training seeds one training run made, where they were trained together."""
    seeds = (row.cells[0].card or {}).get("seeds", [])
    return f"\nfor {len(seeds)} seeds" if len(seeds) > 1 else ""


def machine(hardware: Any) -> str:
    """A card's 'hardware' in words: '' where nothing was written down, an accelerator only if it was asked for."""
    if not isinstance(hardware, dict):
        return str(hardware or "")
    asked = hardware.get("accelerator")
    threads = hardware.get("threads")
    parts = [hardware.get("gpu") or (asked if asked not in ("auto", "cpu") else None), hardware.get("cpu"),
             threads and f"{threads} thread{'s' if threads > 1 else ''}"]  # fmt: skip
    return ", ".join(filter(None, parts))


def to_markdown(cells: Sequence[Cell], timings: Sequence[Timing]) -> str:
    """All tables of one environment, then the notes. ValueError as in `summarise`."""
    summaries = summarise(cells, timings)
    lines = [f"- {note}" for note in notes.all_of(summaries)]
    return "\n".join([*(table.to_markdown() for table in tables(summaries)), *lines]) + "\n"


def to_rich(cells: Sequence[Cell], timings: Sequence[Timing]) -> Group:
    """The same for a terminal of 100 columns or more."""
    summaries = summarise(cells, timings)
    shown = [table.to_rich("dim" if PRINTED[1:] in table.title else "") for table in tables(summaries)]
    return Group(*shown, Text(printable("\n".join(notes.all_of(summaries)), keep="\n"), style="dim"))


def to_csv(cells: Sequence[Cell], timings: Sequence[Timing]) -> str:
    """Numbers at full precision, one line a row; 'reported' and what follows it are filled by printed rows only."""
    rows = [_flat(row) for row in summarise(cells, timings)]
    names = [*rows[0], "reported", "reported_std", "unit", "source"]
    rows += [
        {"env": row.task, "agent": row.method, "reported": row.score, "reported_std": row.std, "unit": row.unit,
         "source": row.source}
        for row in reported(cells[0].env_id)
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(row: Summary) -> dict[str, Any]:
    cell, timing, compared = row.cells[0], row.timing, row.difference
    gap = compared.difference if compared else None
    return {
        "env": row.env_id, "agent": row.agent, "execution": cell.execution,
        "training_seeds": len(row.cells) if row.trained else 0, "episodes": row.episodes,
        "return": row.raw,
        "normalized": row.score.value, "normalized_low": row.score.low, "normalized_high": row.score.high,
        "iqm": row.middle.value, "iqm_low": row.middle.low, "iqm_high": row.middle.high,
        "over_seeds_low": row.spread.low, "over_seeds_high": row.spread.high,
        "seed_means": " ".join(map(repr, row.seed_means)),
        "difference": gap and gap.value, "difference_low": gap and gap.low, "difference_high": gap and gap.high,
        "wilcoxon_p": compared and compared.p,
        "success": row.success, "first_reach": row.first_reach,
        "decision_median_ms": timing and timing.median, "decision_p95_ms": timing and timing.p95,
        "decision_mean_ms": timing and timing.mean, "plan_ms": timing and timing.plan,
        "training_seconds": row.training_seconds, "parameters": cell.parameters, "device": cell.device,
        "play_seconds": fmean(each.seconds for each in row.cells),
    }  # fmt: skip
