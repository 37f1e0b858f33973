"""Tables of one environment and the notes below them: for the terminal, as Markdown and as CSV.

No number is typed into a table: measured ones come from cells, printed ones from `published.json`, in a column and a
table of their own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import rich.box
import rich.table
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from dfplan import intervals
from dfplan.benchmarks.protocol import EPISODES
from dfplan.benchmarks.report.published import printed_for, reported
from dfplan.benchmarks.report.summaries import Summary
from dfplan.benchmarks.results import Result
from dfplan.benchmarks.rows import ROWS, TRAINING_SEEDS
from dfplan.quoting import printable
from dfplan.whole_files import write_whole

Row = Mapping[str, Any]
"""A line of `Summary.rows`."""
Columns = Mapping[str, Callable[[Row], str]]
"""What the function under each header writes of a row."""
TEXTS: dict[str, Any] = tomllib.loads(
    files("dfplan.benchmarks.report").joinpath("texts.toml").read_text(encoding="utf-8")
)
_NUMBERS = {"resamples": intervals.RESAMPLES, "seeds_for_spread": intervals.SEEDS_FOR_SPREAD}
_NUMBERS |= {"seeds": len(TRAINING_SEEDS), "episodes": EPISODES}
PROTOCOL = [sentence.format(**_NUMBERS) for sentence in TEXTS["protocol"]]
"""Notes that hold for every environment."""


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
        shown = rich.table.Table(title=self.title, title_justify="left", box=rich.box.SIMPLE_HEAD, style=self.style)
        for place, header in enumerate(self.text):
            shown.add_column(escape(header), justify="left" if place < self.left else "right", overflow="fold")
        for line in self.text.itertuples(index=False):
            shown.add_row(*(escape(printable(entry, keep="\n")) for entry in line), style=self.style)
        return shown


def written(title: str, rows: pd.DataFrame, columns: Columns, left: int = 1) -> Table:
    """A table with a line for each of the rows. Columns in which nothing stands are left out, but for the first."""
    records: list[Row] = rows.to_dict("records")
    text = pd.DataFrame({header: [write(row) for row in records] for header, write in columns.items()})
    return Table(title, text.loc[:, [header == text.columns[0] or text[header].any() for header in text]], left)


def tables(summary: Summary) -> list[Table]:
    """Of one environment: scores, training seeds (where there are several), cost, and what others have printed."""
    (env_id,), rows, steps = summary.environments, summary.rows, summary.cells[0].episode_steps
    several, printed = rows[rows["training_seeds"] > 1], reported(env_id)
    found = [
        written(f"{env_id}, episodes of {steps} steps: scores", rows, SCORES),
        written(f"{env_id}: training seeds", several, SEEDS),
        written(f"{env_id}: cost", rows, COST),
    ]
    method = printed["method"] + " [" + (printed.groupby(["source", "unit"], sort=False).ngroup() + 1).astype(str) + "]"
    text = pd.DataFrame({"method [source]": method, "unit": printed["short_unit"], "reported": printed["text"]})
    found.append(Table(f"{env_id}: printed by others, not measured here", text, left=2, style="dim"))
    return [table for table in found if len(table.text)]


def notes(summary: Summary) -> list[str]:
    """What holds for one environment: reference returns, seeds, machine and sources."""
    cells, (env_id,) = summary.cells, summary.environments
    reference, success = cells[0].reference, cells[0].success
    score = "is the raw return" if success is None else "is 100 in an episode with success, else 0"
    if reference is not None:
        score = f"100 (R - {reference['min']:g}) / ({reference['max']:g} - {reference['min']:g}) of the raw return R"
    starts = dict.fromkeys(f"{min(cell.seeds)} to {max(cell.seeds)}" for cell in cells)
    timed = {f"{_machine(one)}, {counted(one.threads, 'thread')}" for one in summary.timings}
    times = f"Decisions timed on {' and '.join(sorted(timed))}." if timed else "Decisions were not timed."
    sources = reported(env_id)[["source", "unit"]].drop_duplicates().itertuples(index=False)
    return [
        f"{env_id}: score {score}; reset seeds {' or '.join(starts)}.",
        f"Played on {' and '.join(sorted({_machine(cell) for cell in cells}))}. {times}",
        *(f"[{number}] {source}; {unit}." for number, (source, unit) in enumerate(sources, start=1)),
    ]


def row_notes(summary: Summary) -> list[str]:
    """What each row is: as it is registered or, of a user's own, as its results say."""
    about = {cell.agent: cell.about for cell in summary.cells}
    return [f"{agent}: {ROWS[agent].about if agent in ROWS else text}." for agent, text in about.items()]


def _machine(measured: Result) -> str:
    return f"{measured.device} ({measured.hardware.get('cpu', 'unknown processor')})"


def counted(number: int, what: str) -> str:
    """'1 thread', '2 threads'."""
    return f"{number} {what}{'s' if number > 1 else ''}"


def played(row: Row) -> str:
    """'3 x 100', '100' for an untrained agent; less than a recorded row has is '1 x 100 †', and 'of 3 x 100' below."""
    found, whole = (f"{row['training_seeds']} x ", f"{len(TRAINING_SEEDS)} x ") if row["training_seeds"] else ("", "")
    lacks = f" †\nof {whole}{EPISODES}" if row["lacks"] else ""
    return f"{found}{row['episodes']}{lacks}"


def interval(row: Row, name: str, sign: str = "") -> str:
    """A number and, in a second line, its interval; empty if there is no number. `sign`: '+' to write one."""
    value, low, high = (decimal(row[name + part], sign * (not part)) for part in ("", "_low", "_high"))
    return f"{value}\n[{low}, {high}]" if low and high else value


def decimal(value: float, sign: str = "") -> str:
    """One digit after the point, and no '-0.0'; empty for a missing number."""
    return "" if pd.isna(value) else f"{round(value, 1) + 0.0:{sign}.1f}"


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
    return ", ".join(filter(None, [accelerator, hardware.get("cpu"), threads and counted(threads, "thread")]))


def _training_time(row: Row) -> str:
    time = duration(row["training_seconds"])
    return f"{time}\nfor {row['stacked']} seeds" if time and row["stacked"] > 1 else time


def _reported(row: Row) -> str:
    printed = printed_for(row["agent"], row["env"])
    return "\n".join(printed["text"] + "\n" + printed["short_unit"])


SCORES: Columns = {
    "agent\nactions from": lambda row: f"{row['agent']}\n{row['execution']}",
    "seeds x\nepisodes": played,
    "raw\nreturn": lambda row: decimal(row["return"]),
    "score\n[95%]": lambda row: interval(row, "normalized"),
    "IQM\n[95%]": lambda row: interval(row, "iqm"),
    "minus first row\n[95%]": lambda row: interval(row, "difference", "+"),
    "success\nsteps": reach,
    "reported\nunit": _reported,
}
SEEDS: Columns = {
    "agent": lambda row: row["agent"],
    "score of each\ntraining seed": lambda row: ", ".join(map(decimal, row["seed_means"])),
    "over training seeds\nand starts [95%]": lambda row: interval(row, "over_seeds").replace("\n", " "),
}
COST: Columns = {
    "agent": lambda row: row["agent"],
    "ms per decision\nmedian": lambda row: milliseconds(row["decision_median_ms"]),
    "ms per decision\n95th percentile": lambda row: milliseconds(row["decision_p95_ms"]),
    "ms per\nplan": lambda row: milliseconds(row["plan_ms"]),
    "training\ntime": _training_time,
    "parameters": lambda row: "" if pd.isna(row["parameters"]) else f"{row['parameters'] / 1e6:.2f} M",
    "trained on": lambda row: "\n".join(dict.fromkeys(filter(None, map(machine, row["machines"])))),
}


def to_markdown(summary: Summary) -> str:
    """All tables of one environment, then the notes."""
    points = (f"- {note}" for note in [*row_notes(summary), *PROTOCOL, *notes(summary)])
    return "\n".join([*(table.to_markdown() for table in tables(summary)), *points]) + "\n"


def to_rich(summary: Summary) -> Group:
    """The same for a terminal of 100 columns or more."""
    text = printable("\n".join([*row_notes(summary), *PROTOCOL, *notes(summary)]), keep="\n")
    return Group(*(table.to_rich() for table in tables(summary)), Text(text, style="dim"))


def to_csv(summary: Summary) -> str:
    """Numbers at full precision, one line a row; 'reported' and what follows it are filled by printed rows only."""
    measured = summary.rows.drop(columns=["about", "lacks", "curve", "stacked", "machines"])
    measured["seed_means"] = [" ".join(map(repr, means)) for means in measured["seed_means"]]
    names = {"method": "agent", "score": "reported", "std": "reported_std"}
    printed = pd.concat(map(reported, summary.environments)).rename(columns=names)
    printed = printed[["env", "agent", "reported", "reported_std", "unit", "source"]]
    whole = dict.fromkeys(("training_seeds", "episodes", "parameters"), "Int64")
    return pd.concat([measured, printed]).astype(whole).to_csv(index=False, lineterminator="\n")


def write(folder: Path, summary: Summary) -> None:
    """Write table.md and table.csv of one environment into a folder."""
    write_whole(folder / "table.md", to_markdown(summary))
    write_whole(folder / "table.csv", to_csv(summary))
