"""The generated parts of the documents: the README's table, docs/results.md, and the results of each algorithm's page.

Text stands between two markers, everything around it is written by hand; docs/results.md is generated whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dfplan.benchmarks import notes
from dfplan.benchmarks.cells import cells_in, env_folder, timings_in
from dfplan.benchmarks.counterparts import PAGES, agrees, printed_for
from dfplan.benchmarks.published import reported
from dfplan.benchmarks.summaries import Summary, ordered, summarise
from dfplan.benchmarks.tables import Table, interval, milliseconds, number, played, reach, tables, unit
from dfplan.envs.registry import TASKS

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
Benchmark = Mapping[str, Sequence[Summary]]
"""The rows of each environment, environments in the order of the registered tasks."""


def read(folder: str | Path) -> Benchmark:
    """All recorded rows. ValueError if there is none, or a file is not a whole cell."""
    cells, timings = cells_in(folder), timings_in(folder)
    if not cells:
        raise ValueError(f"there is no recorded result in {folder}")
    rank = {env_id: place for place, env_id in enumerate(TASKS)}
    environments = sorted({cell.env_id for cell in cells}, key=lambda env_id: (rank.get(env_id, len(rank)), env_id))
    return {env_id: summarise(ordered(c for c in cells if c.env_id == env_id), timings) for env_id in environments}


def documents(root: Path, benchmark: Benchmark, plots: Sequence[str]) -> dict[Path, str]:
    """The whole text of every document with generated parts, as it should be. ``plots``: names of files in docs/.

    Raises ValueError for a page of docs/ that has markers but no rows, or one marker only.
    """
    docs, readme = root / "docs", root / "README.md"
    found = {
        readme: replaced(readme.read_text(encoding="utf-8"), readme_section(benchmark, plots), readme.name),
        docs / "results.md": results_page(benchmark, plots),
    }
    for page in sorted(docs.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if page.stem == "results" or BEGIN not in text:
            continue
        if page.stem not in PAGES:
            raise ValueError(f"{page.name} has a block for results, but `counterparts.PAGES` names no rows for it")
        found[page] = replaced(text, page_section(page.stem, benchmark), page.name)
    return found


def replaced(text: str, section: str, name: str = "the README") -> str:
    """A document with the text between its markers replaced. ValueError if it does not have both, in order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{name} lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{section}{END}{after}"


def readme_section(benchmark: Benchmark, plots: Sequence[str]) -> str:
    picture = "\n![Score of each agent in each environment, with intervals](docs/scores.png)\n"
    return (
        f"{_overview(benchmark).to_markdown()}\n"
        "Mean D4RL-normalised score with its 95% interval over episodes; the best measured one is bold. In parentheses: "
        "what others have printed for the same algorithm, under protocols of their own. †: fewer training seeds or "
        "episodes than a recorded row has. The last line is the highest normalised score that we have found printed.\n"
        f"{picture if 'scores.png' in plots else ''}\n"
        "Per environment, with costs, training seeds, paired differences, all printed scores and the notes: "
        "[docs/results.md](docs/results.md).\n"
    )


def _overview(benchmark: Benchmark) -> Table:
    best = {env_id: max(row.score.value for row in rows) for env_id, rows in benchmark.items()}
    cells = ordered(row.cells[0] for rows in benchmark.values() for row in rows)
    by_agent: dict[str, dict[str, Summary]] = {cell.agent: {} for cell in cells}
    for rows in benchmark.values():
        for row in rows:
            by_agent[row.agent][row.env_id] = row
    lines = [
        (agent, *(_overview_cell(found[env_id], best[env_id]) if env_id in found else "" for env_id in benchmark))
        for agent, found in by_agent.items()
    ]
    lines.append(("*best printed*", *map(_best_printed, benchmark)))
    return Table("All environments", ("agent", *map(env_folder, benchmark)), tuple(lines))


def _overview_cell(row: Summary, best: float) -> str:
    value, _, spread = interval(row.score).partition("\n")
    value = f"**{value}**" if row.score.value == best else value
    printed = "".join(f"\n({number(entry)} {unit(entry)})" for entry in printed_for(row.agent, row.env_id))
    return f"{value}{'' if row.full else ' †'}\n{spread}{printed}"


def _best_printed(env_id: str) -> str:
    normalised = [row for row in reported(env_id) if unit(row) == "normalised"]
    if not normalised:
        return ""
    best = max(normalised, key=lambda row: row.score)
    return f"({number(best)})\n{best.method}"


def results_page(benchmark: Benchmark, plots: Sequence[str]) -> str:
    everything = [row for rows in benchmark.values() for row in rows]
    about = "\n".join(f"- {note}" for note in notes.rows(everything))
    protocol = "\n".join(f"- {note}" for note in notes.protocol())
    pictures = "".join(f"![{CAPTIONS[name]}]({name})\n\n*{CAPTIONS[name]}*\n\n" for name in plots)
    parts = [_environment_part(rows) for rows in benchmark.values()]
    return (
        "# Results\n\nGenerated from `benchmarks/recorded/` by `python -m dfplan.benchmarks.report`: do not edit.\n\n"
        f"{pictures}## How to read the tables\n\n{protocol}\n\n## The rows\n\n{about}\n\n" + "\n".join(parts)
    )


CAPTIONS = {
    "scores.png": "Score of each agent with its 95% interval over episodes; diamonds are what others have printed",
    "speed.png": "Score against the mean time of a decision, replanning included",
    "returns.png": "Mean return up to each step of an episode",
    "learning.png": "Score on tuning seeds during training; thin lines are single runs where there are several",
}


def _environment_part(rows: Sequence[Summary]) -> str:
    commands = dict.fromkeys(cell.command for row in rows for cell in row.cells)
    made = f"Made by {', '.join(f'`{command}`' for command in commands)}."
    shown = "\n".join(table.to_markdown() for table in tables(rows))
    lines = "\n".join(f"- {note}" for note in (*notes.environment(rows), made))
    return f"## {rows[0].env_id}\n\n{shown}\n{lines}\n"


def page_section(page: str, benchmark: Benchmark) -> str:
    """What an algorithm's page shows: its rows on all environments, beside the printed scores of the same algorithm."""
    names = PAGES[page]
    rows = [row for summaries in benchmark.values() for row in summaries if row.agent in names]
    if not rows:
        return "Nothing is recorded yet.\n"
    headers = (
        "environment", "agent", "seeds x\nepisodes", "score\n[95%]", "IQM\n[95%]", "success\nsteps", "ms per decision\n(mean)",
        "reported", "measured\nminus reported", "within",
    )  # fmt: skip
    rows.sort(key=lambda row: list(names).index(row.agent))
    lines = tuple(line for row in rows for line in _page_rows(row))
    table = Table("Recorded", headers, lines, left=2).without_empty_columns()
    compared = f"{notes.agreement()} " if any(line[-1] for line in lines) else ""
    return f"{table.to_markdown()}\n{compared}What the other columns mean, and all other rows: [results.md](results.md).\n"


def _page_rows(row: Summary) -> list[tuple[str, ...]]:
    """One line for each printed score of the same algorithm, or one without."""
    pace = "" if row.timing is None else milliseconds(row.timing.mean)
    measured = (env_folder(row.env_id), row.agent, played(row), interval(row.score), interval(row.middle), reach(row), pace)
    return [
        (
            *measured,
            f"{number(entry)} {unit(entry)}\n{entry.method}",
            f"{row.score.value - entry.score:+.1f}",
            _verdict(row.score.value, entry.score),
        )
        for entry in printed_for(row.agent, row.env_id)
    ] or [(*measured, "", "", "")]


def _verdict(measured: float, printed: float) -> str:
    if agrees(measured, printed):
        return "yes"
    return "no, above" if measured > printed else "no, below"
