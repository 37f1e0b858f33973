import math

from dfplan.benchmarks.report.published import agrees, printed_for, published, reported
from dfplan.benchmarks.rows import ROWS
from dfplan.envs.registry import MAZES


def test_every_row_has_a_number_a_unit_and_a_source():
    rows = published()
    assert len(rows) > 200
    for row in rows.itertuples():
        assert math.isfinite(row.score) and row.unit and row.source and row.grade in ("A", "B", "C")


def test_maze_rows_name_registered_environments():
    rows = published()
    assert set(rows["env"][rows["suite"].isin(["maze2d", "multi2d"])]) <= set(MAZES)


def test_the_papers_own_numbers_are_not_called_normalized():
    rows = {row.method: row for row in reported("maze2d-large-v1").itertuples()}
    paper = rows["Diffusion Forcing"]
    assert paper.short_unit == "as printed" and "Table 1" in paper.source
    assert rows["Diffusion Veteran"].short_unit == "normalized"
    assert (paper.text, rows["Diffusion Veteran"].text) == ("159 ± 2.7", "203.6")


def test_nobody_has_printed_scores_of_our_own_variants():
    assert reported("maze2d-eval-large-v1").empty


def test_methods_that_rows_are_compared_with_are_printed():
    rows = published()
    methods = set(rows["method"][rows["suite"].isin(["maze2d", "ogbench"])])
    assert {method for row in ROWS.values() for method in row.printed} <= methods


def test_printed_scores_of_a_row_are_those_of_its_own_algorithm_and_environment():
    (found,) = printed_for("awac", "maze2d-large-v1").itertuples()
    assert (found.method, found.env) == ("AWAC (CORL)", "maze2d-large-v1")
    for agent, env_id in (("awac", "multi2d-large-v1"), ("expert", "maze2d-large-v1"), ("my:agent", "maze2d-large-v1")):
        assert printed_for(agent, env_id).empty


def test_agreement_is_the_larger_of_points_and_share():
    assert agrees(15.0, 0.0) and not agrees(15.1, 0.0)
    assert agrees(230.0, 200.0) and not agrees(230.1, 200.0) and agrees(170.0, 200.0)
