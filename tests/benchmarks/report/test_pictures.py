"""What a run draws: files for the same cells are drawn once, and the denoising is that of the longest plan."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_cells import small_cell

from dfplan.benchmarks.recording import Recorder
from dfplan.benchmarks.report import pictures
from dfplan.envs.registry import task

LAYOUT = task("maze2d-umaze-v1").layout
LINE = np.linspace([1.0, 1.0], [1.0, 3.0], 7)


def denoising(rows=4):
    levels = np.linspace(1, 0, rows)[:, None] * np.linspace(0, 1, 7)
    return SimpleNamespace(positions=np.stack([LINE] * rows) + levels[..., None], levels=levels, goal=LINE[-1])


def recorded(*plans):
    """Two episodes of an agent along the same path, with these plans, and the denoising of one; what was asked for is noted."""

    def record(agent):
        record.asked.append(agent)
        recorder = Recorder([LINE[-1]] * 2, list(np.stack([LINE, LINE], axis=1)), list(plans))
        return recorder, None if recorder.longest_plan is None else denoising()

    record.asked = []
    return record


def test_the_same_cells_are_drawn_once(tmp_path):
    record = recorded(LINE[:3], LINE)
    pictures.write(tmp_path, LAYOUT, {"planner": small_cell()}, record)
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(first) == {"paths.png", "denoising.gif"}
    pictures.write(tmp_path, LAYOUT, {"planner": small_cell()}, record)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == first
    pictures.write(tmp_path, LAYOUT, {"planner": small_cell(created="2026-01-01T00:00:00+00:00")}, record)
    assert record.asked == ["planner"] * 2 and (tmp_path / "paths.png").stat().st_mtime_ns > first["paths.png"]


def test_the_longest_plan_is_denoised():
    assert [recorded(*plans)("a")[0].longest_plan for plans in ((LINE[:3], LINE), (LINE, None), (None, None))] == [
        1,
        0,
        None,
    ]


def test_a_denoising_of_other_cells_is_removed_where_nobody_plans(tmp_path):
    (tmp_path / "denoising.gif").touch()
    pictures.write(tmp_path, LAYOUT, {"planner": small_cell()}, recorded(None, None))
    assert [path.name for path in tmp_path.iterdir()] == ["paths.png"]


def test_nothing_is_drawn_without_paths(tmp_path):
    pictures.write(tmp_path, LAYOUT, {"planner": small_cell()}, lambda agent: None)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_picture_is_drawn_again(tmp_path):
    (tmp_path / "paths.png").write_bytes(b"\x89PNG")
    pictures.write(tmp_path, LAYOUT, {"planner": small_cell()}, recorded(None, None))
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
