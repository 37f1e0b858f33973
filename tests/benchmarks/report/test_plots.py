from PIL import Image
from test_cells import small_cell, small_timing

from dfplan.benchmarks.report import figures, plots
from dfplan.benchmarks.report.summaries import summarize
from dfplan.benchmarks.rows import ROWS

CURVE = [{"step": 100, "normalized": 1.0}, {"step": 200, "normalized": 5.04}]
CELLS = [
    *(small_cell(agent="iql", training_seed=seed, card={"curve": CURVE}) for seed in range(3)),
    small_cell(agent="random", training_seed=None),
]


def numbers(cells=CELLS):
    timings = [small_timing(agent="iql"), small_timing(agent="random", mean=1e-5)]
    return plots.numbers(summarize(cells, timings))


def curves(found):
    """From an agent to its runs, each (steps, values)."""
    return {
        agent: [(list(run["step"]), list(run["value"])) for _, run in own.groupby("run")]
        for agent, own in found.groupby("agent")
    }


def test_numbers_are_rounded_to_what_can_be_seen():
    found = numbers()
    scores = found["scores.png"].set_index("agent").loc["iql"]
    assert scores["normalized"] == -13.7 and scores["normalized_low"] <= -13.7 <= scores["normalized_high"]
    assert scores["printed"] == (42.11,)
    assert list(found["speed.png"]["milliseconds"]) == [2.0, 0.001]
    ((steps, values),) = curves(found["returns.png"])["iql"]
    assert steps[0] == 1 and steps[-1] == 300 and len(steps) == plots.POINTS and values[-1] == 5.0
    assert curves(found["learning.png"]) == {"iql": [([100, 200], [1.0, 5.0])]}
    assert set(found["learning.png"]["env"]) == {"maze2d-umaze-v1"}


def test_learning_curves_are_one_a_training_run_in_the_environment_they_were_measured_in():
    apart = [{"step": 100, "normalized": 3.0}]
    scores = [
        {"env": "maze2d-umaze-v1"},
        {"each": [{"env": "maze2d-umaze-v1"}] * 3},
        {},
        {"env": "multi2d-umaze-v1"},
        {},
    ]
    cards = [{"curve": c, "score": s} for c, s in zip((CURVE, CURVE, apart, apart, []), scores, strict=True)]
    cells = [small_cell(agent="iql", training_seed=i, card=card) for i, card in enumerate(cards)]
    assert curves(numbers(cells)["learning.png"]) == {"iql": [([100, 200], [1.0, 5.0]), ([100], [3.0])]}
    assert "learning.png" not in numbers([cells[3], cells[4]])


def test_cards_of_others_with_other_scores_and_curves_are_no_fault():
    cards = [{"curve": CURVE, "score": 1.5}, {"curve": [{"step": 1.0, "loss": 2.0}]}, {"curve": None}]
    cells = [small_cell(agent="iql", training_seed=i, card=card) for i, card in enumerate(cards)]
    assert curves(numbers(cells)["learning.png"]) == {"iql": [([100, 200], [1.0, 5.0])]}


def test_plots_without_numbers_are_left_out_and_old_ones_removed(tmp_path):
    bare = numbers([small_cell(agent="random", training_seed=None, reward_curve=[])])
    assert set(bare) == {"scores.png", "speed.png"}
    (tmp_path / "learning.png").touch()
    plots.write(tmp_path, bare)
    assert {path.name for path in tmp_path.iterdir()} == set(bare)


def test_plots_are_small_and_the_same_bytes_and_hold_the_digest_of_their_numbers(tmp_path):
    found = numbers()
    assert set(plots.stale(tmp_path, found)) == set(plots.PLOTS)
    plots.write(tmp_path, found)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == set(plots.PLOTS) and max(map(len, first.values())) < 150_000
    assert plots.stale(tmp_path, numbers()) == []
    plots.write(tmp_path, {"scores.png": found["scores.png"]})
    assert (tmp_path / "scores.png").read_bytes() == first["scores.png"]
    found["scores.png"].loc[0, "normalized"] += 0.1
    assert plots.stale(tmp_path, {"scores.png": found["scores.png"]}) == ["scores.png"]
    with Image.open(tmp_path / "scores.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)  # a ground of its own, on dark pages too


def test_no_two_rows_look_alike_and_families_share_a_color():
    looks = {name: plots.style(name) for name in ROWS}
    for shown in ("linestyle", "marker"):
        assert len({(look["color"], look[shown]) for look in looks.values()}) == len(ROWS)
    for name, row in ROWS.items():
        assert (looks[name]["color"] == figures.FAINT) == (row.family == "")
    assert plots.style("my_agent:make")["color"] == figures.FAINT
