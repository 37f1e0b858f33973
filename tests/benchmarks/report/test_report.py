import csv
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from test_cells import small_cell, small_timing

from dfplan.benchmarks.protocol import EVALUATION_SEEDS
from dfplan.benchmarks.provenance import file_hash
from dfplan.benchmarks.report import __main__ as report
from dfplan.benchmarks.report import pages, tables
from dfplan.benchmarks.report.summaries import summarize
from dfplan.benchmarks.report.tables import decimal, duration, machine
from dfplan.benchmarks.results import Key, cells_in, timings_in, write
from dfplan.benchmarks.rows import ROWS
from dfplan.envs.registry import TASKS
from dfplan.intervals import mean
from dfplan.training.checkpoint import save_checkpoint

ROOT = Path(__file__).parents[3]
RECORDED = ROOT / "benchmarks" / "recorded"
CELLS = [
    *(small_cell(agent="diffusion-forcing", training_seed=seed, card={"training_seconds": 600.0}) for seed in range(3)),
    small_cell(agent="expert", training_seed=None, success=[False, False], returns=[161.86, 161.86], parameters=None),
]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
TIMINGS = [small_timing(agent="diffusion-forcing")]


def markdown_tables(text):
    """One dictionary a table: from a row's first cell to its cells by header."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("| ")]
        if lines:
            header, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
            found.append({row[0]: dict(zip(header, row, strict=True)) for row in rows})
    return found


def test_measured_rows_come_from_the_cells_alone():
    scores, seeds, cost, _ = markdown_tables(tables.to_markdown(summarize(CELLS, TIMINGS)))
    planner, expert = scores.values()
    expected = mean([[100 * (value - 23.85) / (161.86 - 23.85) for value in (0.0, 10.0)]] * 3, same_starts=True)
    assert planner["score<br>[95%]"] == f"{expected.value:.1f}<br>[{expected.low:.1f}, {expected.high:.1f}]"
    assert list(scores) == ["diffusion-forcing<br>diffused actions", "expert<br>diffused actions"]
    assert planner["seeds x<br>episodes"] == "3 x 2 †<br>of 3 x 100"
    assert expert["seeds x<br>episodes"] == "2 †<br>of 100"
    assert planner["raw<br>return"] == "5.0" and planner["success<br>steps"] == "50%<br>12"
    assert planner["minus first row<br>[95%]"] == "" and expert["success<br>steps"] == "0%"
    assert expert["minus first row<br>[95%]"].startswith("+113.7<br>[")
    assert seeds["diffusion-forcing"]["score of each<br>training seed"] == ", ".join([decimal(expected.value)] * 3)
    timed = cost["diffusion-forcing"]
    assert [timed[f"ms per decision<br>{of}"] for of in ("median", "95th percentile")] == ["0.50", "20"]
    assert (timed["ms per<br>plan"], timed["training<br>time"]) == ("80", "10 min")
    assert set(list(cost["expert"].values())[1:]) == {""} and "trained on" not in timed  # nobody has one


def test_printed_numbers_stand_apart_with_unit_and_source():
    text = tables.to_markdown(summarize(CELLS, TIMINGS))
    scores, _, _, printed = markdown_tables(text)
    assert "printed by others, not measured here" in text
    assert scores["diffusion-forcing<br>diffused actions"]["reported<br>unit"] == "110.1 ± 3.9<br>as printed"
    assert scores["expert<br>diffused actions"]["reported<br>unit"] == ""
    assert printed["Diffusion Forcing [1]"] == {
        "method [source]": "Diffusion Forcing [1]", "unit": "as printed", "reported": "116.7 ± 2",
    }  # fmt: skip
    assert "- [1] Chen et al. 2024, Diffusion Forcing" in text


def test_notes_say_how_it_was_measured():
    text = tables.to_markdown(summarize(CELLS, TIMINGS))
    for part in (
        f"- expert: {ROWS['expert'].about}.",
        "seeds 100000 to 100001",
        "cpu (one), 2 threads",
        "bootstrap",
        "†:",
    ):
        assert part in text
    users = [replace(cell, agent="my:agent") for cell in CELLS[:1]]
    assert "- my:agent: it plans." in tables.to_markdown(summarize(users, []))
    assert "Decisions were not timed" in tables.to_markdown(summarize(CELLS, []))


@pytest.mark.parametrize("width", [100, 130])
def test_the_terminal_shows_the_same_rows_and_cuts_no_number(width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(tables.to_rich(summarize(CELLS, TIMINGS)))
    text = console.export_text()
    for expected in (
        "diffusion-forcing",
        "3 x 2 †",
        "161.9",
        "100.0",
        "116.7 ± 2",
        "10 min",
        "[1] Chen",
        "[-17.3, -10.0]",
    ):
        assert expected in text


@pytest.mark.filterwarnings("error")
def test_an_environment_of_which_nothing_is_printed_has_its_tables_too():
    cell = small_cell(env_id="maze2d-eval-umaze-v1", training_seed=None)
    summary = summarize([cell], [])
    assert len(markdown_tables(tables.to_markdown(summary))) == 2
    (row,) = csv.DictReader(io.StringIO(tables.to_csv(summary)))
    assert (row["agent"], row["reported"], row["training_seeds"], row["parameters"]) == ("planner", "", "0", "7")


def test_a_narrow_terminal_breaks_lines_and_cuts_nothing():
    wide = small_cell(agent="random", returns=[-200.0, 330.0], seeds=[7, 8])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(tables.to_rich(summarize([*CELLS, wide], TIMINGS)))
    scores = console.export_text().partition("training seeds")[0]
    assert "…" not in scores and "random" in scores and "diffusion-" in scores and "of 3 x 100" in scores


def test_csv_has_full_precision_and_both_kinds_of_rows():
    rows = {row["agent"]: row for row in csv.DictReader(io.StringIO(tables.to_csv(summarize(CELLS, TIMINGS))))}
    planner = rows["diffusion-forcing"]
    assert float(planner["normalized"]) == pytest.approx(-13.658430548510978, rel=1e-14)
    assert planner["reported"] == "" and planner["training_seeds"] == "3" and planner["decision_p95_ms"] == "20.0"
    assert float(rows["expert"]["difference"]) > 100
    assert rows["Diffusion Forcing"]["reported"] == "116.7" and rows["Diffusion Forcing"]["return"] == ""


def test_training_seeds_that_were_trained_together_say_so():
    card = {"training_seconds": 600.0, "seeds": [0, 1, 2], "hardware": {"cpu": "one", "threads": 1}}
    stacked = [small_cell(training_seed=seed, card=card) for seed in range(3)]
    row = markdown_tables(tables.to_markdown(summarize(stacked, [])))[2]["planner"]
    assert (row["training<br>time"], row["trained on"]) == ("10 min<br>for 3 seeds", "one, 1 thread")


def test_a_table_drops_columns_in_which_nothing_stands_and_escapes_bars():
    rows = pd.DataFrame({"name": ["a|b", "c"], "x": ["1\n2", ""]})
    columns = {"name": lambda row: row["name"], "empty": lambda row: "", "x": lambda row: row["x"]}
    assert tables.written("t", rows, columns).to_markdown().splitlines()[2:] == [
        "| name | x |", "| --- | ---: |", r"| a\|b | 1<br>2 |", "| c |  |",
    ]  # fmt: skip


def test_what_a_card_or_a_name_says_cannot_steer_the_terminal():
    cells = [small_cell(agent="sb3:\x1b[2J", card={"hardware": {"cpu": "\x1b]0;title\x07\x9b31m"}})]
    console = Console(width=200, file=io.StringIO())
    console.print(tables.to_rich(summarize(cells, [])))
    shown = console.file.getvalue()
    assert "\\x1b[2J" in shown and "\\x1b]0;title" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_numbers_are_written_for_reading():
    assert [decimal(value) for value in (-0.04, 0.04, -0.06, 221.72)] == ["0.0", "0.0", "-0.1", "221.7"]
    assert [duration(value) for value in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]
    machines = {"": None, "H200": "H200", "one": {"cpu": "one"}, "two, one": {"cpu": "one", "gpu": "two"},
                "one, 1 thread": {"cpu": "one", "accelerator": "auto", "threads": 1},
                "cuda, one, 2 threads": {"cpu": "one", "accelerator": "cuda", "threads": 2}}  # fmt: skip
    assert [machine(value) for value in machines.values()] == list(machines)


@pytest.fixture
def tree(tmp_path):
    """A repository with recorded cells of two environments and one algorithm's page."""
    for cell in [*CELLS, small_cell(agent="expert", env_id="multi2d-umaze-v1", training_seed=None)]:
        write(tmp_path / report.RECORDED, cell)
    write(tmp_path / report.RECORDED, TIMINGS[0])
    (tmp_path / "docs").mkdir()
    for path in (tmp_path / "README.md", tmp_path / "docs" / "diffusion-forcing.md", tmp_path / "docs" / "iql.md"):
        path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    (tmp_path / "docs" / "other.md").write_text("no markers\n")
    return tmp_path


@pytest.fixture
def command(tree, monkeypatch, capsys):
    """The report's command in that repository: exit status, and what it says of errors."""

    def run(*arguments):
        monkeypatch.chdir(tree)
        monkeypatch.setattr(sys, "argv", ["report", *arguments])
        return report.main(), capsys.readouterr().err

    return run


def test_everything_is_rewritten_and_checked(tree, command):
    status, said = command("--check")
    assert status == 1 and "README.md, docs/results.md, docs/diffusion-forcing.md, docs/iql.md" in said
    assert "docs/scores.png" in said and "\nold\n" in (tree / "README.md").read_text()
    assert command() == (0, "")
    assert command("--check") == (0, "")

    readme = (tree / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("\nafter\n") and "\nold\n" not in readme
    assert "docs/scores.png" in readme and (tree / "docs" / "scores.png").is_file()
    (overview,) = markdown_tables(readme)
    assert list(overview) == ["diffusion-forcing", "expert", "*best printed*"]
    assert overview["expert"]["maze2d-umaze"] == "**100.0** †<br>[100.0, 100.0]"
    assert "**Main rows: maze2d (D4RL's normalized score)**" in readme
    assert "**100.0** † 2 of 100 episodes<br>[100.0, 100.0]" in (tree / "docs" / "results.md").read_text()
    assert overview["diffusion-forcing"]["maze2d-umaze"].endswith("<br>(110.1 ± 3.9 as printed)")
    assert overview["diffusion-forcing"]["multi2d-umaze"] == ""
    assert overview["*best printed*"]["maze2d-umaze"].startswith("(146.3)<br>Diffusion Veteran")

    results = (tree / "docs" / "results.md").read_text()
    assert results.index("## maze2d-umaze-v1") < results.index("## multi2d-umaze-v1")
    assert results.count(f"- expert: {ROWS['expert'].about}.") == 1 and "`python benchmarks/run.py`" in results
    (page,) = markdown_tables((tree / "docs" / "diffusion-forcing.md").read_text())
    assert (
        page["maze2d-umaze"]["within"] == "no, below" and page["maze2d-umaze"]["measured<br>minus reported"] == "-123.8"
    )
    assert "Nothing is recorded yet" in (tree / "docs" / "iql.md").read_text()

    shutil.rmtree(tree / report.RECORDED / "maze2d-umaze" / "expert")
    assert command("--check")[0] == 1


def test_the_manifest_says_what_each_file_of_weights_has_scored(tree, command):
    weights = tree / "agents" / "pretrained" / "maze2d-umaze.safetensors"
    weights.parent.mkdir(parents=True)
    save_checkpoint(weights, {}, {"kind": "trajectory_model", "card": {"command": "python train.py"}})
    key = Key(code="a", config="b", weights=file_hash(weights), protocol="c")
    for seed, returns in enumerate(([0.0, 10.0], [20.0, 30.0])):
        cell = small_cell(agent="diffusion-forcing", training_seed=seed, key=key, returns=returns)
        write(tree / report.RECORDED, cell)
    assert command("--check")[0] == 1 and command() == (0, "")
    (entry,) = json.loads((weights.parent / "manifest.json").read_text()).values()
    assert entry == {
        "file": weights.name,
        "bytes": weights.stat().st_size,
        "sha256": file_hash(weights),
        "command": "python train.py",
        "scores": {"maze2d-umaze-v1": {"diffusion-forcing": round(100 * (15 - 23.85) / (161.86 - 23.85), 1)}},
    }
    weights.unlink()
    assert command("--check") == (0, ""), "a manifest of nothing is not asked for"


def test_the_readme_shows_few_rows_and_the_results_page_all(tree, command):
    write(tree / report.RECORDED, small_cell(agent="random", training_seed=None))
    assert command() == (0, "")
    assert "random" not in (tree / "README.md").read_text()
    overview = markdown_tables((tree / "docs" / "results.md").read_text())[0]
    assert list(overview) == ["diffusion-forcing", "expert", "random", "*best printed*"]


def test_nothing_recorded_and_documents_that_cannot_be_filled_are_said(tree, command):
    (tree / "docs" / "unknown.md").write_text(f"{BEGIN}\n{END}\n")
    status, said = command()
    assert status == 2 and "unknown.md" in said and "no row names it as its page" in said
    assert "\nold\n" in (tree / "README.md").read_text()
    shutil.rmtree(tree / report.RECORDED)
    status, said = command()
    assert status == 2 and "no recorded result" in said
    with pytest.raises(ValueError, match="markers"):
        pages.replaced("no markers", "text")


def test_documents_and_plots_are_those_of_the_recorded_results():
    assert report.report(ROOT, pages.read(RECORDED), check=True) == []


def test_recorded_cells_are_of_clean_trees_and_of_the_protocols_first_episodes():
    cells = cells_in(RECORDED)
    for cell in cells:
        assert cell.env_id in TASKS and cell.seeds == tuple(EVALUATION_SEEDS[: len(cell.seeds)])
        assert cell.commit is not None and not cell.commit.endswith("+")
    assert {(t.env_id, t.agent) for t in timings_in(RECORDED)} == {(c.env_id, c.agent) for c in cells}


def test_recorded_cells_were_played_with_the_weights_and_options_that_their_rows_have_now():
    """What was recorded before weights or options changed is not in a table. (`spot_check.py` plays episodes again.)"""
    for cell in cells_in(RECORDED):
        row = ROWS[cell.agent]
        path = row.weights_file(TASKS[cell.env_id], cell.training_seed)
        assert cell.key.weights == (None if path is None else file_hash(path)), (
            f"{cell.env_id} {cell.agent}: other weights"
        )
        if row.options:
            acting = {**(cell.config or {}).get("plan", {}), **(cell.config or {})}
            played = {name: acting[name] for name in row.options}
            assert played == dict(row.options), f"{cell.env_id} {cell.agent}: other options"


def test_a_typed_return_and_damaged_files_are_one_sentence(tree, command):
    """Without a table that shows it: whoever reads the file finds out."""
    assert command() == (0, "")
    path = tree / report.RECORDED / "maze2d-umaze" / "expert" / "untrained.json"
    whole = path.read_text()
    for text, sentence in (
        (whole.replace("161.86\n ]", "261.86\n ]"), "the returns are not those of its reward curve"),
        (whole.replace('"schema": 2', '"schema": 3'), "a newer dfplan wrote it"),
        (whole[:200], "Invalid JSON"),
        ("[" * 100_000, "recursion limit"),
        (whole.replace('"seconds": 1.0', '"seconds": "1"'), "seconds"),
    ):
        assert text != whole
        path.write_text(text)
        status, said = command("--check")
        assert status == 2 and sentence in said and said.count("\n") == 1 and len(said) <= 301
    path.write_text(whole)
    (tree / "docs" / "scores.png").write_bytes(b"\x89PNG")
    status, said = command("--check")
    assert status == 1 and "docs/scores.png" in said
    assert command() == (0, "") and command("--check") == (0, "")
