import os

import numpy as np
import pytest

from dfplan.envs.maze.layouts import LAYOUTS, MAX_SIDE, named, parse, read


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
        ("#####\n#GOG#\n#####", r"2 goals, the first at \[\(1, 1\), \(1, 3\)\]"),
        ("#O##\n#OG#\n####", "open at row 0, column 1"),
        ("####\n#OGO\n####", "open at row 1, column 3"),
        (7, "a text of rows, not int"),
        (["###"], "a text of rows, not list"),
    ],
)
def test_a_bad_layout_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def box(rows, columns):
    return "\n".join(["#" * columns, *["#" + "O" * (columns - 2) + "#"] * (rows - 2), "#" * columns])


def test_the_largest_layout_parses_and_a_larger_one_is_refused():
    assert parse(box(MAX_SIDE, MAX_SIDE)).shape == (MAX_SIDE, MAX_SIDE)
    for rows, columns in [(MAX_SIDE + 1, 5), (5, MAX_SIDE + 1), (1500, 1500)]:
        with pytest.raises(ValueError, match=f"the maze layout has .*; at most {MAX_SIDE} rows and {MAX_SIDE} columns"):
            parse(box(rows, columns))


@pytest.mark.parametrize(
    "content", [b"#####\r\n#OOG#\r\n#####\r\n", b"\xef\xbb\xbf#####\n#OOG#\n#####", b"#####\r#OOG#\r#####"]
)
def test_a_file_is_read_whatever_ends_its_lines(tmp_path, content):
    (tmp_path / "maze.txt").write_bytes(content)
    assert read(tmp_path / "maze.txt") == parse("#####|#OOG#|#####")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "maze.txt: the maze layout is empty"),
        (b"#####\n#OG#\n#####", "maze.txt: the maze layout is ragged"),
        ("#####\n#OOG#\n#####".encode("utf-16"), "maze.txt is not text in UTF-8"),
        (bytes(range(256)), "maze.txt is not text in UTF-8"),
        (b"\0" * 100, r"maze.txt: unknown character '\\x00'"),
        (b"#" * 10_000_000, "maze.txt: the maze layout has 160,001 characters; at most 100 rows"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    (tmp_path / "maze.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path / "maze.txt")
    assert str(tmp_path / "maze.txt") in str(error.value) and len(str(error.value)) < 300


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "circle", tmp_path / "nowhere", "/dev/zero"):
        with pytest.raises(ValueError, match=f"the layout file {place} cannot be read: "):
            read(place)


def test_an_unknown_maze_is_named():
    with pytest.raises(KeyError, match=r"unknown maze 'big'.*large"):
        named("big")
