import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from test_results import RECORDED, small_result

from dfplan.benchmarks import report
from dfplan.benchmarks.intervals import estimate

ROOT = Path(__file__).parents[2]


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    header, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_measured_rows_come_from_the_result_alone():
    rows = markdown_rows(report.to_markdown(small_result()))
    score = estimate([100 * (0 - 6.7) / (273.99 - 6.7), 100.0])
    planner, other = rows["planner"], rows["other"]
    assert planner["return"] == "137.0" and planner["normalized score"] == f"{score.mean:.1f}"
    assert planner["95% interval"] == f"{score.low:.1f} to {score.high:.1f}"
    assert planner["success"] == "50%" and planner["steps to goal"] == "12"
    assert (planner["ms per decision"], planner["p95"], planner["ms per plan"]) == ("0.50", "20", "80")
    assert planner["actions from"] == "diffused actions"
    assert other["steps to goal"] == "" and other["ms per plan"] == ""


def test_printed_numbers_stand_in_their_own_column_with_unit_and_source():
    text = report.to_markdown(small_result())
    rows = markdown_rows(text)
    printed = rows["Diffusion Forcing [1]"]
    assert printed["reported"] == "159 ± 2.7" and printed["unit"] == "as printed"
    assert printed["return"] == printed["normalized score"] == ""
    assert rows["planner"]["reported"] == rows["planner"]["unit"] == ""
    assert "[1] Chen et al. 2024, Diffusion Forcing" in text


def test_the_terminal_shows_the_same_rows_in_a_narrow_space():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report.to_rich(small_result()))
    text = console.export_text()
    for expected in ("planner", "diffused actions", "137.0", "0.50 (20)", "159 ± 2.7", "as printed", "[1] Chen"):
        assert expected in text


def test_csv_has_full_precision_and_both_kinds_of_rows():
    rows = list(csv.DictReader(io.StringIO(report.to_csv(small_result()))))
    by_agent = {row["agent"]: row for row in rows}
    assert float(by_agent["planner"]["return"]) == 273.99 / 2 and by_agent["planner"]["reported"] == ""
    assert by_agent["Diffusion Forcing"]["reported"] == "159.0" and by_agent["Diffusion Forcing"]["return"] == ""


def readme_command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "dfplan.benchmarks.report", *arguments], cwd=folder, capture_output=True, text=True
    )


def test_the_readme_is_rewritten_between_its_markers_and_checked(tmp_path):
    recorded = tmp_path / "benchmarks" / "recorded"
    recorded.mkdir(parents=True)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    assert readme_command(tmp_path).returncode == 2  # nothing recorded
    (recorded / "maze2d-large.json").write_text(small_result().to_json())
    assert readme_command(tmp_path, "--check").returncode == 1
    assert "old" in readme.read_text()
    assert readme_command(tmp_path).returncode == 0
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "| planner |" in text and "old" not in text
    assert readme_command(tmp_path, "--check").returncode == 0


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="markers"):
        report.replaced("no markers", "text")


def test_the_readme_shows_the_recorded_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.replaced(text, report.readme_section(RECORDED)) == text
