import numpy as np
import pytest

from dfplan.envs.maze.expert import distance_field
from dfplan.envs.maze.geodesic import PITCH, Geodesic
from dfplan.envs.maze.layouts import named, parse
from dfplan.envs.maze.rollouts import Rollouts

U = parse("#####|#OOO#|###O#|#OOO#|#####")


@pytest.mark.parametrize("norm", [2, np.inf])
def test_in_an_empty_room_it_is_the_norm_itself(norm):
    layout = named("open")
    points = np.random.default_rng(0).uniform([0.4, 0.4], [3.2, 5.2], (2000, 2))
    expected = np.linalg.norm(points - layout.goal, ord=norm, axis=1)
    found = Geodesic(layout, norm)(points, layout.goal)
    assert np.abs(found - expected).max() < 0.3 * PITCH  # next to the goal, the tip of the cone is cut
    far = expected > 0.5
    if norm == 2:
        assert (
            np.abs(found - expected)[far].max() < 0.2 * PITCH**2 / 0.5
        )  # bilinear: h^2 / 8 times the curvature, twice


def test_a_way_around_a_wall_bends_at_its_grown_corners():
    # The wall between the two corridors ends, grown by the radius, at y = 2 - 0.2 + 0.6, x from 1.2 to 2.4.
    start, goal, corners = np.array([1.0, 1.0]), np.array([3.0, 1.0]), ([1.2, 2.4], [2.4, 2.4])
    expected = np.linalg.norm(corners[0] - start) + 1.2 + np.linalg.norm(goal - corners[1])
    assert Geodesic(U)(start, goal) == pytest.approx(expected, abs=1e-3)
    assert Geodesic(U, np.inf)(start, goal) == pytest.approx(1.4 + 1.2 + 1.4, abs=1e-3)


def test_no_way_leads_through_walls():
    """Two points on the two sides of the wall are near by air only, and inside the wall it is farther than anywhere."""
    field = Geodesic(U)
    goal = np.array([3.0, 1.0])
    side, inside = field([1.1, 0.9], goal), field([1.8, 1.0], goal)
    assert side > 4.0 and inside > field.field(goal)[field._free].max()


@pytest.mark.parametrize("norm", [2, np.inf])
@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
def test_it_is_continuous_where_the_particle_can_be_and_agrees_with_the_moves(maze, norm):
    layout = named(maze)
    field = Geodesic(layout, norm)
    rng, cells = np.random.default_rng(0), layout.free_cells
    start = np.concatenate([cells + 0.0, 3 * rng.normal(size=cells.shape)], axis=1)
    path = Rollouts(layout)(start, np.repeat(rng.uniform(-1, 1, (len(cells), 20, 2)), 10, axis=1))
    distance = field(path[..., :2], layout.goal)
    step = np.linalg.norm(np.diff(path[..., :2], axis=1), axis=-1)
    assert (np.abs(np.diff(distance, axis=1)) <= 2.5 * step + 1e-9).all()
    moves = distance_field(layout, layout.goal_cell or tuple(cells[0]))[tuple(cells.T)]
    found = field(cells, layout.goal)
    assert (found <= moves + 0.01).all() and (found >= 0.5 * moves - 0.01).all()


def test_each_row_has_its_goal():
    layout, rng = named("medium"), np.random.default_rng(0)
    field, goals = Geodesic(layout), layout.free_cells[[0, 7, 11]] + 0.05
    points = layout.free_cells[rng.integers(10, size=(3, 4, 5))] + 0.02
    together = field(points, goals)
    assert together.shape == (3, 4, 5)
    for row in range(3):
        assert np.array_equal(field(points[row], goals[row]), together[row])


def test_bad_input():
    field = Geodesic(U)
    with pytest.raises(ValueError, match="inside a wall"):
        field([1.0, 1.0], [1.8, 1.0])
    with pytest.raises(ValueError, match="distances need points"):
        field(np.ones((3, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="lies outside the maze"):
        field([1.0, 1.0], [1e300, 1.0])
    for wrong in ([np.nan, 1.0], ["1", "1"], [1j, 1.0]):
        with pytest.raises(ValueError, match="distances need finite points"):
            field(wrong, [1.0, 1.0])
        with pytest.raises(ValueError, match="distances need finite goals"):
            field([1.0, 1.0], wrong)
    with pytest.raises(ValueError, match="2 or inf"):
        Geodesic(U, 1)
