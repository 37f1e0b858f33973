"""Mazes as text.

A layout is a rectangle of cells: `#` is a wall, `O`, `0` or a space is free, `G` is free and the goal.
Row `i`, column `j` of the text is the cell whose center has the observation coordinates `(x, y) = (i, j)`:
x runs *down* the text and y to the right, as in D4RL. Lengths are in cells, and a cell is one unit of length.

Not to be confused with the coordinates of the walls: in D4RL's model the walls stand at +1 and the particle at +1.2,
so that seen in observation coordinates every wall is shifted by `WALL_SHIFT = -0.2` along both axes.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from dfplan.whole_files import opened

CUSTOM_ID = "maze2d-custom-v1"
"""The environment for a layout of the user's own."""
WALL_SHIFT = -0.2
_FREE = "O0 "
_TILES = _FREE + "#G"
MAX_SIDE = 100
"""Rows and columns of the largest maze: MuJoCo takes seconds to compile so many walls."""
_MAX_CHARACTERS = 4 * MAX_SIDE * MAX_SIDE  # indentation and trailing spaces included
_LIMIT = f"at most {MAX_SIDE} rows and {MAX_SIDE} columns are possible"

# The layouts of the published tasks (D4RL, Fu et al. 2020). 'eval' is D4RL's second maze of each size.
LAYOUTS: dict[str, str] = {
    "open": "#######|#OOOOO#|#OOGOO#|#OOOOO#|#######",
    "umaze": "#####|#GOO#|###O#|#OOO#|#####",
    "medium": "########|#OO##OO#|#OO#OOO#|##OOO###|#OO#OOO#|#O#OO#O#|#OOO#OG#|########",
    "large": (
        "############|#OOOO#OOOOO#|#O##O#O#O#O#|#OOOOOO#OOO#|#O####O###O#|"
        "#OO#O#OOOOO#|##O#O#O#O###|#OO#OOO#OGO#|############"
    ),
    "eval-umaze": "#####|#OOG#|#O###|#OOO#|#####",
    "eval-medium": "########|#OOOOOG#|#O#O##O#|#OOOO#O#|###OO###|#OOOOOO#|#OO##OO#|########",
    "eval-large": (
        "############|#OO#OOO#OGO#|##O###O#O#O#|#OO#O#OOOOO#|#O##O#OO##O#|"
        "#OOOOOO#OOO#|#O##O#O#O###|#OOOO#OOOOO#|############"
    ),
}


@dataclass(frozen=True)
class Layout:
    """A closed maze. Build it with `parse` or `named`, which check the text."""

    rows: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells along x (rows of the text) and along y (columns)."""
        return len(self.rows), len(self.rows[0])

    @cached_property
    def walls(self) -> np.ndarray:
        """Boolean array of `shape`: True where a cell is a wall."""
        return np.array([[tile == "#" for tile in row] for row in self.rows])

    @cached_property
    def goal_cell(self) -> tuple[int, int] | None:
        """The cell marked `G`, or None."""
        return next(((i, row.index("G")) for i, row in enumerate(self.rows) if "G" in row), None)

    @cached_property
    def free_cells(self) -> np.ndarray:
        """Integer array (N, 2): the unmarked free cells in reading order, then the goal's cell if there is one."""
        cells = [(i, j) for i, row in enumerate(self.rows) for j, tile in enumerate(row) if tile in _FREE]
        if self.goal_cell is not None:
            cells.append(self.goal_cell)
        return np.array(cells, dtype=np.int64)

    @cached_property
    def goal(self) -> np.ndarray:
        """The task's fixed goal (2,): the center of the cell `G`; without one, of the first free cell, as in D4RL."""
        cell = self.free_cells[0] if self.goal_cell is None else self.goal_cell
        return np.array(cell, dtype=np.float64)

    def cell_of(self, x: float, y: float) -> tuple[int, int]:
        """The cell between whose walls a point lies; a reachable point lies in a free one."""
        return round(x - WALL_SHIFT), round(y - WALL_SHIFT)

    def wall_boxes(self) -> np.ndarray:
        """Float array (W, 4): x_min, x_max, y_min, y_max of each wall cell, in observation coordinates."""
        cells = np.argwhere(self.walls) + WALL_SHIFT
        return np.stack([cells[:, 0] - 0.5, cells[:, 0] + 0.5, cells[:, 1] - 0.5, cells[:, 1] + 0.5], axis=1)

    def random_place(self, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[float, float]]:
        """A free cell drawn uniformly, and a point within 0.1 of its center along each axis: where D4RL puts starts and
        goals."""
        i, j = self.free_cells[rng.integers(len(self.free_cells))].tolist()
        dx, dy = rng.uniform(-0.1, 0.1, size=2).tolist()
        return (i, j), (i + dx, j + dy)

    def __str__(self) -> str:
        """The text of the maze, which `parse` reads."""
        return "\n".join(self.rows)


def parse(text: str) -> Layout:
    r"""Read a maze from text whose rows are separated by newlines (or by D4RL's backslash, or by `|`).

    Common indentation and trailing spaces are ignored. Raises ValueError, naming the row and column, for an empty text,
    more than `MAX_SIDE` rows or columns, ragged rows, an unknown character, several goals, no free cell, or a free cell on
    the border (through which the particle would leave the maze).
    """
    if not isinstance(text, str):
        raise ValueError(f"a maze layout is a text of rows, not {type(text).__name__}")
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"the maze layout has {len(text):,} characters; {_LIMIT}")
    return _parse(text)


def read(path: str | Path) -> Layout:
    """Read a maze from a text file in UTF-8.

    Raises ValueError, naming the file, for whatever `parse` refuses, and for what is not there or is no text file: a
    folder, a device, another encoding.
    """
    try:
        with opened(path) as file:
            content = file.read(4 * _MAX_CHARACTERS + 1)  # no more, however large the file is
        return parse(content.decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"the layout file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the layout file {path} is not text in UTF-8") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@lru_cache(maxsize=256)
def _parse(text: str) -> Layout:
    lines = textwrap.dedent(text.replace("|", "\n").replace("\\", "\n")).strip("\r\n").splitlines()
    rows = tuple(line.rstrip() for line in lines)
    if not any(rows):
        raise ValueError("the maze layout is empty; expected rows of '#' (wall), 'O' (free) and at most one 'G' (goal)")
    if max(len(rows), *map(len, rows)) > MAX_SIDE:
        raise ValueError(f"the maze layout has {len(rows)} rows and {max(map(len, rows))} columns; {_LIMIT}")
    cells = [(i, j, tile) for i, row in enumerate(rows) for j, tile in enumerate(row)]
    for i, j, tile in cells:
        if tile not in _TILES:
            raise ValueError(
                f"unknown character {tile!r} in the maze layout at row {i}, column {j}; "
                "expected '#' (wall), 'O', '0' or ' ' (free) or 'G' (goal)"
            )
    width = len(rows[0])
    for i, row in enumerate(rows):
        if len(row) != width:
            raise ValueError(f"the maze layout is ragged: row {i} has {len(row)} cells, row 0 has {width}")
    goals = [(i, j) for i, j, tile in cells if tile == "G"]
    if len(goals) > 1:
        raise ValueError(f"the maze layout has {len(goals)} goals, the first at {goals[:2]}; expected at most one 'G'")
    if all(tile == "#" for _, _, tile in cells):
        raise ValueError("the maze layout has no free cell; expected at least one 'O' or 'G'")
    for i, j, tile in cells:
        if tile != "#" and (i in (0, len(rows) - 1) or j in (0, width - 1)):
            raise ValueError(f"the maze layout is open at row {i}, column {j}: every cell of its border must be '#'")
    return Layout(rows)


def named(name: str) -> Layout:
    """One of D4RL's layouts by name (a key of `LAYOUTS`); KeyError with the known names otherwise."""
    if name not in LAYOUTS:
        raise KeyError(f"unknown maze {name!r}; known: {', '.join(LAYOUTS)}")
    return parse(LAYOUTS[name])
