"""The generated parts of the documents: the README's table, docs/results.md, and the results of each algorithm's page.

Text stands between two markers, everything around it is written by hand; docs/results.md is generated whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from dfplan.benchmarks.protocol import score
from dfplan.benchmarks.report import tables
from dfplan.benchmarks.report.published import TOLERANCE_POINTS, TOLERANCE_SHARE, agrees, printed_for, reported
from dfplan.benchmarks.report.summaries import Summary, in_order, summarize
from dfplan.benchmarks.report.tables import PROTOCOL, TEXTS, Row, Table, interval
from dfplan.benchmarks.results import cells_in, timings_in
from dfplan.benchmarks.rows import ROWS
from dfplan.benchmarks.suites import suite
from dfplan.envs.registry import TASKS, short_name


def read(folder: str | Path) -> Summary:
    """All recorded results, in the order of the registered tasks and rows.

    Raises ValueError if there is none, or a file is not a whole result.
    """
    cells = cells_in(folder)
    if not cells:
        raise ValueError(f"there is no recorded result in {folder}")
    rank, agents = {env_id: place for place, env_id in enumerate(TASKS)}, in_order(cell.agent for cell in cells)
    cells.sort(key=lambda cell: (rank.get(cell.env_id, len(rank)), agents.index(cell.agent), cell.training_seed or 0))
    return summarize(cells, timings_in(folder))


def documents(root: Path, summary: Summary, plots: Mapping[str, str]) -> dict[Path, str]:
    """The whole text of every document with generated parts, as it should be.

    `plots`: file names of plots in docs/, each with its caption. Raises ValueError for a page of docs/ that has markers but
    no rows, or one marker only.
    """
    docs, readme = root / "docs", root / "README.md"
    found = {
        readme: replaced(readme.read_text(encoding="utf-8"), readme_section(summary, plots), readme.name),
        docs / "results.md": results_page(summary, plots),
    }
    for page in sorted(docs.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if page.stem == "results" or "<!-- results:begin -->" not in text:
            continue
        names = [name for name, row in ROWS.items() if row.page == page.stem]
        if not names:
            raise ValueError(f"{page.name} has a block for results, but no row names it as its page")
        found[page] = replaced(text, page_section(names, summary), page.name)
    return found


def replaced(text: str, section: str, name: str = "the README", block: str = "results") -> str:
    """A document with the text between a block's markers replaced. ValueError if it does not have both, in order."""
    begin, end = (f"<!-- {block}:{mark} -->" for mark in ("begin", "end"))
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"{name} lacks the markers {begin} and {end}")
    return f"{before}{begin}\n{section}{end}{after}"


def readme_section(summary: Summary, plots: Mapping[str, str]) -> str:
    """The overview of a few rows, and the picture of all."""
    few = summary.rows[[_main(row.agent, row.env) for row in summary.rows.itertuples()]]
    table = overviews("Main rows", few, summary, say_lacks=False)
    picture = f"![{plots['scores.png']}](docs/scores.png)\n\n" if "scores.png" in plots else ""
    return str(TEXTS["readme"]).format(overview=table, how_to_read=TEXTS["how_to_read"], picture=picture)


def _main(agent: str, env_id: str) -> bool:
    """Whether the README shows a row: one of the headline in the mazes, elsewhere those that a run plays by default."""
    family = suite.of(TASKS[env_id]) if env_id in TASKS else suite.named(suite.MAIN)
    return ROWS[agent].headline if agent in ROWS and family is suite.named(suite.MAIN) else agent in family.rows


SCORES = {"normalized": "D4RL's normalized score", "success %": "% of episodes with success", "return": "return"}
"""What the score of a unit is, in the title of its table."""


def overviews(title: str, rows: pd.DataFrame, summary: Summary, say_lacks: bool = True) -> str:
    """`overview` of each suite, in the order of the environments, as Markdown. Its title names the score."""
    suites = {env_id: TASKS[env_id].suite if env_id in TASKS else "" for env_id in summary.environments}
    units = {cell.env_id: SCORES[score(cell.reference, cell.returns, cell.success)[0]] for cell in summary.cells}
    found = []
    for name in dict.fromkeys(suites.values()):
        own = [env_id for env_id in summary.environments if suites[env_id] == name]
        said = f"{title}: {name} ({', '.join(dict.fromkeys(units[env_id] for env_id in own))})"
        found.append(overview(said, rows[rows["env"].isin(own)], own, say_lacks).to_markdown())
    return "\n".join(found)


def overview(title: str, rows: pd.DataFrame, environments: list[str], say_lacks: bool = True) -> Table:
    """Scores, a line for each agent and a column for each environment; with `say_lacks`, the reasons stand beside each †."""
    best = rows.groupby("env")["normalized"].transform("max") == rows["normalized"]
    text = [_overview_entry(row, bold, say_lacks) for row, bold in zip(rows.to_dict("records"), best, strict=True)]
    entries = rows.assign(text=text).pivot(index="agent", columns="env", values="text")
    entries = entries.reindex(index=in_order(rows["agent"]), columns=environments).fillna("")
    best_printed = [_best_printed(env_id) for env_id in environments]
    if any(best_printed):
        entries.loc["*best printed*"] = best_printed
    return Table(title, entries.rename(columns=short_name).reset_index())


def _overview_entry(row: Row, bold: bool, say_lacks: bool) -> str:
    value, _, bounds = interval(row, "normalized").partition("\n")
    lacks = f" † {', '.join(row['lacks']) if say_lacks else ''}".rstrip() if row["lacks"] else ""
    printed = [f"({one.text} {one.short_unit})" for one in printed_for(row["agent"], row["env"]).itertuples()]
    return "\n".join([f"{f'**{value}**' if bold else value}{lacks}", bounds, *printed])


def _best_printed(env_id: str) -> str:
    rows = reported(env_id)
    best = rows[rows["short_unit"].isin(["normalized", "success %"])].nlargest(1, "score")
    return "".join("(" + best["text"] + ")\n" + best["method"])


def results_page(summary: Summary, plots: Mapping[str, str]) -> str:
    """docs/results.md: plots, the overview of all rows, how to read the tables, and the tables of each environment."""
    parts = []
    for env_id in summary.environments:
        own = summary.of(env_id)
        made = f"Made by {', '.join(dict.fromkeys(f'`{cell.command}`' for cell in own.cells))}."
        shown = "\n".join(table.to_markdown() for table in tables.tables(own))
        parts.append(f"## {env_id}\n\n{shown}\n{_points([*tables.notes(own), made])}")
    return str(TEXTS["results"]).format(
        pictures="".join(f"![{caption}]({name})\n\n*{caption}*\n\n" for name, caption in plots.items()),
        overview=overviews("All rows", summary.rows, summary),
        how_to_read=TEXTS["how_to_read"],
        protocol=_points(PROTOCOL),
        rows=_points(tables.row_notes(summary)),
        environments="\n".join(parts),
    )


def _points(sentences: list[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)


def page_section(names: list[str], summary: Summary) -> str:
    """What an algorithm's page shows: its rows on all environments, beside the printed scores of the same algorithm."""
    rows = summary.rows[summary.rows["agent"].isin(names)]
    rows = rows.sort_values("agent", key=lambda agents: agents.map(names.index), kind="stable")
    if rows.empty:
        return "Nothing is recorded yet.\n"
    # One line for each printed score of the same algorithm, or one without.
    printed = pd.concat(printed_for(row.agent, row.env).assign(agent=row.agent) for row in rows.itertuples())
    printed = printed[["env", "agent", "method", "score", "text", "short_unit"]]
    pairs = rows.merge(printed, how="left", on=["env", "agent"])
    tolerance = {"points": TOLERANCE_POINTS, "share": TOLERANCE_SHARE}
    agreement = str(TEXTS["agreement"]).format(**tolerance) if pairs["score"].notna().any() else ""
    table = tables.written("Recorded", pairs, _PAGE, left=2).to_markdown()
    return str(TEXTS["page"]).format(table=table, agreement=agreement)


def _if_printed(write: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: "" if pd.isna(row["score"]) else write(row)


def _verdict(row: Row) -> str:
    if agrees(row["normalized"], row["score"]):
        return "yes"
    return "no, above" if row["normalized"] > row["score"] else "no, below"


_PAGE: tables.Columns = {
    "environment": lambda row: short_name(row["env"]),
    "agent": lambda row: row["agent"],
    "seeds x\nepisodes": tables.played,
    "score\n[95%]": lambda row: interval(row, "normalized"),
    "IQM\n[95%]": lambda row: interval(row, "iqm"),
    "success\nsteps": tables.reach,
    "ms per decision\n(mean)": lambda row: tables.milliseconds(row["decision_mean_ms"]),
    "reported": _if_printed(lambda row: f"{row['text']} {row['short_unit']}\n{row['method']}"),
    "measured\nminus reported": _if_printed(lambda row: f"{row['normalized'] - row['score']:+.1f}"),
    "within": _if_printed(_verdict),
}
