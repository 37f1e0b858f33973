"""Tables of one environment: for the terminal, as Markdown and as CSV.

No number is typed into a table: measured ones come from cells, printed ones from `published.json`, in a column and a
table of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import rich.box
import rich.table
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from dfplan.benchmarks.report import notes
from dfplan.benchmarks.report.published import printed_for, reported
from dfplan.benchmarks.report.summaries import Summary
from dfplan.quoting import printable
from dfplan.whole_files import write_whole

Row = Mapping[str, Any]
"""A line of `Summary.rows`."""


@dataclass(frozen=True)
class Table:
    """A frame of text under a title; the first `left` columns are words. Headers and entries may have two lines."""

    title: str
    text: pd.DataFrame
    left: int = 1
    style: str = ""
    """Of the whole table in a terminal, as rich names it."""

    def filled(self) -> Table:
        """Without the columns, but the first, in which nothing stands."""
        kept = [place == 0 or bool((self.text[header] != "").any()) for place, header in enumerate(self.text)]
        return Table(self.title, self.text.loc[:, kept], self.left, self.style)

    def to_markdown(self) -> str:
        """The title in bold, then a Markdown table, which ends in an end of line."""
        rules = ["---"] * self.left + ["---:"] * (self.text.shape[1] - self.left)
        lines = [self.text.columns, rules, *self.text.itertuples(index=False)]
        shown = ["| " + " | ".join(map(_in_markdown, line)) + " |" for line in lines]
        return "\n".join([f"**{self.title}**", "", *shown]) + "\n"

    def to_rich(self) -> rich.table.Table:
        """The same for a terminal; characters that would steer it are written as escapes."""
        box, style = rich.box.SIMPLE_HEAD, self.style
        shown = rich.table.Table(title=self.title, title_justify="left", box=box, style=style)
        for place, header in enumerate(self.text):
            if place < self.left:
                shown.add_column(escape(header), overflow="fold", min_width=18)
            else:
                shown.add_column(escape(header), justify="right", no_wrap=True)
        for line in self.text.itertuples(index=False):
            shown.add_row(*(escape(printable(entry, keep="\n")) for entry in line), style=style)
        return shown


def _in_markdown(entry: str) -> str:
    return entry.replace("|", r"\|").replace("\n", "<br>")


def written(title: str, rows: pd.DataFrame, columns: Mapping[str, Callable[[Row], str]], left: int = 1) -> Table:
    """A table of one line for each of the rows: what the function under each header writes of it."""
    text = {header: [write(row) for row in rows.to_dict("records")] for header, write in columns.items()}
    return Table(title, pd.DataFrame(text, dtype=str), left).filled()


def tables(summary: Summary) -> list[Table]:
    """Of one environment: scores, training seeds (where there are several), cost, and what others have printed."""
    (env_id,), rows = summary.environments, summary.rows
    steps, several = summary.cells[0].episode_steps, rows[rows["training_seeds"] > 1]
    found = [
        written(f"{env_id}, episodes of {steps} steps: scores", rows, SCORES),
        *([written(f"{env_id}: training seeds", several, TRAINING_SEEDS)] if len(several) else []),
        written(f"{env_id}: cost", rows, COST),
    ]
    return [*found, *_printed(env_id)]


def played(row: Row) -> str:
    """'3 x 100', '100' for an untrained agent; with a dagger, and what is lacking, if that is less than a recorded row has."""
    seeds = f"{row['training_seeds']} x " if row["training_seeds"] else ""
    return "\n".join([f"{seeds}{row['episodes']}{' †' if row['lacks'] else ''}", *row["lacks"]])


def interval(row: Row, name: str) -> str:
    """A number and, in a second line, its interval; empty if there is no number."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    bounds = "" if pd.isna(low) or pd.isna(high) else f"\n[{decimal(low)}, {decimal(high)}]"
    return "" if pd.isna(row[name]) else f"{decimal(row[name])}{bounds}"


def decimal(value: float) -> str:
    """One digit after the point, and no '-0.0'."""
    return f"{round(value, 1) + 0.0:.1f}"


def reach(row: Row) -> str:
    """The share of episodes that reached the goal, and in a second line the steps until they did."""
    steps = "" if pd.isna(row["first_reach"]) else f"\n{row['first_reach']:.0f}"
    return f"{row['success']:.0%}{steps}"


def milliseconds(value: float) -> str:
    """Three digits at most; empty for a missing number."""
    if pd.isna(value):
        return ""
    if value < 0.01:
        return "<0.01"
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """In the unit that fits; empty for a missing number."""
    if pd.isna(seconds):
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def machine(hardware: Any) -> str:
    """A card's 'hardware' in words: empty where nothing was written down, an accelerator only if it was asked for."""
    if not isinstance(hardware, dict):
        return str(hardware or "")
    asked, threads = hardware.get("accelerator"), hardware.get("threads")
    accelerator = hardware.get("gpu") or (asked if asked not in ("auto", "cpu") else None)
    parts = [accelerator, hardware.get("cpu"), threads and f"{threads} thread{'s' if threads > 1 else ''}"]
    return ", ".join(filter(None, parts))


def _training_time(row: Row) -> str:
    together = f"\nfor {row['stacked']} seeds" if row["stacked"] > 1 else ""
    return duration(row["training_seconds"]) and duration(row["training_seconds"]) + together


def _signed(text: str) -> str:
    return text if text.startswith("-") or not text else f"+{text}"


SCORES: dict[str, Callable[[Row], str]] = {
    "agent\nactions from": lambda row: f"{row['agent']}\n{row['execution']}",
    "seeds x\nepisodes": played,
    "raw\nreturn": lambda row: decimal(row["return"]),
    "score\n[95%]": lambda row: interval(row, "normalized"),
    "IQM\n[95%]": lambda row: interval(row, "iqm"),
    "minus first row\n[95%]": lambda row: _signed(interval(row, "difference")),
    "success\nsteps": reach,
    "reported\nunit": lambda row: "\n".join(f"{one}\n{one.short_unit}" for one in printed_for(row["agent"], row["env"])),
}
TRAINING_SEEDS: dict[str, Callable[[Row], str]] = {
    "agent": lambda row: row["agent"],
    "score of each\ntraining seed": lambda row: ", ".join(map(decimal, row["seed_means"])),
    "over training seeds\nand starts [95%]": lambda row: interval(row, "over_seeds").replace("\n", " "),
}
COST: dict[str, Callable[[Row], str]] = {
    "agent": lambda row: row["agent"],
    "ms per decision\nmedian": lambda row: milliseconds(row["decision_median_ms"]),
    "ms per decision\n95th percentile": lambda row: milliseconds(row["decision_p95_ms"]),
    "ms per\nplan": lambda row: milliseconds(row["plan_ms"]),
    "training\ntime": _training_time,
    "parameters": lambda row: "" if pd.isna(row["parameters"]) else f"{row['parameters'] / 1e6:.2f} M",
    "trained on": lambda row: "\n".join(dict.fromkeys(filter(None, map(machine, row["machines"])))),
}


def _printed(env_id: str) -> list[Table]:
    """One table of all printed scores of an environment, or none."""
    scores, sources = reported(env_id), notes.sources(env_id)
    text = {
        "method [source]": [f"{one.method} [{sources.index((one.source, one.unit)) + 1}]" for one in scores],
        "unit": [one.short_unit for one in scores],
        "reported": list(map(str, scores)),
    }
    title = f"{env_id}: printed by others, not measured here"
    return [Table(title, pd.DataFrame(text), left=2, style="dim")] if scores else []


def to_markdown(summary: Summary) -> str:
    """All tables of one environment, then the notes."""
    lines = [f"- {note}" for note in notes.everything(summary)]
    return "\n".join([*(table.to_markdown() for table in tables(summary)), *lines]) + "\n"


def to_rich(summary: Summary) -> Group:
    """The same for a terminal of 100 columns or more."""
    text = Text(printable("\n".join(notes.everything(summary)), keep="\n"), style="dim")
    return Group(*(table.to_rich() for table in tables(summary)), text)


NUMBERS = (
    *("env", "agent", "execution", "training_seeds", "episodes", "return", "normalized", "normalized_low", "normalized_high"),
    *("iqm", "iqm_low", "iqm_high", "over_seeds_low", "over_seeds_high", "seed_means"),
    *("difference", "difference_low", "difference_high", "wilcoxon_p", "success", "first_reach"),
    *("decision_median_ms", "decision_p95_ms", "decision_mean_ms", "plan_ms"),
    *("training_seconds", "parameters", "device", "play_seconds"),
)
"""Columns of a CSV file that are measured."""


def to_csv(summary: Summary) -> str:
    """Numbers at full precision, one line a row; 'reported' and what follows it are filled by printed rows only."""
    means = summary.rows["seed_means"].map(lambda values: " ".join(map(repr, values)))
    measured = summary.rows[[*NUMBERS]].assign(seed_means=means)
    printed = [
        dict(env=one.task, agent=one.method, reported=one.score, reported_std=one.std, unit=one.unit, source=one.source)
        for env_id in summary.environments
        for one in reported(env_id)
    ]
    columns = [*NUMBERS, "reported", "reported_std", "unit", "source"]
    whole = {"training_seeds": "Int64", "episodes": "Int64", "parameters": "Int64"}
    return pd.concat([measured, pd.DataFrame(printed, columns=columns)]).astype(whole).to_csv(index=False, lineterminator="\n")


def write(folder: Path, summary: Summary) -> None:
    """Write table.md and table.csv of one environment into a folder."""
    write_whole(folder / "table.md", to_markdown(summary))
    write_whole(folder / "table.csv", to_csv(summary))
