from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

from dfplan.benchmarks import rows
from dfplan.benchmarks.baselines import RandomAgent
from dfplan.benchmarks.protocol import play
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.recording import Recorder
from dfplan.benchmarks.report.published import published
from dfplan.benchmarks.suites import suite
from dfplan.envs.registry import TASKS, task

ROOT = Path(__file__).parents[2]
LARGE = task("maze2d-large-v1")


@pytest.mark.parametrize("name", ["expert", "random"])
def test_baselines_play(name):
    recorder = Recorder()
    play(rows.row(name).build(task("maze2d-umaze-v1")), "maze2d-umaze-v1", [100_000, 100_001], recorder)
    assert all(np.ptp(path, axis=0).max() > 0.5 for path in recorder.executed)


def test_the_random_agent_serves_single_observations_and_batches_from_its_seed():
    agent = RandomAgent()
    agent.reset(seed=5)
    single, batch = agent.act(np.zeros(4)), agent.act(np.zeros((3, 4)))
    agent.reset(seed=5)
    assert single.shape == (2,) and batch.shape == (3, 2)
    assert np.array_equal(agent.act(np.zeros(4)), single) and not np.array_equal(batch[0], batch[1])


@pytest.mark.parametrize("name", rows.ROWS)
def test_every_row_names_code_that_is_there(name):
    row = rows.ROWS[name]
    assert callable(resolve_name(row.agent)) and callable(resolve_name(row.prepare or row.agent)) and row.about


def test_the_default_rows_are_registered():
    assert {name for one in TASKS.values() for name in suite.of(one).rows} <= set(rows.ROWS)


def test_the_facts_of_a_row_name_what_is_there():
    """Its page, its color's family, its recipe, and the printed methods that are the same algorithm."""
    printed = set(published()["method"])
    for name, row in rows.ROWS.items():
        assert row.page is None or (ROOT / "docs" / f"{row.page}.md").is_file(), name
        assert (row.family in rows.FAMILIES) == (row.page is not None), name
        assert set(row.printed) <= printed, name
        assert row.recipe is None or row.recipe in {*RECIPES, *ONLINE}, name
    assert sum(row.headline for row in rows.ROWS.values()) <= 8


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(KeyError, match="did you mean expert"):
        rows.row("exprt")


def test_a_model_of_stable_baselines3_is_named_by_its_file(tmp_path):
    path = tmp_path / "best model.zip"
    path.touch()
    row = rows.row(f"sb3:{path}")
    assert row.weights_file(LARGE, None) == path and row.training_seeds(LARGE) == (None,)
    shown = rows.shown(f"sb3:{path}")
    assert shown.startswith("sb3:best model-") and shown != rows.shown(f"sb3:{tmp_path}/a/best model.zip")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        rows.row("sb3:nowhere.zip")


def test_missing_weights_come_with_the_command_that_trains_them():
    """Of each wanted training seed, or of the first one."""
    row = rows.Row("no:agent", "about", recipe="new")
    assert row.lacking(LARGE, (0, 1)) == [
        ["--env", "maze2d-large", "--recipe", "new"],
        ["--env", "maze2d-large", "--recipe", "new", "--seed", "1"],
    ]
    assert row.lacking(LARGE) == [["--env", "maze2d-large", "--recipe", "new"]]
    assert rows.Row("no:agent", "about", recipe="default").lacking(LARGE) == []


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A function that makes finished runs in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path("runs", name).parent.mkdir(parents=True)
            Path("runs", name).touch()

    return make


def test_weights_of_training_runs_are_found_seed_by_seed(runs):
    row = rows.Row("no:agent", "about", recipe="new")
    with pytest.raises(rows.MissingWeightsError, match="--env maze2d-large --recipe new`"):
        row.training_seeds(LARGE)
    runs("maze2d-large-new-seed0/weights.safetensors", "maze2d-large-new-seed2/weights.zip")
    assert row.training_seeds(LARGE) == (0, 2) and row.training_seeds(LARGE, (2,)) == (2,)
    assert row.weights_file(LARGE, 2) == Path("runs/maze2d-large-new-seed2/weights.zip")
    with pytest.raises(rows.MissingWeightsError, match="--recipe new --seed 1`"):
        row.training_seeds(LARGE, (0, 1))


def test_one_file_may_hold_several_training_seeds(runs):
    row = rows.Row("no:agent", "about", recipe="new", stacked=3)
    with pytest.raises(rows.MissingWeightsError, match=r"--recipe new`"):
        row.training_seeds(LARGE, (2,))
    runs("maze2d-large-new-seed0/weights.safetensors")
    assert row.training_seeds(LARGE) == (0, 1, 2)
    assert row.weights_file(LARGE, 2) == row.weights_file(LARGE, 0)


def test_a_learner_of_one_goals_reward_does_not_play_random_goals():
    row = rows.Row("no:agent", "about", recipe="new", single_goal=True)
    cloned = rows.ROWS["bc"]  # without goals in the mazes alone
    for one in (row, cloned):
        assert one.refusal(LARGE) is None and "new one in each episode" in one.refusal(task("multi2d-large-v1"))
    assert row.refusal(task("cube-single-v0")) and cloned.refusal(task("cube-single-v0")) is None


def test_a_row_that_is_made_for_one_suite_is_refused_in_the_others():
    cube = task("cube-single-v0")
    assert "made for maze2d only" in rows.ROWS["expert"].refusal(cube) and rows.ROWS["expert"].refusal(LARGE) is None
    assert rows.ROWS["random"].refusal(cube) is None
    assert rows.ROWS["iql"].weights_name(cube) == "cube-single-iql" and "new one" in rows.ROWS["iql"].refusal(cube)
