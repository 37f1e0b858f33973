import numpy as np
import pytest
from PIL import Image
from test_cells import small_cell, small_timing

from dfplan.benchmarks import drawing, plots
from dfplan.benchmarks.counterparts import PAGES
from dfplan.benchmarks.summaries import summarise

CURVE = [{"step": 100, "normalized": 1.0}, {"step": 200, "normalized": 5.04}]
CELLS = [
    *(small_cell(agent="iql", training_seed=seed, card={"curve": CURVE}) for seed in range(3)),
    small_cell(agent="random", training_seed=None),
]


def benchmark(cells=CELLS):
    timings = [small_timing(agent="iql"), small_timing(agent="random", mean=1e-5)]
    return {"maze2d-umaze-v1": summarise(cells, timings)}


def test_numbers_are_rounded_to_what_can_be_seen():
    found = plots.numbers(benchmark())
    scores = found["scores.png"]["maze2d-umaze"]["iql"]
    assert scores[0] == pytest.approx(-13.7) and scores[1] <= scores[0] <= scores[2] and scores[3] == [42.11]
    assert found["speed.png"]["maze2d-umaze"]["iql"][0] == 2.0
    steps, values = found["returns.png"]["maze2d-umaze"]["iql"]
    assert steps[0] == 1 and steps[-1] == 300 and len(steps) == plots.POINTS and values[-1] == 5.0
    assert found["learning.png"]["maze2d-umaze"] == {"iql": [[[100, 200], [1.0, 5.0]]]}


def test_learning_curves_are_one_a_training_run_in_the_environment_they_were_measured_in():
    apart = [{"step": 100, "normalized": 3.0}]
    scores = [{"env": "maze2d-umaze-v1"}, {"each": [{"env": "maze2d-umaze-v1"}] * 3}, {}, {"env": "multi2d-umaze-v1"}, {}]
    cards = [{"curve": c, "score": s} for c, s in zip((CURVE, CURVE, apart, apart, []), scores, strict=True)]
    cells = [small_cell(agent="iql", training_seed=i, card=card) for i, card in enumerate(cards)]
    curves = [[[100, 200], [1.0, 5.0]], [[100], [3.0]]]
    assert plots.learning_numbers(benchmark(cells)) == {"maze2d-umaze": {"iql": curves}}
    assert plots.learning_numbers(benchmark([cells[3], cells[4]])) == {}


def test_cards_of_others_with_other_scores_and_curves_are_no_fault():
    cards = [{"curve": CURVE, "score": 1.5}, {"curve": [{"step": 1.0, "loss": 2.0}]}, {"curve": None}]
    cells = [small_cell(agent="iql", training_seed=i, card=card) for i, card in enumerate(cards)]
    assert plots.learning_numbers(benchmark(cells)) == {"maze2d-umaze": {"iql": [[[100, 200], [1.0, 5.0]]]}}


def test_plots_without_numbers_are_left_out_and_old_ones_removed(tmp_path):
    bare = plots.numbers(benchmark([small_cell(agent="random", training_seed=None, reward_curve=[])]))
    assert set(bare) == {"scores.png", "speed.png"}
    (tmp_path / "learning.png").touch()
    plots.write(tmp_path, bare)
    assert {path.name for path in tmp_path.iterdir()} == set(bare)


def test_plots_are_small_and_the_same_bytes_and_know_their_numbers(tmp_path):
    found = plots.numbers(benchmark())
    assert set(plots.stale(tmp_path, found)) == set(plots.PLOTS)
    plots.write(tmp_path, found)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == set(plots.PLOTS) and max(map(len, first.values())) < 150_000
    assert plots.stale(tmp_path, found) == []
    plots.write(tmp_path, {"scores.png": found["scores.png"]})
    assert (tmp_path / "scores.png").read_bytes() == first["scores.png"]
    found["scores.png"]["maze2d-umaze"]["iql"][0] += 0.1
    assert plots.stale(tmp_path, {"scores.png": found["scores.png"]}) == ["scores.png"]
    with Image.open(tmp_path / "scores.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)  # a ground of its own, on dark pages too


def test_places_keep_their_gap_and_move_as_little_as_they_can():
    assert np.allclose(drawing.spread([5.0, 1.0, 1.0], 1.0, 0, 10), [5.0, 0.5, 1.5])
    assert np.allclose(drawing.spread([0.0, 0.0], 1.0, 0, 10), [0.0, 1.0])
    assert np.allclose(drawing.spread([3.0] * 5, 9.0, 0, 4), range(5))
    assert np.allclose(drawing.spread([7.0], 1.0, 0, 10), [7.0])


def test_labels_of_points_do_not_cover_each_other():
    figure, (axes,) = drawing.panels(["one"], 5, 4)
    places = np.random.default_rng(0).uniform(0, 1, (12, 2))
    places[1] = places[0]
    axes.plot(*places.T, "o")
    figure.canvas.draw()
    figure.set_layout_engine("none")
    drawing.label_points(axes, [f"agent-{i}" for i in range(12)], places)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 12
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    drawing.plt.close(figure)


def test_every_page_has_a_colour():
    assert all(drawing.family(agent) is not None for rows in PAGES.values() for agent in rows)
    assert drawing.color("my_agent:make") == drawing.FAINT
