import math

from dfplan.benchmarks.published import published, reported
from dfplan.envs.tasks import TASKS


def test_every_row_has_a_number_a_unit_and_a_source():
    rows = published()
    assert len(rows) > 200
    for row in rows:
        assert math.isfinite(row.score) and row.unit and row.source and row.grade in ("A", "B", "C")


def test_maze_rows_name_registered_environments():
    assert {row.task for row in published() if row.suite in ("maze2d", "multi2d")} <= set(TASKS)


def test_the_papers_own_numbers_are_not_called_normalized():
    rows = {row.method: row for row in reported("maze2d-large-v1")}
    paper = rows["Diffusion Forcing"]
    assert paper.short_unit == "as printed" and "Table 1" in paper.source
    assert rows["Diffusion Veteran"].short_unit == "D4RL-normalised x100"


def test_nobody_has_printed_scores_of_our_own_variants():
    assert reported("maze2d-eval-large-v1") == []
