from dataclasses import replace

import numpy as np
import pytest
import torch

from dfplan.benchmarks import play, protocol, rows
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.recording import Recorder
from dfplan.benchmarks.suites import maze2d
from dfplan.benchmarks.wanted import key, wanted
from dfplan.envs.registry import task

UMAZE = task("maze2d-umaze-v1")
GUIDED = {"scale": 1.0, "futures": 2, "future_steps": 8}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Untrained weights of the default recipe, whose header asks for Monte Carlo guidance and for the longest plan."""
    from dfplan.agents.diffusion_forcing import DiffusionForcingAgent

    torch.manual_seed(0)
    recipe = RECIPES["default"](maze2d.SPEC, maze2d.budget(UMAZE))
    agent = DiffusionForcingAgent(recipe.learner(recipe.model)).with_options(horizons=1)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    agent.save(path)
    return path


def asked(agent):
    """A wanted cell, of the first training seed."""
    (cell, *_), _ = wanted([UMAZE], [agent], [100_000])
    return cell


@pytest.fixture
def found(weights, monkeypatch):
    monkeypatch.setattr(rows, "weights_file", lambda name, seed=0: weights)


def test_rows_of_the_same_weights_differ_in_guidance_alone(found):
    plain = rows.row("diffusion-forcing").build(UMAZE, "cpu", 0)
    guided = rows.row("diffusion-forcing-mcg").build(UMAZE, "cpu", 0)
    assert {name: getattr(guided.config.plan, name) for name in GUIDED} == GUIDED
    assert (plain.config.plan.scale, plain.config.plan.futures) == (0.0, 0)
    assert plain.with_options(**GUIDED).config == guided.config
    theirs = plain.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in guided.model.state_dict().items())


def test_a_planning_agent_plays_and_is_described(found):
    agent = rows.row("diffusion-forcing").build(UMAZE, "cpu", 0)
    recorder = Recorder()
    protocol.play(agent, UMAZE.env_id, [100_000, 100_001], recorder)
    paths = recorder
    assert all(
        np.allclose(plan[0], path[0], atol=1e-4) for plan, path in zip(paths.planned, paths.executed, strict=True)
    )
    described = play.describe(asked("diffusion-forcing"))
    assert described["execution"] == "learned inverse dynamics" and described["parameters"] > 100_000
    assert described["config"]["plan"]["futures"] == 0


def test_a_recorded_denoising_runs_from_noise_to_clean(found):
    play.build.cache_clear()
    recorder, denoising = play.record(asked("diffusion-forcing-mcg"))
    assert recorder.longest_plan == 0
    play.build.cache_clear()
    rows, points, _ = denoising.positions.shape
    assert rows > 2 and denoising.levels.shape == (rows, points)
    assert denoising.levels[0].max() == 1.0 and denoising.levels[-1].max() == 0.0
    assert (np.diff(denoising.levels, axis=0) <= 0).all()
    assert np.allclose(denoising.positions[:, 0], denoising.positions[0, 0])


def test_missing_weights_are_said_with_the_command_that_trains_them(monkeypatch):
    monkeypatch.setattr(rows, "weights_file", lambda name, seed=0: None)
    with pytest.raises(rows.MissingWeightsError, match=r"benchmarks/train\.py --env maze2d-umaze --recipe paper"):
        rows.row("diffusion-forcing-paper").build(UMAZE, "cpu", 0)


def test_missing_weights_of_a_further_training_seed_are_said_too(found, monkeypatch, weights):
    monkeypatch.setattr(rows, "weights_file", lambda name, seed=0: weights if seed == 0 else None)
    row = rows.row("diffusion-forcing")
    assert row.training_seeds(UMAZE) == (0,)
    with pytest.raises(rows.MissingWeightsError, match=r"train\.py --env maze2d-umaze --seed 1`"):
        row.training_seeds(UMAZE, (0, 1))


def test_what_a_result_depends_on_is_told_apart(found, weights, tmp_path, monkeypatch):
    plain, guided = (key(row, UMAZE, 0, batch=5) for row in ("diffusion-forcing", "diffusion-forcing-mcg"))

    assert plain.weights is not None and plain.others(guided) == ["config"]
    assert plain.others(key("diffusion-forcing", UMAZE, 0, batch=5)) == []
    assert plain.others(key("diffusion-forcing", UMAZE, 0, batch=6)) == ["protocol"]
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(weights.read_bytes() + b"0")
    monkeypatch.setattr(rows, "weights_file", lambda name, seed=0: changed)
    assert plain.others(key("diffusion-forcing", UMAZE, 0, batch=5)) == ["weights"]


def test_a_process_with_other_weights_refuses_to_play(found):
    other = replace(asked("diffusion-forcing").key, weights="0" * 64)
    with pytest.raises(ValueError, match="found other weights of 'diffusion-forcing' than this run began with"):
        play.build(replace(asked("diffusion-forcing"), key=other))


def test_mazes_without_a_recipe_are_named():
    with pytest.raises(ValueError, match="open"):
        rows.row("diffusion-forcing").build(task("maze2d-open-v0"), "cpu", 0)
