import numpy as np
import pytest

from dfplan.envs.layouts import LAYOUTS, named, parse


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts_parse_and_print_back(name):
    layout = named(name)
    assert parse(str(layout)) == layout
    assert layout.goal_cell is not None
    assert tuple(layout.free_cells[-1]) == layout.goal_cell
    assert len(layout.free_cells) == (~layout.walls).sum()
    assert not layout.walls[tuple(layout.free_cells.T)].any()


def test_goals_and_sizes_are_the_published_ones():
    assert {name: named(name).goal.tolist() for name in ("umaze", "medium", "large")} == {
        "umaze": [1, 1],
        "medium": [6, 6],
        "large": [7, 9],
    }
    assert named("large").shape == (9, 12)
    assert len(named("umaze").free_cells) == 7


def test_separators_indentation_and_free_characters_mean_the_same():
    text = """
        #####
        #O0G#
        #####
    """
    assert parse(text) == parse("#####|#O0G#|#####") == parse("#####\\#O0G#\\#####")
    assert np.array_equal(parse("#####\n# OG#\n#####").walls, parse(text).walls)


def test_without_a_goal_the_first_free_cell_is_the_goal():
    layout = parse("####\n##O#\n#OO#\n####")
    assert layout.goal_cell is None
    assert layout.goal.tolist() == [1, 2]


def test_wall_boxes_are_shifted_against_the_cells():
    boxes = parse("###\n#G#\n###").wall_boxes()
    assert boxes.shape == (8, 4)
    np.testing.assert_allclose(boxes[0], [-0.7, 0.3, -0.7, 0.3])


def test_cell_of_covers_the_reachable_part_of_a_cell():
    layout = named("open")
    assert layout.cell_of(1.0 - 0.59, 1.0) == (1, 1)
    assert layout.cell_of(1.0 + 0.19, 1.0 + 0.29) == (1, 1)
    assert layout.cell_of(1.31, 1.0) == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("###\n###\n###", "no free cell"),
        ("#####\n#OG#\n#####", "ragged: row 1 has 4 cells, row 0 has 5"),
        ("####\n#XG#\n####", "unknown character 'X' in the maze layout at row 1, column 1"),
        ("#####\n#GOG#\n#####", r"2 goals, at \[\(1, 1\), \(1, 3\)\]"),
        ("#O##\n#OG#\n####", "open at row 0, column 1"),
        ("####\n#OGO\n####", "open at row 1, column 3"),
        (7, "a text of rows, not int"),
        (["###"], "a text of rows, not list"),
    ],
)
def test_a_bad_layout_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_an_unknown_maze_is_named():
    with pytest.raises(KeyError, match=r"unknown maze 'big'.*large"):
        named("big")
