"""What a run draws: files for the same cells are drawn once, and the denoising is that of the longest plan."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_cells import small_cell

from dfplan.benchmarks.report import pictures
from dfplan.envs.registry import task

LAYOUT = task("maze2d-umaze-v1").layout
LINE = np.linspace([1.0, 1.0], [1.0, 3.0], 7)


def agents(*plans, **changes):
    """Two episodes of an agent along the same path, with these plans."""
    paths = SimpleNamespace(goals=(LINE[-1],) * 2, executed=(LINE,) * 2, planned=plans)
    return {"planner": small_cell(**changes)}, lambda agent: paths


def denoising(rows=4):
    levels = np.linspace(1, 0, rows)[:, None] * np.linspace(0, 1, 7)
    return SimpleNamespace(positions=np.stack([LINE] * rows) + levels[..., None], levels=levels, goal=LINE[-1])


@pytest.fixture
def record():
    """Says what it was asked for."""
    asked = []

    def record(agent, seed):
        asked.append(seed)
        return denoising()

    record.asked = asked
    return record


def test_the_longest_plan_is_denoised_and_the_same_cells_are_drawn_once(tmp_path, record):
    pictures.write(tmp_path, LAYOUT, *agents(LINE[:3], LINE), record)
    assert record.asked == [100_001]
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(first) == {"paths.png", "denoising.gif"}
    pictures.write(tmp_path, LAYOUT, *agents(LINE[:3], LINE), record)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == first
    pictures.write(tmp_path, LAYOUT, *agents(LINE[:3], LINE, created="2026-01-01T00:00:00+00:00"), record)
    assert record.asked == [100_001] * 2 and (tmp_path / "paths.png").stat().st_mtime_ns > first["paths.png"]


def test_a_denoising_of_other_cells_is_removed_where_nobody_plans_or_no_record_is_kept(tmp_path, record):
    for plans, keep in (((None, None), record), ((LINE, None), lambda agent, seed: None)):
        (tmp_path / "denoising.gif").touch()
        (tmp_path / "paths.png").unlink(missing_ok=True)
        pictures.write(tmp_path, LAYOUT, *agents(*plans), keep)
        assert [path.name for path in tmp_path.iterdir()] == ["paths.png"]
    assert record.asked == []


def test_nothing_is_drawn_without_paths(tmp_path, record):
    pictures.write(tmp_path, LAYOUT, {"planner": small_cell()}, lambda agent: None, record)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_picture_is_drawn_again(tmp_path, record):
    (tmp_path / "paths.png").write_bytes(b"\x89PNG")
    pictures.write(tmp_path, LAYOUT, *agents(None, None), record)
    with Image.open(tmp_path / "paths.png") as picture:
        assert picture.width > 300


@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (5, 5), (200, pictures.MOST_FRAMES)])
def test_an_animation_has_a_frame_for_each_row_up_to_a_limit(rows, frames):
    with Image.open(io.BytesIO(pictures.animate(LAYOUT, denoising(rows)))) as animation:
        assert animation.n_frames == frames


def test_the_points_of_an_animation_become_clean():
    with Image.open(io.BytesIO(pictures.animate(LAYOUT, denoising()))) as animation:
        clean = []
        for place in (0, 3):
            animation.seek(place)
            maze = np.asarray(animation.convert("RGB")).astype(int)[
                : animation.height - 60
            ]  # without the scale of colors
            clean.append((np.abs(maze - (23, 7, 139)).sum(axis=-1) < 40).sum())
    assert clean[1] > 100 > clean[0]
