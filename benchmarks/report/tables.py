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

from dfplan.benchmarks import rows
from dfplan.benchmarks.protocol import EPISODES
from dfplan.benchmarks.report.intervals import RESAMPLES, SEEDS_FOR_SPREAD
from dfplan.benchmarks.report.published import TOLERANCE_POINTS, TOLERANCE_SHARE, printed_for, reported
from dfplan.benchmarks.report.summaries import Summary
from dfplan.benchmarks.results import Cell, Timing
from dfplan.quoting import printable
from dfplan.whole_files import write_whole

Row = Mapping[str, Any]
"""A line of `Summary.rows`."""


@dataclass(frozen=True)
class Table:
    """A frame of text under a title; the first `left` columns are words. Headers and entries may have several lines."""

    title: str
    text: pd.DataFrame
    left: int = 1
    style: str = ""
    """Of the whole table in a terminal, as rich names it."""

    def to_markdown(self) -> str:
        """The title in bold, then a Markdown table, which ends in an end of line."""
        rules = ["---"] * self.left + ["---:"] * (self.text.shape[1] - self.left)
        lines = [self.text.columns, rules, *self.text.itertuples(index=False)]
        shown = [" | ".join(entry.replace("|", r"\|").replace("\n", "<br>") for entry in line) for line in lines]
        return "\n".join([f"**{self.title}**", "", *(f"| {line} |" for line in shown)]) + "\n"

    def to_rich(self) -> rich.table.Table:
        """The same for a terminal; characters that would steer it are written as escapes."""
        box, style = rich.box.SIMPLE_HEAD, self.style
        shown = rich.table.Table(title=self.title, title_justify="left", box=box, style=style)
        for place, header in enumerate(self.text):
            shown.add_column(escape(header), justify="left" if place < self.left else "right", overflow="fold")
        for line in self.text.itertuples(index=False):
            shown.add_row(*(escape(printable(entry, keep="\n")) for entry in line), style=style)
        return shown


def written(title: str, rows: pd.DataFrame, columns: Mapping[str, Callable[[Row], str]], left: int = 1) -> Table:
    """A table with a line for each of the rows: what the function under each header writes of it.

    Columns in which nothing stands are left out, but for the first.
    """
    records: list[Row] = rows.to_dict("records")
    text = pd.DataFrame({header: [write(row) for row in records] for header, write in columns.items()})
    return Table(title, text.loc[:, [header == text.columns[0] or text[header].any() for header in text]], left)


def tables(summary: Summary) -> list[Table]:
    """Of one environment: scores, training seeds (where there are several), cost, and what others have printed."""
    (env_id,), measured = summary.environments, summary.rows
    several, printed = measured[measured["training_seeds"] > 1], reported(env_id)
    found = [written(f"{env_id}, episodes of {summary.cells[0].episode_steps} steps: scores", measured, SCORES)]
    if len(several):
        found.append(written(f"{env_id}: training seeds", several, SEEDS))
    found.append(written(f"{env_id}: cost", measured, COST))
    if len(printed):
        known = sources(env_id)
        numbers = [known.index((one.source, one.unit)) + 1 for one in printed.itertuples()]
        method = [f"{name} [{number}]" for name, number in zip(printed["method"], numbers, strict=True)]
        text = {"method [source]": method, "unit": printed["short_unit"], "reported": printed["text"]}
        found.append(Table(f"{env_id}: printed by others, not measured here", pd.DataFrame(text), left=2, style="dim"))
    return found


def played(row: Row) -> str:
    """'3 x 100', '100' for an untrained agent; less than a recorded row has is '1 x 100 †', and 'of 3 x 100' below."""
    trained = row["training_seeds"] > 0
    found = f"{row['training_seeds']} x {row['episodes']}" if trained else str(row["episodes"])
    whole = f"{len(rows.TRAINING_SEEDS)} x {EPISODES}" if trained else str(EPISODES)
    return f"{found} †\nof {whole}" if row["lacks"] else found


def interval(row: Row, name: str, sign: str = "") -> str:
    """A number and, in a second line, its interval; empty if there is no number. `sign`: '+' to write one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    bounds = "" if pd.isna(low) or pd.isna(high) else f"\n[{decimal(low)}, {decimal(high)}]"
    return "" if pd.isna(row[name]) else f"{decimal(row[name], sign)}{bounds}"


def decimal(value: float, sign: str = "") -> str:
    """One digit after the point, and no '-0.0'."""
    return f"{round(value, 1) + 0.0:{sign}.1f}"


def reach(row: Row) -> str:
    """The share of successful episodes, and in a second line the steps until the success; empty where there is none."""
    steps = "" if pd.isna(row["first_reach"]) else f"\n{row['first_reach']:.0f}"
    return "" if pd.isna(row["success"]) else f"{row['success']:.0%}{steps}"


def milliseconds(value: float) -> str:
    """Three digits at most; empty for a missing number."""
    if pd.isna(value):
        return ""
    return "<0.01" if value < 0.01 else f"{value:.0f}" if value >= 10 else f"{value:.2f}"


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
    time = duration(row["training_seconds"])
    return f"{time}\nfor {row['stacked']} seeds" if time and row["stacked"] > 1 else time


def _reported(row: Row) -> str:
    printed = printed_for(row["agent"], row["env"])
    return "\n".join(printed["text"] + "\n" + printed["short_unit"])


SCORES: dict[str, Callable[[Row], str]] = {
    "agent\nactions from": lambda row: f"{row['agent']}\n{row['execution']}",
    "seeds x\nepisodes": played,
    "raw\nreturn": lambda row: decimal(row["return"]),
    "score\n[95%]": lambda row: interval(row, "normalized"),
    "IQM\n[95%]": lambda row: interval(row, "iqm"),
    "minus first row\n[95%]": lambda row: interval(row, "difference", "+"),
    "success\nsteps": reach,
    "reported\nunit": _reported,
}
SEEDS: dict[str, Callable[[Row], str]] = {
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


PROTOCOL = (
    "Score: of episodes of the environment's own length, on reset seeds that tuning never uses, the same for all rows; what it "
    "is stands below each table. Its interval is a stratified bootstrap over episodes, strata = training seeds, "
    f"{RESAMPLES:,} resamples, BCa: it answers for other episodes of the same weights. The interval over training seeds and "
    f"starts resamples both, from {SEEDS_FOR_SPREAD} seeds on: it answers for other weights. IQM: interquartile mean, of the "
    "middle half of all episodes.",
    "The difference to the first row is paired: start by start, averaged over training seeds.",
    "Success: the share of episodes in which the task was done; steps: mean until it was, over these episodes.",
    f"†: less than a recorded row has, {len(rows.TRAINING_SEEDS)} training seeds x {EPISODES} episodes (agents that are not "
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


def row_notes(summary: Summary) -> list[str]:
    """What each row is; a row of several environments is described once."""
    return list(dict.fromkeys(f"{cell.agent}: {cell.about}." for cell in summary.cells))


def environment_notes(summary: Summary) -> list[str]:
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


def to_markdown(summary: Summary) -> str:
    """All tables of one environment, then the notes."""
    return (
        "\n".join([*(table.to_markdown() for table in tables(summary)), *(f"- {note}" for note in _notes(summary))])
        + "\n"
    )


def to_rich(summary: Summary) -> Group:
    """The same for a terminal of 100 columns or more."""
    text = Text(printable("\n".join(_notes(summary)), keep="\n"), style="dim")
    return Group(*(table.to_rich() for table in tables(summary)), text)


def _notes(summary: Summary) -> list[str]:
    return [*row_notes(summary), *PROTOCOL, *environment_notes(summary)]


def to_csv(summary: Summary) -> str:
    """Numbers at full precision, one line a row; 'reported' and what follows it are filled by printed rows only."""
    measured = summary.rows.drop(columns=["about", "lacks", "curve", "stacked", "machines"])
    measured["seed_means"] = [" ".join(map(repr, means)) for means in measured["seed_means"]]
    names = {
        "env": "env",
        "method": "agent",
        "score": "reported",
        "std": "reported_std",
        "unit": "unit",
        "source": "source",
    }
    printed = pd.concat(map(reported, summary.environments))[list(names)].rename(columns=names)
    whole = {name: "Int64" for name in ("training_seeds", "episodes", "parameters")}
    return pd.concat([measured, printed]).astype(whole).to_csv(index=False, lineterminator="\n")


def write(folder: Path, summary: Summary) -> None:
    """Write table.md and table.csv of one environment into a folder."""
    write_whole(folder / "table.md", to_markdown(summary))
    write_whole(folder / "table.csv", to_csv(summary))
